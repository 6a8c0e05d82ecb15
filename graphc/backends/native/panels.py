"""Right factors of products, stored in the order in which register tiles read them.

A panel has the columns of one tile, row after row, and panels follow each other.  Constants are
stored so for good.  Nothing of them is padded: a factor takes the same bytes in either order.  What
is the same in each step of a loop is packed in a thread's scratch before the first step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from graphc.backends.native.choose_scratch import kernel_scratch, scratch_of
from graphc.backends.native.gemm_scratch import FEW, WindowScratch
from graphc.backends.native.gemm_tile import Tile, tile_of
from graphc.backends.native.target import WORDS, Words
from graphc.ir.op import Array
from graphc.ir.tensor_type import dim_at
from graphc.kernels.inside import Inside
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm
from graphc.kernels.program import Buffer, Instr, Program

if TYPE_CHECKING:
    from graphc.backends.backend import Call

NEAR = 1 << 18
"""The most bytes of a factor that the steps of a loop read where it lies: measured."""


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

    def writes(self, target: Array, factor: Array) -> Iterator[Call]:
        """Yield the calls that write a factor's elements to an array of its shape in this order.

        Nothing is copied on the way, whatever the strides of the factor.
        """
        whole = self.part - self.part % self.width
        outs = target.reshape(-1, self.rows * self.part)
        for out, part in zip(outs, self._parts(factor), strict=True):
            yield from self._panels(out[: self.rows * whole], part[..., :whole], self.width)
            yield from self._panels(out[self.rows * whole :], part[..., whole:], self.part - whole)

    def _parts(self, factor: Array) -> Array:
        """Return a stored factor as (parts, rows in one or several dimensions, columns)."""
        if self.transposed:
            channels = self.rows // self.offsets
            filters = _view(factor, (self.offsets, self.part, self.groups, channels))[::-1]
            return filters.transpose(2, 0, 3, 1)
        as_matrix = factor.shape[-1] * self.rows == factor.size
        rows = factor if as_matrix else _view(factor, (self.rows, -1))
        return np.moveaxis(_view(rows, (*rows.shape[:-1], -1, self.part)), -2, 0)

    def _panels(self, out: Array, columns: Array, width: int) -> Iterator[Call]:
        """Yield the call that writes panels of so many columns, if there are columns."""
        if columns.size:
            panels = np.moveaxis(_view(columns, (*columns.shape[:-1], -1, width)), -2, 0)
            if self.pairs:  # the two rows of a pair are side by side
                panels = _view(panels, (len(panels), -1, 2, width)).swapaxes(2, 3)
            yield partial(np.copyto, out.reshape(panels.shape), panels)


def _view(array: Array, shape: tuple[int, ...]) -> Array:
    """Return a view of an array in another shape; a copy would not follow what is written to it."""
    found = array.reshape(shape)
    assert np.may_share_memory(found, array), "the order of a factor needs no copy"
    return found


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
    reader = _reader(instr, buffer, capacity, bits, words)
    return None if reader is None else panels_of(*reader)


def _reader(
    instr: Instr, buffer: Buffer, capacity: int, bits: int, words: Mapping[str, Words]
) -> tuple[Gemm, Tile] | None:
    """Return the product that may read a buffer in panels, and its tile, or None."""
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
    return kernel, tile


def panels_of(kernel: Gemm, tile: Tile) -> Panels | None:
    """Return the order of a product's panels, or None if it has none."""
    scratch = scratch_of(kernel, tile)
    assert isinstance(kernel.k, int), "a constant has no rows of the batch"
    if kernel.ordered and (isinstance(kernel, Convolution) or kernel.k % 2):
        return None
    order = Panels(kernel.k, scratch.part, tile.width, kernel.trans_b, pairs=kernel.ordered)
    if not isinstance(scratch, WindowScratch):
        return order
    window = scratch.kernel.window
    if scratch.across_groups:
        return None
    return replace(order, offsets=kernel.k // window.channels, groups=window.groups)


def packed_once(
    inside: Inside, bits: int, words: Mapping[str, Words]
) -> dict[str, tuple[Gemm, int]]:
    """Return what a thread packs before the first step: the product that reads it, its bytes.

    It is the same in each step, and nothing but one product reads it.
    """
    found: dict[str, tuple[Gemm, int]] = {}
    program = inside.program
    for name in inside.reread:
        readers = [instr for instr in program.instrs if name in instr.ins]
        if len(readers) == 1:
            buffer = program.buffers[name]
            reader = _reader(readers[0], buffer, program.capacity, bits, words)
            if reader is not None and _pays(*reader):
                found[name] = reader[0], scratch_of(*reader).full_panels
    return found


def _pays(kernel: Gemm, tile: Tile) -> bool:
    """Return whether to pack b before a loop: a thread reads all of it, and not where it lies."""
    counted = isinstance(kernel.n, int) and isinstance(kernel.k, int)
    if type(kernel) is not Gemm or not counted or kernel.partition != "rows":
        return False
    packs = kernel.ordered or kernel.trans_b
    return packs or scratch_of(kernel, tile).full_panels > NEAR


def scratch_sizes(
    program: Program, bits: int, words: Mapping[str, Words], packed: Collection[str] = ()
) -> list[int]:
    """Return the scratch bytes that a thread needs in each instruction.

    The buffers `packed` are factors that are stored in panels.
    """

    def size(instr: Instr) -> int:
        if instr.inside is not None:
            shared = packed_once(instr.inside, bits, words)
            inner = scratch_sizes(instr.inside.program, bits, words, shared)
            return sum(nbytes for _, nbytes in shared.values()) + max(inner, default=0)
        packs = not isinstance(instr.body, Gemm) or instr.body.b not in packed
        return kernel_scratch(instr.body, bits, program.capacity, words, packs=packs)

    return list(map(size, program.instrs))
