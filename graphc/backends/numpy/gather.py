"""Kernels of gathers and scatters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import normal_axis
from graphc.ops.gather import ByPlace, Gather
from graphc.ops.index_nd import FlatIndex
from graphc.ops.scatter import LastWrite, ScatterElements


def around(shape: Sequence[int], axis: int) -> tuple[int, int, int]:
    """Return the sizes before, of and after an axis."""
    axis = normal_axis(axis, len(shape))
    return prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])


def held(indices: Array, size: int, out: Array) -> Sequence[Call]:
    """Return calls: out = the indices clipped to 0 .. size - 1."""
    return (
        partial(np.copyto, out, indices, casting="unsafe"),
        partial(out.clip, number(0, out), number(size - 1, out), out),
    )


def placed(
    indices: Array, sizes: tuple[int, int, int], scratch: Sequence[Array]
) -> tuple[Sequence[Call], Array]:
    """Return calls that compute places, and places, for indices (outer or 1, k, inner or 1).

    places = (row * size + index) * inner + column
    """
    outer, size, inner = sizes
    places, starts, rows, columns = scratch[:4]
    places = places.reshape(outer, indices.shape[1], inner)
    calls: Sequence[Call] = (
        *held(np.broadcast_to(indices, places.shape), size, places),
        partial(np.multiply, rows, number(size, rows), starts),
        partial(np.add, places, starts[:, None, None], places),
        partial(np.multiply, places, number(inner, places), places),
        partial(np.add, places, columns, places),
    )
    return calls, places.reshape(-1)


def gather(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for one take along the middle axis of (outer, size, inner)."""
    assert isinstance(op, Gather)
    (x, indices), (where,) = ins, scratch
    outer, size, inner = around(x.shape, op.axis)
    where = where.reshape(-1)
    parts = out.reshape(outer, where.size, inner)
    take = partial(x.reshape(outer, size, inner).take, where, 1, parts, "clip")
    return *held(indices.reshape(-1), size, where), take


def gather_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that write zeros, then scatter-add dout in order, as one flat array."""
    assert isinstance(op, ByPlace)
    indices, dout = ins
    calls, places = placed(indices.reshape(1, -1, 1), around(out.shape, op.axis), scratch)
    add = partial(np.add.at, out.reshape(-1), places, dout.reshape(-1))
    return partial(out.fill, 0), *calls, add


def gather_elements(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for one take of the flat array."""
    assert isinstance(op, ByPlace)
    x, indices = ins
    sizes = around(x.shape, op.axis)
    calls, places = placed(_layers(indices, sizes), sizes, scratch)
    return *calls, partial(x.reshape(-1).take, places, None, out.reshape(-1), "clip")


def scatter_elements(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that copy x, then write or combine the updates at their places in order."""
    assert isinstance(op, ScatterElements)
    x, indices, updates = ins
    sizes = around(x.shape, op.axis)
    calls, places = placed(_layers(indices, sizes), sizes, scratch)
    flat, values = out.reshape(-1), updates.reshape(-1)
    write: dict[str, Callable[[Array, Array], object]] = {
        "none": flat.__setitem__,
        "add": partial(np.add.at, flat),
        "max": partial(np.maximum.at, flat),
        "min": partial(np.minimum.at, flat),
    }
    return *calls, partial(np.copyto, out, x), partial(write[op.reduction], places, values)


def last_write(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that find whether each update is the last one at its place.

    Each leaves its number at its place; the number that is still there at the end was the last.
    """
    assert isinstance(op, LastWrite)
    (indices,), (board, found, writers) = ins, scratch[4:]
    sizes = around(board.shape, op.axis)
    layers = _layers(indices, sizes)
    calls, places = placed(layers, sizes, scratch)
    own = np.broadcast_to(writers[:, None], layers.shape)
    seen = found.reshape(-1)
    return (
        *calls,
        partial(np.copyto, found.reshape(layers.shape), own),
        partial(board.reshape(-1).__setitem__, places, seen),
        partial(board.reshape(-1).take, places, None, seen, "clip"),
        partial(np.equal, found.reshape(layers.shape), own, out.reshape(layers.shape)),
    )


def flat_index(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that compute the flat index from its components by Horner's rule."""
    assert isinstance(op, FlatIndex)
    (indices,), (part,) = ins, scratch
    calls: list[Call] = [partial(out.fill, 0)]
    for i, size in enumerate(op.sizes):
        calls += [
            *held(indices[..., i], size, part),
            partial(np.multiply, out, number(size, out), out),
            partial(np.add, out, part, out),
        ]
    return calls


def _layers(indices: Array, sizes: tuple[int, int, int]) -> Array:
    return indices.reshape(sizes[0], -1, sizes[2])


GATHER: dict[str, Kernel] = {
    "gather": gather,
    "gather_grad": gather_grad,
    "gather_elements": gather_elements,
    "scatter_elements": scatter_elements,
    "last_write": last_write,
    "flat_index": flat_index,
}
