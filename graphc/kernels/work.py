"""How much a kernel does: enough to tell a short program from a long one."""

from __future__ import annotations

from graphc.kernels.kernel import Gemm, Kernel
from graphc.plan import Program
from graphc.tensor_type import dim_at

OPERATIONS_A_MICROSECOND = 50_000
"""What one core does at least, in round numbers."""


def operations(kernel: Kernel, n: int) -> int:
    """Arithmetic operations for a batch of `n` rows."""
    if isinstance(kernel, Gemm):
        m, columns, k = (dim_at(dim, n) for dim in (kernel.m, kernel.n, kernel.k))
        return m * columns * (2 * k + len(kernel.body.steps))
    return dim_at(kernel.rows, n) * dim_at(kernel.columns, n) * len(kernel.body.steps)


def microseconds(program: Program, n: int) -> float:
    """Roughly how long the kernels of a program take on one core."""
    bodies = (instr.body for instr in program.instrs)
    work = sum(operations(body, n) for body in bodies if body is not None)
    return work / OPERATIONS_A_MICROSECOND
