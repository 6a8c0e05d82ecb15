"""Kernels of convolution: columns of pixels, copied, then a matrix product.

The columns of a block of samples are copied at a time, so that they stay in the cache.  A filter
of one pixel needs no copy; groups run one after the other; if each channel is a group, products of
elements are quicker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel
from graphc.ir.op import Array, Op
from graphc.ops.conv import Convolution
from graphc.ops.conv_geometry import Geometry, at_once, geometry
from graphc.ops.window import reach, windows

Way = Callable[[Geometry, Array, Array, Array, Sequence[Array]], Sequence[Call]]
"""way(sizes, x, w, y, scratch): the calls that compute one of x, w and y from the other two."""


class Made(NamedTuple):
    """The result, by its position in x, w, y, and its ways without groups or with one a channel."""

    position: int
    columns: Way
    pointwise: Way
    depthwise: Way

    def way(self, g: Geometry) -> Way:
        """Return the way that computes the result for these sizes."""
        ways = {"columns": self.columns, "pointwise": self.pointwise, "depthwise": self.depthwise}
        return ways[g.way]


def conv(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that compute y from x and w."""
    return _run(_Y, op, (*ins, out), scratch)


def conv_dx(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that compute dx from dy and w."""
    dy, w = ins
    return _run(_DX, op, (out, w, dy), scratch)


def conv_dw(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that compute dw from x and dy."""
    x, dy = ins
    return _run(_DW, op, (x, out, dy), scratch)


def _run(made: Made, op: Op, operands: Sequence[Array], scratch: Sequence[Array]) -> Sequence[Call]:
    assert isinstance(op, Convolution)
    x, w, y = operands
    g = geometry(x.shape, w.shape, y.shape, (op.stride, op.dilation, op.groups))
    if g.way == "grouped":
        return list(_by_groups(made, g, operands, scratch))
    return made.way(g)(g, x, w, y, scratch)


def _by_groups(
    made: Made, g: Geometry, operands: Sequence[Array], scratch: Sequence[Array]
) -> Iterator[Call]:
    """Yield, for each group, copies of its operands and the convolution of one group."""
    one, work = g.one_group(), scratch[3:]
    x, w, y = operands
    parts = (
        _part(scratch[0], (*x.shape[:-1], one.channels)),
        _part(scratch[1], (*w.shape[:-1], one.units)),
        _part(scratch[2], (*y.shape[:-1], one.units)),
    )
    for group in range(g.groups):
        wholes = [
            array[..., group * part.shape[-1] : (group + 1) * part.shape[-1]]
            for array, part in zip(operands, parts, strict=True)
        ]
        for i in range(3):
            if i != made.position:
                yield partial(np.copyto, parts[i], wholes[i])
        yield from made.way(one)(one, *parts, work)
        yield partial(np.copyto, wholes[made.position], parts[made.position])


def _part(scratch: Array, shape: tuple[int, ...]) -> Array:
    """Return the first elements of a scratch buffer, in that shape."""
    return scratch[: prod(shape)].reshape(shape)


def _blocks(samples: int, count: int) -> Iterator[slice]:
    for start in range(0, samples, count):
        yield slice(start, min(start + count, samples))


def _flat(array: Array) -> Array:
    """Return the array as a matrix, with a row for each pixel, or for each weight of a unit."""
    return array.reshape(-1, array.shape[-1])


def _gather(g: Geometry, x: Array, columns: Array) -> Call:
    """Return a call: columns (n, *out, *kernel, channels) = the pixels of x that each place meets.

    Neighbouring pixels are copied as one element of many bytes, which takes a fraction of the time
    of many small copies.
    """
    row = g.kernel[-1] if g.dilation[-1] == 1 else 1
    kernel = (*g.kernel[:-1], g.kernel[-1] // row)
    pixels = np.dtype((np.void, row * g.channels * x.itemsize))
    steps = x.strides[1:-1]
    places = (s * step for s, step in zip(g.stride, steps, strict=True))
    offsets = (d * step for d, step in zip(g.dilation, steps, strict=True))
    shape = (len(x), *g.out, *kernel)
    met = np.ndarray(shape, pixels, x, 0, (x.strides[0], *places, *offsets))
    return partial(np.copyto, np.ndarray(shape, pixels, columns), met)


def _columns_of(g: Geometry, samples: int, scratch: Array) -> tuple[Array, Array]:
    """Return columns in scratch, in the shape in which they are gathered and as a matrix."""
    shape = (samples, *g.out, *g.kernel, g.channels)
    columns = _part(scratch, shape)
    return columns, columns.reshape(samples * prod(g.out), -1)


def _y_columns(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    calls: list[Call] = []
    for block in _blocks(len(x), at_once(g.columns, len(x), x.itemsize)):
        part = x[block]
        columns, matrix = _columns_of(g, len(part), scratch[0])
        calls += [_gather(g, part, columns), partial(matrix.dot, _flat(w), _flat(y[block]))]
    return calls


def _dx_columns(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    return (_dx_dense if g.dense else _dx_spread)(g, x, w, y, scratch)


def _dx_dense(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls for the convolution of padded dy with the filter flipped."""
    back = g.backwards()
    turned = _part(scratch[2], (*g.kernel, g.units, g.channels))
    flip = (slice(None, None, -1),) * len(g.kernel)
    count = at_once(back.columns, len(x), x.itemsize)
    padded = _part(scratch[0], (min(count, len(x)), *back.space, g.units))
    inside = tuple(
        slice(span - 1, span - 1 + size)
        for span, size in zip(reach(g.kernel, g.dilation), g.out, strict=True)
    )
    turn = partial(np.copyto, turned, w[flip].swapaxes(-1, -2))
    calls: list[Call] = [turn, partial(padded.fill, 0)]
    for block in _blocks(len(x), count):
        part = y[block]
        around = padded[: len(part)]
        columns, matrix = _columns_of(back, len(part), scratch[1])
        calls += [
            partial(np.copyto, around[(slice(None), *inside)], part),
            _gather(back, around, columns),
            partial(matrix.dot, _flat(turned), _flat(x[block])),
        ]
    return calls


def _dx_spread(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that compute columns by a matrix product and scatter-add them to pixels."""
    calls: list[Call] = [partial(x.fill, 0)]
    for block in _blocks(len(x), at_once(g.columns, len(x), x.itemsize)):
        part = x[block]
        columns, matrix = _columns_of(g, len(part), scratch[0])
        calls.append(partial(_flat(y[block]).dot, _flat(w).T, matrix))
        columns = columns.reshape(len(part), *g.out, -1, g.channels)
        pixels = windows(g.kernel, g.stride, g.dilation, g.out)
        for i, (_, window) in enumerate(pixels):
            met = part[window]
            calls.append(partial(np.add, met, columns[..., i, :], met))
    return calls


def _dw_columns(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    calls: list[Call] = []
    share = _part(scratch[1], _flat(w).shape)
    for block in _blocks(len(x), at_once(g.columns, len(x), x.itemsize)):
        part = x[block]
        columns, matrix = _columns_of(g, len(part), scratch[0])
        target = share if block.start else _flat(w)
        calls += [_gather(g, part, columns), partial(matrix.T.dot, _flat(y[block]), target)]
        if block.start:
            calls.append(partial(np.add, _flat(w), share, _flat(w)))
    return calls


def _y_pointwise(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    return (partial(_flat(x).dot, _flat(w), _flat(y)),)


def _dx_pointwise(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    return (partial(_flat(y).dot, _flat(w).T, _flat(x)),)


def _dw_pointwise(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    return (partial(_flat(x).T.dot, _flat(y), _flat(w)),)


def _by_channels(g: Geometry, y: Array, scratch: Array) -> Iterator[tuple[slice, Array]]:
    """Yield blocks of samples, each with memory for products like y's."""
    each = prod(g.out) * g.units
    for block in _blocks(len(y), at_once(each, len(y), y.itemsize)):
        yield block, _part(scratch, y[block].shape)


def _y_depthwise(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    calls: list[Call] = []
    for block, products in _by_channels(g, y, scratch[0]):
        part, total = x[block], y[block]
        for offset, window in windows(g.kernel, g.stride, g.dilation, g.out):
            first = not any(offset)
            target = total if first else products
            calls.append(partial(np.multiply, part[window], w[offset][0], target))
            if not first:
                calls.append(partial(np.add, total, products, total))
    return calls


def _dx_depthwise(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    calls: list[Call] = [partial(x.fill, 0)]
    for block, products in _by_channels(g, y, scratch[0]):
        part, sent = x[block], y[block]
        for offset, window in windows(g.kernel, g.stride, g.dilation, g.out):
            met = part[window]
            calls.append(partial(np.multiply, sent, w[offset][0], products))
            calls.append(partial(np.add, met, products, met))
    return calls


def _dw_depthwise(
    g: Geometry, x: Array, w: Array, y: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    calls: list[Call] = []
    share = _part(scratch[1], w.shape)
    axes = tuple(range(y.ndim - 1))
    for block, products in _by_channels(g, y, scratch[0]):
        part, sent = x[block], y[block]
        target = share if block.start else w
        for offset, window in windows(g.kernel, g.stride, g.dilation, g.out):
            calls.append(partial(np.multiply, part[window], sent, products))
            calls.append(partial(np.add.reduce, products, axes, None, target[offset][0]))
        if block.start:
            calls.append(partial(np.add, w, share, w))
    return calls


_Y = Made(2, _y_columns, _y_pointwise, _y_depthwise)
_DX = Made(0, _dx_columns, _dx_pointwise, _dx_depthwise)
_DW = Made(1, _dw_columns, _dw_pointwise, _dw_depthwise)

CONV: dict[str, Kernel] = {"conv": conv, "conv_dx": conv_dx, "conv_dw": conv_dw}
