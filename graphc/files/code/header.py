"""The C header of an exported model: what a caller must know, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.backends.interface import Argument, Entry, Interface, declaration, type_text
from graphc.files.code.facts import Fact


def header(
    model: Interface, known: Iterable[Fact], separate: bool, needs: Sequence[str] = ()
) -> bytes:
    """Return the header; `separate` is true if the first state is a file of its own.

    `needs` are functions of the compiler's library that the code calls.
    """
    upper = model.prefix.upper()
    lines = [fact.line(upper) for fact in known]
    heads = [f"{_documented(e)}{declaration(model, e)};\n" for e in model.entries]
    if model.state and not separate:
        init = f"void {model.prefix}_init(void *state);\n"
        heads.insert(0, f"/* Sets the state to its first values. */\n{init}")
    text = "\n".join(
        [
            f"/* {model.prefix}: made by graphc.  State and work are aligned to 8 bytes. */",
            *(f"/* Link with libgcc or compiler-rt for {listed}. */" for listed in _joined(needs)),
            f"#ifndef {upper}_H\n#define {upper}_H\n",
            "#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n",
            *lines,
            '\n#ifdef __cplusplus\nextern "C" {\n#endif\n',
            *heads,
            "#ifdef __cplusplus\n}\n#endif\n\n#endif\n",
        ]
    )
    return text.encode()


def _joined(needs: Sequence[str]) -> list[str]:
    return [", ".join(needs)] if needs else []


def _documented(entry: Entry) -> str:
    """Return a comment with the shapes of a function's arrays."""
    read = [f"   {_shown(a)}" for a in entry.feeds]
    written = [f"   {_shown(a)}, written" for a, _ in entry.results]
    last = ["   returns the loss"] if entry.losses else []
    return "\n".join(["/* " + entry.name, *read, *written, *last]) + " */\n"


def _shown(argument: Argument) -> str:
    return f"{argument.name}: {argument.declared}, {type_text(argument.type)}"
