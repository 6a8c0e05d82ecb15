"""The choice of a thread's scratch for a product, and its bytes."""

from __future__ import annotations

from collections.abc import Mapping

from graphc.backends.native.bfloat16_scratch import bfloat16_scratch
from graphc.backends.native.gemm_scratch import (
    K_BLOCK,
    MOST_GROUPS,
    LongScratch,
    Scratch,
    WindowScratch,
    WordScratch,
)
from graphc.backends.native.gemm_tile import Tile, tile_of
from graphc.backends.native.target import WORDS, Words
from graphc.ir.tensor_type import Batch, dim_at
from graphc.kernels.kernel import Chain, Convolution, Gemm, Kernel


def is_long(kernel: Gemm, tile: Tile, n: int) -> bool:
    """Return whether a product for up to `n` rows is a sum over so many that it is by blocks."""
    counted = isinstance(kernel.m, int) and isinstance(kernel.n, int)
    plain = type(kernel) is Gemm and tile.lanes > 1 and tile.words is None
    of_batch = kernel.trans_a and not kernel.trans_b and isinstance(kernel.k, Batch)
    if not (counted and plain and of_batch):
        return False
    blocks, scratch = dim_at(kernel.k, n) // K_BLOCK, LongScratch(kernel, tile)
    groups = -(-scratch.panels // scratch.together)
    return blocks > 4 or (blocks > 1 and groups <= MOST_GROUPS)


def scratch_of(kernel: Gemm, tile: Tile, *, packs: bool = True, long: bool = False) -> Scratch:
    """Return the sizes of the scratch of a product.

    `packs` is False if b is stored in panels, `long` is true for a sum over many rows.
    """
    if long:
        return LongScratch(kernel, tile)
    if kernel.ordered:
        return bfloat16_scratch(kernel, tile)
    if tile.words is not None:
        return WordScratch(kernel, tile)
    if isinstance(kernel, Convolution):
        return WindowScratch(kernel, tile, packs)
    return Scratch(kernel, tile, packs)


def kernel_scratch(
    kernel: Kernel | None,
    bits: int,
    n: int,
    words: Mapping[str, Words] = WORDS,
    *,
    packs: bool = True,
) -> int:
    """Return the scratch bytes that a thread needs for products, in batches of up to `n` rows."""
    if isinstance(kernel, Chain):
        return max(kernel_scratch(one, bits, n, words) for one in kernel.kernels)
    if not isinstance(kernel, Gemm):
        return 0
    tile = tile_of(kernel, bits, words, packed=not packs)
    return scratch_of(kernel, tile, packs=packs, long=is_long(kernel, tile, n)).size(n)
