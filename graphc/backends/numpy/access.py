"""Gathers by access maps and scatter-adds, as views and calls of NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.backend import Call
from graphc.backends.numpy.values import Part, Sizes, number
from graphc.ir.access import Elsewhere, Walk
from graphc.ir.expr import Step
from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim, dim_at
from graphc.kernels.kernel import Loop


class Run(NamedTuple):
    """Indices of one dimension that have a position: from `start`, `step` apart, `count` in all.

    The position of the first is `first`, and from one to the next it grows by `grows`.
    """

    start: int
    step: int
    length: int
    first: int
    grows: int


def is_view(kernel: Loop, step: Step) -> bool:
    """Return whether gathered elements are a view of the buffer, whatever the batch."""
    assert isinstance(step.value, Elsewhere), "the value is the access map"
    if step.value.given:
        return False
    sizes: list[Dim] = [_first_size(kernel), *kernel.places, kernel.columns]
    walks = step.value.walks
    return all(w.apart == 1 and w.is_inside(s) for w, s in zip(walks, sizes, strict=True))


def _first_size(kernel: Loop) -> Dim:
    """Return the size of the first dimension of the rows."""
    places = max(prod(kernel.places), 1)
    if isinstance(kernel.rows, int):
        return kernel.rows // places
    return type(kernel.rows)(kernel.rows.factor // places)


def gathered_view(sizes: Sizes, part: Part, source: Array, at: Elsewhere) -> Array:
    """Return the gathered elements of a part as a view."""
    ranges = _ranges(sizes, part)
    runs = [
        Run(0, 1, len(r), r.start * w.scale + w.shift, w.scale)
        for r, w in zip(ranges, at.walks, strict=True)
    ]
    return _read(source, at.walks, runs)


def _ranges(sizes: Sizes, part: Part) -> list[range]:
    """Return the indices of each dimension of the result."""
    rows, columns = part.rows, part.columns
    inner = map(range, sizes.places)
    return [range(rows.start, rows.stop), *inner, range(columns.start, columns.stop)]


def _read(source: Array, walks: Sequence[Walk], runs: Sequence[Run]) -> Array:
    """Return the elements of a buffer at the positions of the runs."""
    flat, item = source.reshape(-1), source.itemsize
    start = sum(run.first * walk.pitch for run, walk in zip(runs, walks, strict=True))
    strides = [run.grows * walk.pitch * item for run, walk in zip(runs, walks, strict=True)]
    return as_strided(flat[start:], [run.length for run in runs], strides)


def fetch(step: Step, sizes: Sizes, part: Part, out: Array, source: Array) -> Sequence[Call]:
    """Return calls that gather elements, and write the fill value where there are none."""
    at = step.value
    assert isinstance(at, Elsewhere), "the value is the access map"
    ranges = _ranges(sizes, part)
    runs: list[Run] = []
    for indices, walk in zip(ranges, at.walks, strict=True):
        run = run_of(indices, walk, dim_at(walk.size, sizes.n))
        if run is None:
            return _taken(at, ranges, sizes, out, source)
        runs.append(run)
    counts = [run.length for run in runs]
    calls: list[Call] = [] if counts == list(out.shape) else [partial(out.fill, at.fill)]
    if all(counts):
        cut = tuple(slice(r.start, r.start + (r.length - 1) * r.step + 1, r.step) for r in runs)
        calls.append(partial(np.copyto, out[cut], _read(source, at.walks, runs)))
    return calls


def run_of(indices: range, walk: Walk, size: int) -> Run | None:
    """Return the indices that have a position, or None if they are not evenly spaced."""
    if walk.apart > 1 and (walk.floor or abs(walk.scale) != 1):
        return None
    begin = indices.start
    while (begin * walk.scale + walk.shift) % walk.apart:
        begin += 1
    many = len(range(begin, indices.stop, walk.apart))
    first, grows = (begin * walk.scale + walk.shift) // walk.apart, walk.scale
    low, high = (0, size - 1) if grows > 0 else (size - 1, 0)
    start = max(0, -((first - low) // grows))
    length = min(many - 1, (high - first) // grows) - start + 1
    if length <= 0:
        return Run(0, 1, 0, 0, 0)
    at = begin + start * walk.apart - indices.start
    return Run(at, walk.apart, length, first + start * grows, grows)


def _taken(
    at: Elsewhere, ranges: Sequence[range], sizes: Sizes, out: Array, source: Array
) -> Sequence[Call]:
    """Return calls that gather by the place of each element, computed once."""
    index, there = np.zeros((1,) * out.ndim, np.int64), np.ones((1,) * out.ndim, bool)
    for axis, (indices, walk) in enumerate(zip(ranges, at.walks, strict=True)):
        shape = [-1 if i == axis else 1 for i in range(out.ndim)]
        values = np.arange(indices.start, indices.stop) * walk.scale + walk.shift
        position, rest = np.divmod(values, walk.apart)
        inside = (position >= 0) & (position < dim_at(walk.size, sizes.n))
        there = there & (inside & (walk.floor | (rest == 0))).reshape(shape)
        index = index + np.where(inside, position, 0).reshape(shape) * walk.pitch
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
    assert isinstance(at, Elsewhere), "the value is the access map"
    first, column = at.walks
    matrix = source.reshape(-1, first.pitch)
    start = column.shift + part.columns.start
    if (start, out.shape[-1]) == (0, first.pitch):
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
        partial(np.add.at, out.reshape(-1), places.reshape(-1), rows.reshape(-1)),
    )
