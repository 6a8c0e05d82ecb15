"""Kernels of pooling: one pass over all windows for each offset in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.op import Array, Op
from graphc.ops.pool import Pooling


def _met(op: Op, x: Array, y: Array) -> list[Array]:
    """For each offset the pixels of x that it meets, shaped like y."""
    assert isinstance(op, Pooling)
    return [x[window] for window in op.windows(y.shape[1:-1])]


def _gathered(op: Op, x: Array, out: Array, ufunc: np.ufunc) -> Sequence[Call]:
    first, *others = _met(op, x, out)
    return [partial(np.copyto, out, first), *(partial(ufunc, out, p, out=out) for p in others)]


def max_pool(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """The largest of each window."""
    return _gathered(op, ins[0], out, np.maximum)


def sum_pool(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """The sum of each window."""
    return _gathered(op, ins[0], out, np.add)


def max_pool_index(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """The offset, wherever a pixel is larger than all before it."""
    largest, larger = scratch
    first, *others = _met(op, ins[0], out)
    calls: list[Call] = [partial(out.fill, 0), partial(np.copyto, largest, first)]
    for i, pixels in enumerate(others, 1):
        calls += [
            partial(np.greater, pixels, largest, larger),
            partial(np.maximum, largest, pixels, out=largest),
            partial(np.copyto, out, number(i, out), where=larger),
        ]
    return calls


def max_pool_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """dout added to the pixels that the index points at."""
    (index, dout), (here,) = ins, scratch
    calls: list[Call] = [partial(out.fill, 0)]
    for i, pixels in enumerate(_met(op, out, dout)):
        calls += [
            partial(np.equal, index, number(i, index), here),
            partial(np.add, pixels, dout, pixels, where=here),
        ]
    return calls


def max_pool_pick(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """The pixels that the index points at."""
    (index, x), (here,) = ins, scratch
    calls: list[Call] = []
    for i, pixels in enumerate(_met(op, x, out)):
        calls += [
            partial(np.equal, index, number(i, index), here),
            partial(np.copyto, out, pixels, where=here),
        ]
    return [partial(out.fill, 0), *calls]


def sum_pool_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """dout added to every pixel of its window."""
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
