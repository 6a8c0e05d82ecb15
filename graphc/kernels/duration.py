"""Estimates of the time of a kernel on one core, for decisions that change no result."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

from graphc.ir.tensor_type import ITEMSIZE, dim_at
from graphc.kernels.kernel import Chain, Convolution, Gemm, Kernel, ScatterAdd
from graphc.kernels.program import Instr

OPERATIONS_A_MICROSECOND = 150_000
"""The operations of one core, in round numbers."""
BYTES_A_MICROSECOND = 30_000
"""The bytes that one core reads and writes, in round numbers."""
CALL = 0.1
"""The fixed cost of a kernel in microseconds."""
SHARED = 2
"""The microseconds from which threads share an epoch: a barrier and moving data take about one."""


def microseconds(instrs: Iterable[Instr], n: int) -> float:
    """Estimate the time of the kernels among instructions, for a batch of `n` rows."""
    return sum(_instr_microseconds(instr, n) for instr in instrs)


def epoch_microseconds(instr: Instr, n: int) -> float:
    """Estimate the time of an instruction in one epoch: a loop may have several."""
    epochs = 1 if instr.inside is None else instr.inside.epochs
    return _instr_microseconds(instr, n) / epochs


def _instr_microseconds(instr: Instr, n: int) -> float:
    if instr.inside is not None:
        times, rows = instr.inside.runs(n)
        return times * microseconds(instr.inside.program.instrs, rows)
    return 0.0 if instr.body is None else kernel_microseconds(instr.body, n)


def is_shared(time: float) -> bool:
    """Return whether threads share an epoch that takes so many microseconds on one core."""
    return time >= SHARED


def kernel_microseconds(kernel: Kernel, n: int) -> float:
    """Estimate the time of a kernel on one core, for a batch of `n` rows."""
    if isinstance(kernel, Chain):
        return sum(kernel_microseconds(one, n) for one in kernel.kernels)
    rows, columns = (dim_at(dim, n) for dim in kernel.space)
    operations = rows * columns * len(kernel.body.steps)
    if isinstance(kernel, Gemm):
        k = dim_at(kernel.k, n)
        item = ITEMSIZE[kernel.factor_dtype]
        at_once = 1 if kernel.ordered else ITEMSIZE[kernel.dtype] // item
        operations += 2 * rows * columns * k // at_once
        moved = (rows * k + k * columns) * item + rows * columns * ITEMSIZE[kernel.dtype]
        if isinstance(kernel, Convolution):
            moved //= prod(kernel.window.kernel)
    else:
        moved = rows * columns * 4 * len(set((*kernel.body.loads, *kernel.body.written)))
        if isinstance(kernel, ScatterAdd):
            moved += dim_at(kernel.count, n) * columns * 8
    return CALL + max(operations / OPERATIONS_A_MICROSECOND, moved / BYTES_A_MICROSECOND)
