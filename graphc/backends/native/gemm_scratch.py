"""The memory that a thread needs for a product, beside the factors: the sizes of its parts."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from graphc.backends.native.gemm_tile import WIDEST, Tile
from graphc.ir.tensor_type import ITEMSIZE, align, dim_at
from graphc.kernels.kernel import CHUNK, LANES, Convolution, Gemm

K_BLOCK = 256
"""The rows of a block of k.  If k is more than four blocks, sums are added block by block, so that
the panel of a block stays in the second-level cache."""
MOST_GROUPS = 4
"""The most groups of panels for which a sum over two to four blocks of rows is by blocks: measured,
since a is packed once for each group."""
UNIT = 32
"""The rows of a panel that a loop packs are a multiple of this: a block of bfloat16, and no fewer
than transposition rounds to."""
FEW = 3
"""The most rows that are too few for tiles: b is then read in place, once."""


@dataclass(frozen=True, slots=True)
class Scratch:
    """The sizes of a thread's scratch, in elements: products, a panel of b, a block of a.

    A block of a has up to MOST_ROWS rows, fewer if they take more than ELEMENTS, but at least
    LEAST.
    """

    kernel: Gemm
    tile: Tile
    packs: bool = True
    """False if b is stored in panels, so that a thread packs none."""

    MOST_ROWS = 256
    LEAST = 32
    ELEMENTS = 1 << 16

    @property
    def columns(self) -> int:
        """The columns of the result, which do not depend on the batch."""
        assert isinstance(self.kernel.n, int), "the columns are counted"
        return self.kernel.n

    @property
    def products(self) -> int:
        """The elements of a tile of products."""
        return self.tile.rows * self.tile.width

    @property
    def row(self) -> int:
        """The elements of the sums of a row, in full panels; 0 if its columns are of the batch."""
        if not isinstance(self.kernel.n, int):
            return 0
        return -(-self.columns // self.tile.width) * self.tile.width

    @property
    def part(self) -> int:
        """The columns that are cut into panels."""
        return self.columns

    @property
    def full_panels(self) -> int:
        """The bytes of b in panels of full vectors and whole units of k, or of their pairs."""
        return align(self.row * whole(self.inner) * ITEMSIZE[self.kernel.factor_dtype])

    @property
    def inner(self) -> int:
        """The factors of a sum, which do not depend on the batch."""
        assert isinstance(self.kernel.k, int), "a weight is counted"
        return self.kernel.k

    @property
    def in_blocks(self) -> bool:
        """True if the product is added up in blocks of k."""
        kernel = self.kernel
        if not isinstance(kernel.n, int):
            return False
        return not kernel.trans_a and isinstance(kernel.k, int) and kernel.k > 4 * K_BLOCK

    @property
    def k_block(self) -> int:
        """The rows of a block; blocks are nearly equal, and the last one may have fewer."""
        assert isinstance(self.kernel.k, int), "the batch is in m"
        blocks = round(self.kernel.k / K_BLOCK)
        return -(-self.kernel.k // (blocks * LANES)) * LANES

    def panel(self, k: int) -> int:
        """Return the elements of a panel that is packed; transposition rounds k up."""
        return (k + self.tile.lanes) * self.tile.width if self.packs else 0

    def block(self, k: int) -> int:
        """Return the most elements that a block of a takes for up to k."""
        return max(self.MOST_ROWS * min(k, self.ELEMENTS // self.MOST_ROWS), self.LEAST * k)

    def sums(self, rows: int) -> int:
        """Return the elements of the sums of a panel, in full tiles of any height."""
        most = 2 * self.tile.rows
        return -(-rows // most) * most * self.tile.width

    def packed(self, n: int) -> int:
        """Return the elements of packed factors and sums, for any batch of up to n rows."""
        k = dim_at(self.kernel.k, n)
        if self.in_blocks:
            return self.panel(self.k_block) + self.sums(dim_at(self.kernel.m, n))
        return self.panel(k) + (self.block(k) if self.kernel.trans_a else 0)

    def size(self, n: int) -> int:
        """Return the bytes of all parts, for any batch of up to n rows."""
        elements = self.products + max(self.packed(n), FEW * self.row)
        return align(elements * ITEMSIZE[self.tile.dtype])


@dataclass(frozen=True, slots=True)
class LongScratch(Scratch):
    """The sizes for a sum over many rows of a batch: a block of each factor, and sums."""

    SUMS = 1 << 17
    """The elements of the sums that stay near the core."""

    @property
    def rows(self) -> int:
        """The rows of the result, in full chunks."""
        assert isinstance(self.kernel.m, int), "a long sum has the batch in k"
        return -(-self.kernel.m // CHUNK) * CHUNK

    @property
    def panel_block(self) -> int:
        """The elements of a block of a panel."""
        return K_BLOCK * self.tile.width

    @property
    def rows_block(self) -> int:
        """The elements of a block of a."""
        return K_BLOCK * self.rows

    @property
    def panel_sums(self) -> int:
        """The elements of the sums of a panel."""
        return self.rows * self.tile.width

    @property
    def together(self) -> int:
        """The panels whose sums are added up together."""
        return max(1, min(self.panels, self.SUMS // self.panel_sums))

    @property
    def panels(self) -> int:
        """The number of panels."""
        return -(-self.columns // self.tile.width)

    def packed(self, n: int) -> int:
        """Return the elements of the blocks and the sums."""
        return self.panel_block + self.rows_block + self.together * self.panel_sums


@dataclass(frozen=True, slots=True)
class WindowScratch(Scratch):
    """The sizes for a convolution: products, and panels."""

    kernel: Convolution

    @property
    def across_groups(self) -> bool:
        """True if a vector holds columns of several groups, since each group has few."""
        window, lanes = self.kernel.window, self.tile.lanes
        few = 2 * (self.columns // window.groups) <= lanes and window.channels <= lanes
        return window.groups > 1 and few

    @property
    def part(self) -> int:
        """The columns that are cut into panels: all, or those of a group."""
        return self.columns // (1 if self.across_groups else self.kernel.window.groups)

    def packed(self, n: int) -> int:
        """Return the elements of packed factors or sums."""
        depth = self.kernel.window.depth
        return depth * self.row if self.across_groups else self.panel(depth)


@dataclass(frozen=True, slots=True)
class WordScratch(Scratch):
    """The sizes for int8: all words of b, what its sums start at, a block of a, an image."""

    MOST_ROWS = 64
    SLACK = 16
    """The elements that the last vector of a packed row may take beyond it."""

    @property
    def groups(self) -> int:
        """The groups of a convolution, each of which has columns of its own."""
        return self.kernel.window.groups if isinstance(self.kernel, Convolution) else 1

    @property
    def part(self) -> int:
        """The columns that are cut into panels: those of a group."""
        return self.columns // self.groups

    @property
    def row_of_part(self) -> int:
        """The columns of a group, in full panels."""
        return -(-self.part // self.tile.width) * self.tile.width

    @property
    def row(self) -> int:
        """The columns in full panels."""
        return self.groups * self.row_of_part

    @property
    def words(self) -> int:
        """The words of a row of a, or of a column of b."""
        assert self.tile.words is not None
        return -(-self.inner // self.tile.words.factors)

    @property
    def block_words(self) -> int:
        """The elements of a block of a."""
        return self.MOST_ROWS * self.words + self.SLACK

    @property
    def image(self) -> int:
        """The elements of an image that is copied, whose pixels are bytes; a vector is left."""
        if not isinstance(self.kernel, Convolution):
            return 0
        window = self.kernel.window
        pixel = window.pixel if window.is_direct else window.channels
        size = prod(window.held) * pixel
        return (size // WIDEST + 2) * WIDEST // 4

    def packed(self, n: int) -> int:
        """Return the elements of packed factors and of an image."""
        return (self.words + 1) * self.row + self.block_words + self.image


def whole(k: int) -> int:
    """Return k rounded up to whole units."""
    return -(-k // UNIT) * UNIT
