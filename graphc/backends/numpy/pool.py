"""Kernels of pooling: one pass over all windows for each offset in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.numpy.elementwise import integers
from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ops.pool import Pooling
from graphc.ops.window import reach


def _met(op: Op, x: Array, y: Array) -> list[Array]:
    """Return for each offset the pixels of x that it meets, shaped like y."""
    assert isinstance(op, Pooling)
    return [x[window] for window in op.windows(y.shape[1:-1])]


def _gathered(op: Op, x: Array, out: Array, ufunc: np.ufunc) -> Sequence[Call]:
    first, *others = _met(op, x, out)
    return [partial(np.copyto, out, first), *(partial(ufunc, out, p, out=out) for p in others)]


def max_pool(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for the largest of each window."""
    return _gathered(op, ins[0], out, np.maximum)


def sum_pool(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for the sum of each window."""
    return _gathered(op, ins[0], out, np.add)


def max_pool_index(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that write the offset wherever a pixel is larger than all before it.

    They take the largest of offset times 0 or 1, which is quicker than `where=`.
    """
    largest, pixels, larger, offset = scratch
    first, *others = _met(op, ins[0], out)
    calls: list[Call] = [partial(out.fill, 0), _copy(largest, first)]
    for i, met in enumerate(others, 1):
        calls += [
            _copy(pixels, met),
            partial(np.greater, pixels, largest, larger),
            partial(np.maximum, largest, pixels, out=largest),
            partial(np.copyto, offset, larger),
            partial(np.multiply, offset, number(i, offset), offset),
            partial(np.maximum, out, offset, out=out),
        ]
    return calls


def max_pool_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that add dout to the pixels of the index, or write it if windows do not overlap.

    They multiply the bits of dout by 0 or 1, as integers: exact even if dout is not finite.
    """
    assert isinstance(op, Pooling)
    (index, dout), (here, share) = ins, scratch
    alone = all(s >= r for s, r in zip(op.stride, reach(op.kernel, op.dilation), strict=True))
    bits = integers(share)
    calls: list[Call] = [partial(out.fill, 0)]
    for i, pixels in enumerate(_met(op, out, dout)):
        calls += [
            partial(np.equal, index, number(i, index), here),
            partial(np.copyto, share.view(bits), here),
            partial(np.multiply, share.view(bits), dout.view(bits), share.view(bits)),
            _copy(pixels, share) if alone else partial(np.add, pixels, share, pixels),
        ]
    return calls


def max_pool_pick(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that read the pixels that the index points at."""
    (index, x), (here,) = ins, scratch
    calls: list[Call] = []
    for i, pixels in enumerate(_met(op, x, out)):
        calls += [
            partial(np.equal, index, number(i, index), here),
            partial(np.copyto, out, pixels, where=here),
        ]
    return [partial(out.fill, 0), *calls]


def _copy(out: Array, source: Array) -> Call:
    """Return a call that copies pixels, each as one element, which is quicker for few channels."""
    channels = np.dtype((np.void, out.shape[-1] * out.itemsize))
    return partial(np.copyto, out.view(channels), source.view(channels))


def sum_pool_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that add dout to every pixel of its window."""
    (dout,) = ins
    pixels = _met(op, out, dout)
    return [partial(out.fill, 0), *(partial(np.add, part, dout, part) for part in pixels)]


POOL: dict[str, Kernel] = {
    "max_pool": max_pool,
    "max_pool_index": max_pool_index,
    "max_pool_grad": max_pool_grad,
    "max_pool_pick": max_pool_pick,
    "sum_pool": sum_pool,
    "sum_pool_grad": sum_pool_grad,
}
