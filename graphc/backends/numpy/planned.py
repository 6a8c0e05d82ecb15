"""The kernels of a program with their plans, and the scratch that they need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from graphc.backends.backend import Call, View
from graphc.backends.numpy.kernels import Planned
from graphc.base.door import ask, higher
from graphc.ir.op import Array
from graphc.kernels.kernel import Chain, Kernel
from graphc.kernels.program import Instr, Program

if TYPE_CHECKING:
    from graphc.backends.numpy.chains import PlannedChain


def planned(program: Program) -> PlannedProgram:
    """Return the plans of a program, whose updates run together if a part joins them."""
    found: PlannedProgram = ask("plan updates", program) or PlannedProgram(program)
    return found


class PlannedProgram:
    """The kernels of a program, each by itself."""

    def __init__(self, program: Program) -> None:
        bodies = [instr.body for instr in program.instrs]
        self.kernels = [None if body is None else _planned(program, body) for body in bodies]
        """The kernel of each instruction."""
        pairs = zip(program.instrs, self.kernels, strict=True)
        self.scratch = [_own_bytes(*pair) for pair in pairs]
        """The bytes that each instruction needs."""

    def bind(
        self, n: int, view: View, scratch: Array, skip: frozenset[int]
    ) -> dict[int, Sequence[Call]]:
        """Return the calls of the instructions whose updates run as one loop with others."""
        return {}

    def joined(self, i: int) -> Iterable[int]:
        """Return the instructions whose updates may run as one loop with that of another."""
        return (i,)


def _own_bytes(instr: Instr, kernel: Planned | PlannedChain | None) -> int:
    """Return the scratch bytes of an instruction by itself; steps of a loop run one by one."""
    if instr.inside is not None:
        return max(planned(instr.inside.program).scratch, default=0)
    return 0 if kernel is None else kernel.nbytes


def _planned(program: Program, kernel: Kernel) -> Planned | PlannedChain:
    if isinstance(kernel, Chain):
        chain: PlannedChain = higher("plan chain")(program, kernel)
        return chain
    return Planned.of(program, kernel)
