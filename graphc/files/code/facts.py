"""The facts of an exported model that are known before it runs: operations, bytes, stack."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from graphc.backends.interface import Interface
from graphc.base.door import higher
from graphc.compiler.cost import program_cost


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
        yield Fact("STACK_BYTES", stack, "the most stack of a call; 96 KB more with vectors")
    for entry in model.entries:
        cost = program_cost(entry.program, model.batch)
        name = entry.name.removeprefix(f"{model.prefix}_").upper()
        yield Fact(f"{name}_OPERATIONS", cost.flops, "with BATCH rows; a multiply-add is two")
        yield Fact(f"{name}_BYTES", cost.bytes, "read and written by kernels, with BATCH rows")
    digest = hashlib.sha256(proof).hexdigest()
    yield Fact("CERTIFICATE", digest, "the SHA-256 of the file that proves the use of memory")
