"""Constant right factors of products, stored in the order in which register tiles read them.

A panel has the columns of one tile, row after row, and panels follow each other.  Nothing is
padded, so a factor takes the same bytes in either order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from graphc.backends.native.choose_scratch import scratch_of
from graphc.backends.native.gemm_scratch import FEW, WindowScratch
from graphc.backends.native.gemm_tile import Tile, tile_of
from graphc.backends.native.target import WORDS, Words
from graphc.ir.op import Array
from graphc.ir.tensor_type import dim_at
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm
from graphc.kernels.program import Buffer, Instr, Program


@dataclass(frozen=True, slots=True)
class Panels:
    """The order of a factor of `rows` rows: panels of `width` columns, fewer at the end of a part.

    `offsets` and `groups` are those of a filter read in reverse; a transposed matrix has one each.
    """

    rows: int
    part: int
    width: int
    transposed: bool
    offsets: int = 1
    groups: int = 1
    pairs: bool = False
    """True if two neighbours of a column, which are of bfloat16, follow each other."""

    def packed(self, factor: Array) -> Array:
        """Return a copy of a factor, of its shape, with its elements in this order."""
        parts = self._matrix(factor).reshape(self.rows, -1, self.part)
        starts = range(0, self.part, self.width)
        panels = [
            self._rows(parts[:, number, start : start + self.width]).reshape(-1)
            for number in range(parts.shape[1])
            for start in starts
        ]
        return np.concatenate(panels).reshape(factor.shape)

    def _rows(self, panel: Array) -> Array:
        """Return the rows of a panel, or those of pairs."""
        return panel.reshape(-1, 2, panel.shape[1]).swapaxes(1, 2) if self.pairs else panel

    def _matrix(self, factor: Array) -> Array:
        """Return a stored factor as (rows, columns)."""
        if not self.transposed:
            return factor.reshape(self.rows, -1)
        channels = self.rows // self.offsets
        filters = factor.reshape(self.offsets, -1, self.groups, channels)[::-1]
        return filters.transpose(0, 3, 2, 1).reshape(self.rows, -1)


def packed_factors(
    program: Program, bits: int, words: Mapping[str, Words] = WORDS
) -> dict[str, Panels]:
    """Return the order of each constant that only products read, by blocks of columns.

    A product of few rows reads its factor where it lies, so nothing is gained.  A constant that
    is a result, or that products read in several orders, keeps its own.
    """
    readers: dict[str, set[Panels | None]] = {
        program.buffers[name].key: {None} for name in program.outputs.values()
    }
    for instr in program.instrs:
        for buffer in map(program.buffers.__getitem__, instr.ins):
            if buffer.space == "constant":
                order = _order(instr, buffer, program.capacity, bits, words)
                readers.setdefault(buffer.key, set()).add(order)
    known = {key: next(iter(orders)) for key, orders in readers.items() if len(orders) == 1}
    return {key: order for key, order in known.items() if order is not None}


def packed_buffers(program: Program, bits: int) -> frozenset[str]:
    """Return the names of all buffers that are a packed constant."""
    packed = packed_factors(program, bits)
    buffers = program.buffers.items()
    return frozenset(name for name, b in buffers if b.space == "constant" and b.key in packed)


def _order(
    instr: Instr, buffer: Buffer, capacity: int, bits: int, words: Mapping[str, Words]
) -> Panels | None:
    """Return the order in which an instruction reads a constant, or None if it is that declared."""
    kernel = instr.body
    if not isinstance(kernel, Gemm) or isinstance(kernel, BatchedGemm):
        return None
    others = kernel.a, *kernel.body.loads
    whole = not buffer.pitch and not buffer.shift
    if kernel.b != buffer.name or buffer.name in others or not whole:
        return None
    tile = tile_of(kernel, bits, words, packed=True)
    in_place = dim_at(kernel.m, capacity) <= FEW and kernel.order != "blocks"
    if kernel.dtype == "int32" or tile.lanes == 1 or in_place:
        return None
    return panels_of(kernel, tile)


def panels_of(kernel: Gemm, tile: Tile) -> Panels | None:
    """Return the order of a product's panels, or None if it has none."""
    scratch = scratch_of(kernel, tile)
    assert isinstance(kernel.k, int), "a constant has no rows of the batch"
    if kernel.bfloat16 and (isinstance(kernel, Convolution) or kernel.k % 2):
        return None
    order = Panels(kernel.k, scratch.part, tile.width, kernel.trans_b, pairs=kernel.bfloat16)
    if not isinstance(scratch, WindowScratch):
        return order
    window = scratch.kernel.window
    if scratch.across_groups:
        return None
    return replace(order, offsets=kernel.k // window.channels, groups=window.groups)
