"""Kernels of reductions and of selection by index."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import prod

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ops.cumulative import Cumsum
from graphc.ops.index import Argmax, Argmin
from graphc.ops.order import TopK
from graphc.ops.reduce import Max, Mean, MeanGrad, Min, Sum


def total(x: Array, axes: tuple[int, ...], out: Array, ones: Sequence[Array]) -> Call:
    """Return a call that sums over `axes`; with `ones` it is a product, as quick as BLAS adds."""
    if not ones:
        return partial(np.add.reduce, x, axes, None, out, out.ndim == x.ndim)
    if axes == (0,):
        return partial(ones[0].dot, x.reshape(len(x), out.size), out.reshape(-1))
    return partial(x.reshape(out.size, x.shape[-1]).dot, ones[0], out.reshape(-1))


def sum_(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that sum over the op's axes."""
    assert isinstance(op, Sum)
    return (total(ins[0], op.axes, out, scratch),)


def mean(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for the sum over the count; not in place, which is slow for one number."""
    assert isinstance(op, Mean)
    (x,), (undivided, *ones) = ins, scratch
    count = number(prod(x.shape[axis] for axis in op.axes), x)
    return total(x, op.axes, undivided, ones), partial(np.true_divide, undivided, count, out)


def mean_grad(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that broadcast dout, divided by the number of elements of a mean."""
    assert isinstance(op, MeanGrad)
    count = number(prod(out.shape[axis] for axis in op.axes), out)
    (dout,) = ins
    share = dout.reshape(()) if dout.size == 1 else dout  # numbers broadcast quicker than axes of 1
    return (partial(np.true_divide, share, count, out),)


def max_(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for the largest or the smallest over the op's axes."""
    assert isinstance(op, (Max, Min))
    (x,) = ins
    function = np.maximum if isinstance(op, Max) else np.minimum
    return (partial(function.reduce, x, op.axes, None, out, op.keepdims),)


def argmax(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for the index along the last axis; another axis is first moved there."""
    assert isinstance(op, (Argmax, Argmin))
    (x,) = ins
    (moved,) = scratch or (x,)
    find = moved.argmax if isinstance(op, Argmax) else moved.argmin
    if not scratch:
        return (partial(find, -1, out),)
    return partial(np.copyto, moved, np.moveaxis(x, op.axis, -1)), partial(find, -1, out)


def cumsum(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that accumulate all entries, or those before each."""
    assert isinstance(op, Cumsum)
    x, sums = op.forward(ins[0]), op.forward(out)
    if not op.exclusive:
        return (partial(np.add.accumulate, x, 0, None, sums),)
    first = partial(np.copyto, sums[:1], number(0, out))
    if len(x) < 2:
        return (first,)
    return first, partial(np.add.accumulate, x[:-1], 0, None, sums[1:])


def topk(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that sort pairs of number and index as complex: NumPy orders by both."""
    assert isinstance(op, TopK)
    (x,), (pairs, numbers) = ins, scratch
    keys = pairs[..., 0]
    calls: list[Call] = [partial(np.copyto, keys, np.moveaxis(x, op.axis, -1))]
    if op.largest:
        calls.append(partial(np.negative, keys, keys))
    found = np.moveaxis(out, op.axis, -1)
    return (
        *calls,
        partial(np.copyto, pairs[..., 1], numbers),
        partial(pairs.view(np.complex128)[..., 0].sort, -1),
        partial(np.copyto, found, pairs[..., : op.k, 1], casting="unsafe"),
    )


def one_hot(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that write zeros, then a one in each row."""
    places, rows = scratch
    flat, one = out.reshape(-1), np.ones((), out.dtype)
    return (
        partial(out.fill, 0),
        *place_in_rows(ins[0].reshape(-1), rows, out.shape[-1], places),
        partial(flat.__setitem__, places, one),
    )


def pick(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that take one score from each row."""
    scores, indices = ins
    places, rows = scratch
    return (
        *place_in_rows(indices, rows, scores.shape[1], places),
        partial(scores.reshape(-1).take, places, None, out, "clip"),
    )


def place_in_rows(indices: Array, rows: Array, width: int, places: Array) -> Sequence[Call]:
    """Return calls: places = rows * width + indices, the positions in the flat array."""
    return (
        partial(np.multiply, rows, number(width, places), places),
        partial(np.add, places, indices, places),
    )


REDUCE: dict[str, Kernel] = {
    "sum": sum_,
    "mean": mean,
    "mean_grad": mean_grad,
    "max": max_,
    "min": max_,
    "argmax": argmax,
    "argmin": argmax,
    "cumsum": cumsum,
    "topk": topk,
    "one_hot": one_hot,
    "pick": pick,
}
