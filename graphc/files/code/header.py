"""The C header of an exported model: its facts, such as operations and bytes, and its functions."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from graphc.backends.interface import Argument, Entry, Interface, declaration, type_text
from graphc.backends.names import comment
from graphc.base.door import higher
from graphc.compiler.cost import program_cost
from graphc.ir.text.graph import name_text


class Fact(NamedTuple):
    """A constant of the header."""

    name: str
    value: int | str
    meaning: str

    def line(self, prefix: str) -> str:
        """Return the definition of the constant."""
        value = f'"{self.value}"' if isinstance(self.value, str) else self.value
        return f"#define {prefix}_{self.name} {value} /* {self.meaning} */"


def certificate(model: Interface) -> bytes:
    """Return the certificate of the model's programs as JSON."""
    text: str = higher("certificate_text")(higher("certify_model")(model))
    return text.encode()


def facts(model: Interface, stack: int | None, proof: bytes, separate: bool) -> Iterator[Fact]:
    """Yield the constants of the header, once the file is written.

    `stack` has the bytes without vectors.  `separate` is true if the first state is a file.
    """
    arrays = [*model.constants.values(), *(() if separate else model.first_values.values())]
    yield Fact("BATCH", model.batch, "the most rows `n` of a call")
    yield Fact("STATE_BYTES", model.state_bytes, "what lasts between calls")
    yield Fact("WORK_BYTES", model.work_bytes, "what a call uses and leaves")
    constant = sum(array.nbytes for array in arrays)
    constant += sum(
        buffer.type.nbytes(1)
        for entry in model.entries
        for step in entry.program.steps()
        for buffer in step.constants.values()
    )
    yield Fact("CONSTANT_BYTES", constant, "weights and first values in the code")
    if stack is not None:
        yield Fact("STACK_BYTES", stack, "the most stack of a call; 112 KB more with vectors")
    for entry in model.entries:
        cost = program_cost(entry.program, model.batch)
        name = entry.name.removeprefix(f"{model.prefix}_").upper()
        yield Fact(f"{name}_OPERATIONS", cost.flops, "with BATCH rows; a multiply-add is two")
        yield Fact(f"{name}_BYTES", cost.bytes, "read and written by kernels, with BATCH rows")
    digest = hashlib.sha256(proof).hexdigest()
    yield Fact("CERTIFICATE", digest, "the SHA-256 of the file that proves the use of memory")


def header(
    model: Interface, known: Iterable[Fact], separate: bool, needs: Sequence[str] = ()
) -> bytes:
    """Return the header; `separate` is true if the first state is a file of its own.

    `needs` are functions of the compiler's library that the code calls.
    """
    upper = model.prefix.upper()
    lines = [fact.line(upper) for fact in known]
    heads = [f"{_documented(e)}{declaration(model, e)};\n" for e in model.entries]
    names = [entry.name for entry in model.entries]
    if model.state and not separate:
        names.insert(0, f"{model.prefix}_init")
        init = f"void {model.prefix}_init(void *state);\n"
        heads.insert(0, f"/* Sets the state to its first values. */\n{init}")
    text = "\n".join(
        [
            f"/* {model.prefix}: made by graphc.  State and work are aligned to 8 bytes. */",
            *([f"/* Link with libgcc or compiler-rt for {', '.join(needs)}. */"] if needs else ()),
            f"#ifndef GRAPHC_{upper}_H\n#define GRAPHC_{upper}_H\n",
            "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n",
            *lines,
            "/* Linkers refuse code of another layout: they see these names. */",
            *(f"#define {name} {model.symbol(name)}" for name in names),
            '\n#ifdef __cplusplus\nextern "C" {\n#endif\n',
            *heads,
            "#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
        ]
    )
    return text.encode()


def _documented(entry: Entry) -> str:
    """Return a comment with the shapes of a function's arrays."""
    read = [f"   {_shown(a)}" for a in entry.feeds]
    written = [f"   {_shown(a)}, written" for a, _ in entry.results]
    last = ["   returns the loss"] if entry.losses else []
    return "\n".join(["/* " + entry.name, *read, *written, *last]) + " */\n"


def _shown(argument: Argument) -> str:
    return f"{argument.name}: {comment(name_text(argument.declared))}, {type_text(argument.type)}"
