"""The scratch of matrix products: the bytes that each thread needs, known before code is made."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphc.backends.native.target import host
from graphc.backends.native.tile import FEW, K_BLOCK, LINE, Tile, choose_tile
from graphc.compiler.memory import align
from graphc.ir.plan import Program
from graphc.ir.tensor_type import ITEMSIZE, dim_at
from graphc.kernels.kernel import LANES, Gemm, Kernel


@dataclass(frozen=True, slots=True)
class Scratch:
    """The parts of a thread's memory, in elements: products, a panel of b, a block of a.

    For the product of a window: products, an image, and a panel of b or of sums; across groups a
    line of zeros, and all panels.
    """

    kernel: Gemm
    tile: Tile

    BLOCK = 256
    LEAST = 32
    ELEMENTS = 1 << 16

    @property
    def columns(self) -> int:
        """The columns of the result, whatever the batch."""
        assert isinstance(self.kernel.n, int), "the batch is in m or in k"
        return self.kernel.n

    @property
    def products(self) -> int:
        """The elements of a tile of products."""
        return self.tile.rows * self.tile.width

    @property
    def row(self) -> int:
        """The elements of the sums of a row, in full panels."""
        return -(-self.columns // self.tile.width) * self.tile.width

    @property
    def across_groups(self) -> bool:
        """Whether vectors run over the columns of several groups, each of few."""
        window, lanes = self.kernel.window, self.tile.lanes
        if window is None or window.groups == 1:
            return False
        return 2 * (self.columns // window.groups) <= lanes and window.channels <= lanes

    @property
    def part(self) -> int:
        """The columns that are cut into panels: all, or those of a group."""
        window = self.kernel.window
        if window is None or self.across_groups:
            return self.columns
        return self.columns // window.groups

    @property
    def in_blocks(self) -> bool:
        """Whether the product is added up in blocks of k."""
        kernel = self.kernel
        if kernel.window is not None:
            return False
        return not kernel.trans_a and isinstance(kernel.k, int) and kernel.k > 4 * K_BLOCK

    @property
    def k_block(self) -> int:
        """The rows of a block; blocks are nearly equal, and the last one may have fewer."""
        assert isinstance(self.kernel.k, int), "the batch is in m"
        blocks = round(self.kernel.k / K_BLOCK)
        return -(-self.kernel.k // (blocks * LANES)) * LANES

    def panel(self, k: int) -> int:
        """Return the elements of a panel of b; packing by transposition rounds k up."""
        return (k + self.tile.lanes) * self.tile.width

    def block(self, k: int) -> int:
        """Return the most elements that a block of a takes for up to k."""
        return max(self.BLOCK * min(k, self.ELEMENTS // self.BLOCK), self.LEAST * k)

    def sums(self, rows: int) -> int:
        """Return the elements of the sums of a panel, in full tiles of whatever height."""
        most = 2 * self.tile.rows
        return -(-rows // most) * most * self.tile.width

    @property
    def image(self) -> int:
        """The elements of an image that is copied, or of a line of zeros, in full vectors."""
        window = self.kernel.window
        if window is None:
            return 0
        across = self.across_groups
        seen = window if self.kernel.trans_a or across else window.dense
        if seen.is_direct:
            return 0
        size = window.space[-1] * window.pixel if across else prod(seen.held) * window.channels
        return -(-size // self.tile.lanes) * self.tile.lanes

    def size(self, n: int) -> int:
        """Return the bytes of all parts, for any batch of up to n rows."""
        k = dim_at(self.kernel.k, n)
        if self.kernel.window is not None and self.across_groups:
            tiles = self.image + self.kernel.window.depth * self.row
        elif self.kernel.window is not None:
            tiles = self.image + self.panel(self.kernel.window.depth)
        elif self.in_blocks:
            tiles = self.panel(self.k_block) + self.sums(dim_at(self.kernel.m, n))
        else:
            tiles = self.panel(k) + (self.block(k) if self.kernel.trans_a else 0)
        elements = self.products + max(tiles, FEW * self.row)
        return -(-elements * ITEMSIZE[self.tile.dtype] // LINE) * LINE


def instr_scratch(program: Program) -> list[int]:
    """Return the bytes that each thread needs in each instruction on this machine.

    They depend on the width of the machine's vectors.
    """
    bits, known = host().bits, dict[tuple[object, ...], int]()

    def needs(kernel: Kernel | None) -> int:
        if not isinstance(kernel, Gemm):
            return 0
        key = kernel.m, kernel.n, kernel.k, kernel.trans_a, kernel.dtype, kernel.window
        if key not in known:
            known[key] = kernel_scratch(kernel, bits, program.capacity)
        return known[key]

    return [needs(instr.body) for instr in program.instrs]


def kernel_scratch(kernel: Gemm, bits: int, n: int) -> int:
    """Return the scratch bytes of one product, for batches of up to `n` rows."""
    tile = choose_tile(kernel.dtype, bits)
    return align(Scratch(kernel, tile).size(n))
