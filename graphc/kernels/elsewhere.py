"""Ops that gather their operands: moves of elements, rows by indices, pools of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from math import prod
from typing import Protocol

from graphc.ir.op import Op
from graphc.ir.tensor_type import Batch, Dim, Shape, TensorType, count, normal_axis
from graphc.kernels.expr import BodyBuilder, Expr, call, select
from graphc.kernels.walk import Elsewhere, Walk, straight
from graphc.kernels.window import Sizes
from graphc.ops.gather import Gather, GatherGrad
from graphc.ops.pad import Pad
from graphc.ops.pool import (
    MaxPool,
    MaxPoolGrad,
    MaxPoolIndex,
    MaxPoolPick,
    Pooling,
    SumPool,
    SumPoolGrad,
)
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Slice, SliceGrad

MOST = 64
"""The most elements from which one of the result is computed: each is text in the kernel."""


class Read(Protocol):
    """A reader of an element of an operand, by its number, through an access map.

    Without a map it reads the operand's number for a row.
    """

    def __call__(self, operand: int, at: Elsewhere | None, *index: Expr) -> Expr:
        """Return the element at `at`; `index` is the first index, if that is given."""


Write = Callable[[BodyBuilder, Read], Expr]


@dataclass(frozen=True)
class Reader:
    """The rule of an op whose result is an expression of gathered elements."""

    shape: Shape
    """The dimensions of the result, one for each part of the access map."""
    write: Write


def reader_of(op: Op, ins: Sequence[TensorType], result: TensorType) -> Reader | None:
    """Return how an op computes its result by gathers, or None if it has no such kernel."""
    if isinstance(op, Pooling):
        many = prod(op.kernel) > MOST or result.shape[0] == 0
        return None if many else Reader(result.shape, _pool(op, ins, result))
    if isinstance(op, Gather):
        return _gathered(op, *ins)
    walks = _moved(op, ins[0].shape) if len(ins) == 1 else None
    if walks is None or not isinstance(result.shape[-1], int) or 0 in result.shape:
        return None
    fill = op.value if isinstance(op, Pad) else 0.0
    shape, walks = _merged(result.shape, walks)
    at = Elsewhere(tuple(walks), fill)
    return Reader(shape, lambda builder, read: read(0, at))


# ------------------------------------------------------------------ moves


def _moved(op: Op, x: Shape) -> list[Walk] | None:
    """Return the `Walk`s of an op that only moves elements, or None; the batch must stay first."""
    if not x or any(isinstance(dim, Batch) for dim in x[1:]):
        return None
    walks = straight(x)
    if isinstance(op, Transpose):
        return [walks[a] for a in op.axes] if _keeps_rows(op.axes, x) else None
    if isinstance(op, Pad):
        return [w._replace(shift=-before) for w, (before, _) in zip(walks, op.pads, strict=True)]
    if isinstance(op, SliceGrad):
        for axis, start, _, step in op.cuts:
            if not isinstance(start, int) or isinstance(x[axis], Batch):
                return None
            on = 1 if step > 0 else -1
            walks[axis] = walks[axis]._replace(scale=on, shift=-on * start, apart=on * step)
        return walks
    if isinstance(op, Slice):
        for axis, start, _, step in op.cuts:
            if not isinstance(start, int) or isinstance(x[axis], Batch):
                return None
            walks[axis] = walks[axis]._replace(scale=step, shift=start)
        return walks
    return None


def _keeps_rows(axes: tuple[int, ...], x: Shape) -> bool:
    """Return whether the batch stays first and rows contiguous; others are copied by squares."""
    return axes[-1] == len(x) - 1 and not (isinstance(x[0], Batch) and axes[0])


def _merged(shape: Shape, walks: Sequence[Walk]) -> tuple[Shape, list[Walk]]:
    """Merge neighbouring dimensions that are one in memory; the first stays by itself."""
    sizes, found = [shape[0]], [walks[0]]
    for size, walk in zip(shape[1:], walks[1:], strict=True):
        one = _one(found[-1], sizes[-1], walk, size) if len(found) > 1 else None
        if one is None:
            sizes.append(size)
            found.append(walk)
        else:
            sizes[-1], found[-1] = count((sizes[-1], size)), one
    if len(found) == 1:
        return (1, *sizes), [Walk(0, 1), *found]
    return tuple(sizes), found


def _one(outer: Walk, many: Dim, inner: Walk, size: Dim) -> Walk | None:
    """Return the one `Walk` that equals two dimensions of the result in memory, or None."""
    if size == 1 and inner.is_inside(1) and inner.shift == 0:
        return outer
    if many == 1 and outer.is_inside(1) and outer.shift == 0:
        return inner
    if not isinstance(size, int) or not isinstance(outer.size, int):
        return None
    dense = inner == Walk(inner.pitch, size) and outer.scale == outer.apart == 1
    if not dense or outer.pitch != inner.pitch * size:
        return None
    return Walk(inner.pitch, outer.size * size, 1, outer.shift * size)


# ------------------------------------------------------------------ rows by indices


def _gathered(op: Gather, x: TensorType, indices: TensorType) -> Reader | None:
    """Return the rule for gathered rows: slices of x, of all dimensions but the first."""
    rows, size, columns = count(indices.shape), x.shape[0], count(x.shape[1:])
    if normal_axis(op.axis, x.rank) or x.rank < 2 or 0 in (rows, columns) or not indices.rank:
        return None
    if not isinstance(size, int) or not isinstance(columns, int):
        return None
    at = Elsewhere((Walk(columns, size), Walk(1, columns)), given=True)

    def write(builder: BodyBuilder, read: Read) -> Expr:
        index = call("maximum", read(1, None).cast("int64"), 0)
        return read(0, at, call("minimum", index, size - 1))

    return Reader((rows, columns), write)


def adds_rows(op: GatherGrad, result: TensorType) -> bool:
    """Return whether a gather's gradient has a kernel: it adds slices of the first dimension."""
    counted = all(isinstance(dim, int) and dim for dim in result.shape)
    return counted and result.rank > 1 and result.is_float and not normal_axis(op.axis, result.rank)


# ------------------------------------------------------------------ pools


def _pool(op: Pooling, ins: Sequence[TensorType], result: TensorType) -> Write:
    if isinstance(op, MaxPoolGrad | SumPoolGrad):
        dout = ins[-1].shape
        if _tiles(op, dout[1:-1], result.shape[1:-1]):
            return partial(_of_its_tile, op, dout)
        return partial(_of_its_windows, op, list(_reaching(op, dout)))
    met = list(_met(op, ins[-1].shape))
    if isinstance(op, MaxPoolIndex):
        return partial(_index_of_largest, met)
    if isinstance(op, MaxPoolPick):
        return partial(_picked, straight(result.shape), met)
    return partial(_joined, op, met)


def _met(op: Pooling, x: Shape) -> Iterator[Elsewhere]:
    """Yield the access map to x for each offset in a window, in order."""
    first, *space, last = straight(x)
    for offset in product(*map(range, op.kernel)):
        axes = zip(space, op.stride, offset, op.dilation, strict=True)
        walks = (w._replace(scale=s, shift=o * d) for w, s, o, d in axes)
        yield Elsewhere((first, *walks, last))


def _reaching(op: Pooling, y: Shape) -> Iterator[Elsewhere]:
    """Yield for each offset, in order, the map to the place whose window has a pixel there.

    The place may not exist.
    """
    first, *places, last = straight(y)
    for offset in product(*map(range, op.kernel)):
        axes = zip(places, op.stride, offset, op.dilation, strict=True)
        walks = (w._replace(shift=-o * d, apart=s) for w, s, o, d in axes)
        yield Elsewhere((first, *walks, last))


def _tiles(op: Pooling, places: Shape, space: Shape) -> bool:
    """Return whether every pixel is in exactly one window."""
    dense = op.kernel == op.stride and set(op.dilation) == {1}
    return dense and tuple(p * k for p, k in zip(places, op.kernel, strict=True)) == space


def _joined(op: Pooling, met: Sequence[Elsewhere], b: BodyBuilder, read: Read) -> Expr:
    pixels = [read(0, at) for at in met]
    if isinstance(op, MaxPool):
        return reduce(lambda a, x: call("maximum", a, x), pixels)
    assert isinstance(op, SumPool), f"{op.name} has no kernel"
    return reduce(lambda a, x: a + x, pixels)


def _index_of_largest(met: Sequence[Elsewhere], b: BodyBuilder, read: Read) -> Expr:
    largest, index = read(0, met[0]), b.const(0, "int32")
    for number, at in enumerate(met[1:], 1):
        pixel = read(0, at)
        index = select(pixel > largest, b.const(number, "int32"), index)
        largest = call("maximum", largest, pixel)
    return index


def _picked(own: Sequence[Walk], met: Sequence[Elsewhere], b: BodyBuilder, read: Read) -> Expr:
    index, found = read(0, Elsewhere(tuple(own))), read(1, met[0])
    for number, at in enumerate(met[1:], 1):
        found = select(index.equals(number), read(1, at), found)
    return found


def _of_its_tile(op: Pooling, y: Shape, b: BodyBuilder, read: Read) -> Expr:
    """Return the gradient of a pixel that is in only one window."""
    first, *places, last = straight(y)
    walks = (w._replace(apart=k, floor=True) for w, k in zip(places, op.kernel, strict=True))
    at = Elsewhere((first, *walks, last))
    if isinstance(op, SumPoolGrad):
        return read(0, at)
    dout = read(1, at)
    return select(read(0, at).equals(b.offset(op.kernel)), dout, b.const(0, dout.dtype))


def _of_its_windows(op: Pooling, reaching: Sequence[Elsewhere], b: BodyBuilder, read: Read) -> Expr:
    """Return the sum of the gradients of all windows that a pixel is in."""
    parts = []
    for number, at in enumerate(reaching):
        dout = read(len(op.roles) - 1, at)
        if isinstance(op, MaxPoolGrad):
            dout = select(read(0, at).equals(number), dout, b.const(0, dout.dtype))
        parts.append(dout)
    return reduce(lambda a, x: a + x, parts)


def places_of(shape: Shape) -> Sizes:
    """Return all dimensions but the first and the last."""
    return tuple(dim for dim in shape[1:-1] if isinstance(dim, int))
