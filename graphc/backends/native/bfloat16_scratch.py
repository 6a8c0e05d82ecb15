"""The memory that a thread needs for a product of bfloat16, beside the factors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.backends.native.gemm_scratch import K_BLOCK, LongScratch, Scratch, WindowScratch
from graphc.backends.native.gemm_tile import Tile
from graphc.ir.forms import BLOCK, Window
from graphc.ir.tensor_type import ITEMSIZE, Dim, align, count, dim_at
from graphc.kernels.kernel import CHUNK, Convolution, Gemm

PART = 32
"""The rows of windows in blocks whose sums are near when the body runs on them."""


@dataclass(frozen=True, slots=True)
class PairScratch(LongScratch):
    """The sizes for matrices of bfloat16, of which any side may be of the batch: blocks of rows."""

    @property
    def depth(self) -> int:
        """The factors of a block, in the whole vectors of pairs to which transposition rounds."""
        return _at_most(K_BLOCK, self.kernel.k, 2 * self.tile.lanes)

    @property
    def panel_block(self) -> int:
        """The elements of a block of a panel, each a pair."""
        return self.depth // 2 * self.tile.width

    @property
    def rows_block(self) -> int:
        """The elements of a block of a."""
        return self.depth * self.rows

    @property
    def rows(self) -> int:
        """The rows of a block, in full chunks."""
        return _at_most(self.MOST_ROWS, self.kernel.m, CHUNK)

    @property
    def together(self) -> int:
        """The panels whose sums are added up together."""
        most = self.SUMS // self.panel_sums
        return min(most, self.panels) if isinstance(self.kernel.n, int) else most


@dataclass(frozen=True, slots=True)
class BlockScratch(PairScratch):
    """The sizes for products in blocks: many rows share a panel, as products take little time."""

    MOST_ROWS = 512
    SUMS = 1 << 18
    PANEL = 1 << 14
    """The most factors in a block of a panel, which stays near the core."""

    @property
    def most_depth(self) -> int:
        """The most factors of a block, in whole blocks of terms."""
        return self.PANEL // self.tile.width // BLOCK * BLOCK

    @property
    def depth(self) -> int:
        """The factors of a block of rows, in whole blocks of terms."""
        return _at_most(self.most_depth, self.kernel.k, BLOCK)

    @property
    def rows_block(self) -> int:
        """The elements of a block of a, each a pair."""
        return self.depth // 2 * self.rows


@dataclass(frozen=True, slots=True)
class BlockMatrixScratch(BlockScratch):
    """The sizes for matrices in blocks: a panel of b, sums, and one block of a or all."""

    HELD = 1 << 20
    """The most elements of all blocks of a, each a pair, that are kept for all groups of panels."""

    @property
    def holds_a(self) -> bool:
        """True if all blocks of a are kept while groups of panels are multiplied by them."""
        k, n = self.kernel.k, self.kernel.n
        several = not isinstance(n, int) or self.panels > self.together
        return several and isinstance(k, int) and self.rows * _whole(k, BLOCK) // 2 <= self.HELD

    def packed(self, n: int) -> int:
        """Return the elements of all parts; a is the last, with no more rows than there are."""
        k = dim_at(self.kernel.k, n)
        kept = _whole(k, BLOCK) if self.holds_a else self.depth
        rows = min(self.rows, _whole(dim_at(self.kernel.m, n), CHUNK))
        return self.panel_block + self.together * self.panel_sums + kept // 2 * rows


@dataclass(frozen=True, slots=True)
class BlockWindowScratch(Scratch):
    """The sizes for windows in blocks: all of b, some rows of a, a part of sums, images."""

    kernel: Convolution

    MOST_ROWS = BlockScratch.MOST_ROWS
    NEAR = 1 << 18
    """The terms of a that stay near the core."""

    @property
    def whole(self) -> int:
        """The terms of a row, with each offset's channels in whole blocks."""
        window = self.kernel.window
        return window.offsets * _whole(window.channels, BLOCK)

    @property
    def packed_b(self) -> int:
        """The elements of b, each a pair."""
        return self.whole // 2 * self.row

    @property
    def rows(self) -> int:
        """The rows of a block, in full chunks."""
        most = self.NEAR // self.whole // CHUNK * CHUNK
        return min(max(most, 2 * CHUNK), self.MOST_ROWS)

    @property
    def rows_block(self) -> int:
        """The elements of a block of a, each a pair."""
        return self.whole // 2 * self.rows

    @property
    def panel_sums(self) -> int:
        """The elements of the sums of a part of the rows."""
        return PART * self.tile.width

    @property
    def images(self) -> int:
        """The images whose places are taken together."""
        return max(self.MOST_ROWS // self.kernel.window.count, 1)

    @property
    def copied(self) -> int:
        """The factors of the copies of images."""
        return _copied(self.kernel.window, self.images)

    def packed(self, n: int) -> int:
        """Return the elements of all parts."""
        return self.packed_b + self.rows_block + self.panel_sums + self.copied // 2


@dataclass(frozen=True, slots=True)
class BlockPlacesScratch(BlockScratch):
    """The sizes for the gradient of a filter: blocks of both factors, sums, addresses, an image."""

    kernel: Convolution

    @property
    def units(self) -> int:
        """The units of rows that are taken together."""
        window = self.kernel.window
        return min(self.MOST_ROWS // CHUNK, window.offsets * -(-window.channels // CHUNK))

    @property
    def rows(self) -> int:
        """The rows of all units that are taken together."""
        return self.units * CHUNK

    @property
    def depth(self) -> int:
        """The places of a block, in whole blocks of terms."""
        return _at_most(self.most_depth, self.kernel.window.count, BLOCK)

    @property
    def addresses(self) -> int:
        """The elements of the addresses of a block's places, two each."""
        return 2 * self.depth

    @property
    def copied(self) -> int:
        """The factors of the copy of an image."""
        return _copied(self.kernel.window, 1)

    def packed(self, n: int) -> int:
        """Return the elements of all parts."""
        return BlockScratch.packed(self, n) + self.addresses + self.copied // 2


@dataclass(frozen=True, slots=True)
class WideScratch(Scratch):
    """The sizes for a convolution of bfloat16: widened copies of both factors, and what is left."""

    kernel: Convolution

    @property
    def plain(self) -> Convolution:
        """The product of the copies."""
        return replace(self.kernel, order=None)

    @property
    def elements(self) -> tuple[Dim, Dim]:
        """The elements of the copies of a and b."""
        return self.kernel.operands[0].elements, count((self.kernel.k, self.kernel.n))

    def size(self, n: int) -> int:
        """Return the bytes of all parts, for any batch of up to n rows."""
        copies = sum(align(dim_at(each, n) * ITEMSIZE[self.tile.dtype]) for each in self.elements)
        return copies + WindowScratch(self.plain, replace(self.tile, words=None)).size(n)


def bfloat16_scratch(kernel: Gemm, tile: Tile) -> Scratch:
    """Return the sizes of the scratch of a product of bfloat16."""
    if not isinstance(kernel, Convolution):
        return (BlockMatrixScratch if kernel.order == "blocks" else PairScratch)(kernel, tile)
    if kernel.order == "pairs":
        return WideScratch(kernel, tile)
    return (BlockPlacesScratch if kernel.trans_a else BlockWindowScratch)(kernel, tile)


def _at_most(most: int, size: Dim, unit: int) -> int:
    """Return a size in whole units, or `most` if it is larger or not known."""
    return min(most, _whole(size, unit)) if isinstance(size, int) else most


def _whole(size: int, unit: int) -> int:
    """Return a size in whole units."""
    return -(-size // unit) * unit


def _copied(window: Window, images: int) -> int:
    """Return the factors of copies of images in whole vectors, or 0 if they are read in place."""
    return 0 if window.is_direct else _whole(window.held_elements * images, BLOCK)
