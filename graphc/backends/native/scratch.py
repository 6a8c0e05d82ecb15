"""The scratch of matrix products: how much each thread needs, known before any code is made."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.backends.native.gemm import GemmCode
from graphc.backends.native.target import host
from graphc.backends.native.tile import choose_tile
from graphc.kernels.kernel import Gemm
from graphc.memory import align
from graphc.plan import Program


def scratch_bytes(programs: Iterable[Program]) -> int:
    """Bytes that each thread needs to run any of the programs on this machine.

    It depends on the width of the machine's vectors.
    """
    bits = host().bits
    sizes = (
        kernel_scratch(instr.body, bits, program.capacity)
        for program in programs
        for instr in program.instrs
        if isinstance(instr.body, Gemm)
    )
    return max(sizes, default=0)


def kernel_scratch(kernel: Gemm, bits: int, n: int) -> int:
    """The part of one product, for batches of up to `n` rows."""
    tile = choose_tile(kernel.dtype, bits)
    return align(GemmCode("", (), kernel, tile).scratch(n))
