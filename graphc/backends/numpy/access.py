"""Gathers by access maps and scatter-adds, as views and calls of NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.backend import Call
from graphc.backends.numpy.values import Part, Sizes, number
from graphc.ir.access import AccessMap, AxisMap
from graphc.ir.expr import Step
from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim, dim_at
from graphc.kernels.kernel import Loop


class Run(NamedTuple):
    """Evenly spaced indices of one dimension that have a position in the source.

    They are `length` indices from `start` in steps of `step`.  The position of the first is
    `first`; from one to the next it grows by `grows`.
    """

    start: int
    step: int
    length: int
    first: int
    grows: int

    @property
    def cut(self) -> slice:
        """The indices of the run as a slice."""
        return slice(self.start, self.start + (self.length - 1) * self.step + 1, self.step)


NO_RUN = Run(0, 1, 0, 0, 0)
SHORT = 64
"""NumPy is slow at many pieces of fewer elements."""


def is_view(kernel: Loop, step: Step) -> bool:
    """Return whether a gather should be a view of the source, not a copy, at any batch size."""
    assert isinstance(step.value, AccessMap), "the value is the access map"
    if step.value.given or 0 < _together(kernel, step.value.axes) < SHORT:
        return False
    sizes: list[Dim] = [kernel.first, *kernel.places, kernel.columns]
    axis_maps = step.value.axes
    return all(w.divisor == 1 and w.is_inside(s) for w, s in zip(axis_maps, sizes, strict=True))


def _together(kernel: Loop, axis_maps: Sequence[AxisMap]) -> int:
    """Return how many elements of a line are adjacent in the source too; 0 if that is unknown."""
    if not kernel.places or not isinstance(kernel.columns, int):
        return 0
    many = 1
    for size, axis_map in zip(
        (kernel.columns, *kernel.places[::-1]), axis_maps[::-1], strict=False
    ):
        if axis_map.scale * axis_map.pitch != many:
            break
        many *= size
    return many if many > 1 else 0


def gathered_view(sizes: Sizes, part: Part, source: Array, at: AccessMap) -> Array:
    """Return the gathered elements of a part as a view."""
    ranges = _ranges(sizes, part)
    runs = [
        Run(0, 1, len(r), r.start * w.scale + w.shift, w.scale)
        for r, w in zip(ranges, at.axes, strict=True)
    ]
    return _read(source, at.axes, runs)


def _ranges(sizes: Sizes, part: Part) -> list[range]:
    """Return the indices of each dimension of the result."""
    rows, columns = part.rows, part.columns
    inner = map(range, sizes.places)
    return [range(rows.start, rows.stop), *inner, range(columns.start, columns.stop)]


def _read(source: Array, axis_maps: Sequence[AxisMap], runs: Sequence[Run]) -> Array:
    """Return a view of a buffer at the positions of the runs."""
    flat, item = source.reshape(-1), source.itemsize
    start = sum(run.first * axis_map.pitch for run, axis_map in zip(runs, axis_maps, strict=True))
    strides = [
        run.grows * axis_map.pitch * item for run, axis_map in zip(runs, axis_maps, strict=True)
    ]
    return as_strided(flat[start:], [run.length for run in runs], strides)


def fetch(step: Step, sizes: Sizes, part: Part, out: Array, source: Array) -> Sequence[Call]:
    """Return calls that gather elements, and write the fill value where the map has none."""
    at = step.value
    assert isinstance(at, AccessMap), "the value is the access map"
    ranges = _ranges(sizes, part)
    found: list[Sequence[Run]] = []
    for indices, axis_map in zip(ranges, at.axes, strict=True):
        runs = runs_of(indices, axis_map, dim_at(axis_map.size, sizes.n))
        if runs is None:
            return _taken(at, ranges, sizes, out, source)
        found.append(runs)
    counts = [sum(run.length for run in runs) for runs in found]
    calls: list[Call] = [] if counts == list(out.shape) else [partial(out.fill, at.fill)]
    return [*calls, *_copies(out, source, at.axes, found)]


def runs_of(indices: range, axis_map: AxisMap, size: int) -> Sequence[Run] | None:
    """Return the runs of indices that have a position, or None if these are not a few runs."""
    if axis_map.divisor > 1 and abs(axis_map.scale) != 1:
        return None
    begin, step = indices.start, axis_map.divisor
    if axis_map.floor:
        begins = range(begin, min(begin + step, indices.stop))
        return [_inside(indices, axis_map, first, size) for first in begins] or [NO_RUN]
    while (begin * axis_map.scale + axis_map.shift) % step:
        begin += 1
    return [_inside(indices, axis_map, begin, size)]


def _inside(indices: range, axis_map: AxisMap, begin: int, size: int) -> Run:
    """Return the run of each `divisor`-th index from `begin` whose position is inside."""
    many = len(range(begin, indices.stop, axis_map.divisor))
    first, grows = (begin * axis_map.scale + axis_map.shift) // axis_map.divisor, axis_map.scale
    low, high = (0, size - 1) if grows > 0 else (size - 1, 0)
    start = max(0, -((first - low) // grows))
    length = min(many - 1, (high - first) // grows) - start + 1
    if length <= 0:
        return NO_RUN
    at = begin + start * axis_map.divisor - indices.start
    return Run(at, axis_map.divisor, length, first + start * grows, grows)


def _copies(
    out: Array, source: Array, axis_maps: Sequence[AxisMap], found: Sequence[Sequence[Run]]
) -> Iterator[Call]:
    """Yield calls that copy the elements at the positions of all runs of each dimension.

    An element that several indices of a dimension read, as in upsampling, is gathered for one of
    them, then copied in longer pieces.
    """
    axis = next((i for i, runs in enumerate(found) if len(runs) > 1), None)
    if axis is None:
        runs = [run for (run,) in found]
        if all(run.length for run in runs):
            cut = tuple(run.cut for run in runs)
            yield copied(out[cut], _read(source, axis_maps, runs))
        return
    first, *others = found[axis]
    before, after = found[:axis], found[axis + 1 :]
    yield from _copies(out, source, axis_maps, [*before, [first], *after])
    outer, many = tuple(runs[0].cut for runs in before), any(len(runs) > 1 for runs in after)
    for run in others:
        if many and run[2:] == first[2:] and run.length:
            yield copied(out[(*outer, run.cut)], out[(*outer, first.cut)])
        else:
            yield from _copies(out, source, axis_maps, [*before, [run], *after])


def copied(to: Array, of: Array) -> Call:
    """Return the call that copies an array.

    Axes that are contiguous in both are copied as one element of many bytes, which takes a fraction
    of the time of many small copies.
    """
    size, axes = to.itemsize, to.ndim
    while axes and to.strides[axes - 1] == of.strides[axes - 1] == size:
        size *= to.shape[axes - 1]
        axes -= 1
    if not axes or axes == to.ndim:
        return partial(np.copyto, to, of)
    return partial(np.copyto, _pieces(to, axes, size), _pieces(of, axes, size))


def _pieces(array: Array, axes: int, size: int) -> Array:
    """Return an array of the first axes; an element is the `size` bytes of the others."""
    shape, strides = (*array.shape[:axes], size // array.itemsize), array.strides[:axes]
    whole = as_strided(array, shape, (*strides, array.itemsize))
    return whole.view(np.dtype((np.void, size)))[..., 0]


def _taken(
    at: AccessMap, ranges: Sequence[range], sizes: Sizes, out: Array, source: Array
) -> Sequence[Call]:
    """Return calls that gather by the flat index of each element, computed once."""
    index, there = np.zeros((1,) * out.ndim, np.int64), np.ones((1,) * out.ndim, bool)
    for axis, (indices, axis_map) in enumerate(zip(ranges, at.axes, strict=True)):
        shape = [-1 if i == axis else 1 for i in range(out.ndim)]
        values = np.arange(indices.start, indices.stop) * axis_map.scale + axis_map.shift
        position, rest = np.divmod(values, axis_map.divisor)
        inside = (position >= 0) & (position < dim_at(axis_map.size, sizes.n))
        there = there & (inside & (axis_map.floor | (rest == 0))).reshape(shape)
        index = index + np.where(inside, position, 0).reshape(shape) * axis_map.pitch
    # `take` would copy another layout at every run.
    places = np.ascontiguousarray(np.broadcast_to(index, out.shape))
    calls: list[Call] = [partial(source.reshape(-1).take, places, None, out, "clip")]
    if not there.all():
        missing = ~np.broadcast_to(there, out.shape)
        calls.append(partial(np.copyto, out, number(at.fill, out.dtype), where=missing))
    return calls


def take_rows(
    step: Step, sizes: Sizes, part: Part, out: Array, source: Array, rows: Array
) -> Sequence[Call]:
    """Return a call that gathers rows by their numbers."""
    at = step.value
    assert isinstance(at, AccessMap), "the value is the access map"
    first, column = at.axes
    matrix = source.reshape(-1, first.pitch)
    start = column.shift + part.columns.start
    if (start, out.shape[-1]) == (0, first.pitch):
        # in the mode "raise" NumPy would buffer `out`
        return (partial(matrix.take, rows.reshape(-1), 0, out, "clip"),)
    columns = matrix[:, start : start + out.shape[-1]]
    return (partial(columns.take, rows.reshape(-1), 0, out, "clip"),)


def scatter_add(
    sizes: Sizes, part: Part, out: Array, rows: Array, indices: Array, places: Array
) -> Sequence[Call]:
    """Return calls that write zeros, then add each row at its index, in order."""
    columns = places.shape[1]
    own, top = indices.reshape(-1, 1), number(sizes.rows - 1, "int64")
    return (
        partial(out.fill, 0),
        partial(np.copyto, places, own, casting="unsafe"),
        partial(places.clip, number(0, "int64"), top, places),
        partial(np.multiply, places, number(columns, "int64"), places),
        partial(np.add, places, np.arange(columns), places),
        # `out[places] += rows` would add one row an index
        partial(np.add.at, out.reshape(-1), places.reshape(-1), rows.reshape(-1)),
    )
