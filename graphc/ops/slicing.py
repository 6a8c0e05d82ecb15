"""Slices of values, and values joined along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.base.arguments import plain, whole
from graphc.base.errors import GraphError
from graphc.ir.access import AxisMap
from graphc.ir.build import Builder, Value, apply
from graphc.ir.forms import GatherRule, moved
from graphc.ir.graph import Node
from graphc.ir.op import Array, Cotangents, Op
from graphc.ir.tensor_type import Batch, Dim, Shape, TensorType, normal_axis, shape_at
from graphc.ops.apply import with_attributes
from graphc.ops.shape import Move, reshape

__all__ = ["concat"]

Cut = tuple[int, Dim, Dim, int]
"""An axis, and the start, stop (both from the front) and step of its slice.

With a negative step, a stop of -1 includes the first entry.
"""


@dataclass(frozen=True)
class Slice(Move):
    """A slice of x: `cuts` has start, stop and step for each axis that is cut."""

    takes_pairs = True
    is_linear = True
    roles = ("x",)
    gradient_text = ("place(d_out, cuts)",)
    cuts: tuple[Cut, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        dims = list(x.shape)
        for axis, start, stop, step in self.cuts:
            dims[axis] = _length(x.shape[axis], start, stop, step)
        return x.with_shape(tuple(dims))

    def may_be_view(self, ins: Sequence[TensorType]) -> bool:
        return True

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0][self.index(ins[0].ndim)].copy()

    def box_start(self, x: TensorType) -> tuple[int, ...] | None:
        return _starts(self.cuts, x.rank)

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        """Return reads at start + step * i of each cut axis; None if a cut depends on the batch."""
        (x,) = ins

        def cut(axis_maps: list[AxisMap]) -> list[AxisMap] | None:
            for axis, start, _, step in self.cuts:
                if not isinstance(start, int) or isinstance(x.shape[axis], Batch):
                    return None
                axis_maps[axis] = axis_maps[axis]._replace(scale=step, shift=start)
            return axis_maps

        return moved(x.shape, result, cut)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (b.apply(SliceGrad(ins[0].shape, self.cuts), dout),)

    def index(self, rank: int) -> tuple[slice, ...]:
        """Return the NumPy index, once the op's dimensions are concrete."""
        return cut_index(self.cuts, rank)

    def within(self, axis: int, first: int, end: int) -> Slice | None:
        """Return the slice of entries `first` to `end` that is the same; None if it has others."""
        moved = []
        for cut_axis, start, stop, step in self.cuts:
            if cut_axis != axis:
                moved.append((cut_axis, start, stop, step))
            elif isinstance(start, int) and isinstance(stop, int) and step > 0:
                if not first <= start < stop <= end:
                    return None
                moved.append((axis, start - first, stop - first, step))
        return Slice(tuple(moved)) if axis in [cut[0] for cut in moved] else None


@dataclass(frozen=True)
class SliceGrad(Move):
    """The gradient of a slice: zeros of `shape`, with dout at the cuts."""

    takes_pairs = True
    roles = ("dout",)
    gradient_text = ("d_out[cuts]",)
    shape: Shape
    cuts: tuple[Cut, ...]

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (dout,) = ins
        part = Slice(self.cuts).infer([dout.with_shape(self.shape)])
        if part != dout:
            raise ValueError(f"dout is {dout}, the part is {part}")
        return dout.with_shape(self.shape)

    def reference(self, ins: Sequence[Array]) -> Array:
        out = np.zeros(shape_at(self.shape, 0), ins[0].dtype)
        out[cut_index(self.cuts, out.ndim)] = ins[0]
        return out

    def operand_starts(self, ins: Sequence[TensorType]) -> list[tuple[int, ...]] | None:
        start = _starts(self.cuts, len(self.shape))
        return None if start is None else [start]

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        """Return reads of dout at the cuts, 0 between them; None if a cut depends on the batch."""
        (dout,) = ins

        def placed(axis_maps: list[AxisMap]) -> list[AxisMap] | None:
            """Return the axis maps with those of the cuts reversed."""
            for axis, start, _, step in self.cuts:
                if not isinstance(start, int) or isinstance(dout.shape[axis], Batch):
                    return None
                on = 1 if step > 0 else -1  # divisors of axis maps are positive
                axis_maps[axis] = axis_maps[axis]._replace(
                    scale=on, shift=-on * start, divisor=on * step
                )
            return axis_maps

        return moved(dout.shape, result, placed)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (b.apply(Slice(self.cuts), dout),)


def joined_axis(nodes: Sequence[Node]) -> int | None:
    """Return the axis that slices with these gradients tile without a gap, or None."""
    grads = [node.op for node in nodes if isinstance(node.op, SliceGrad)]
    cuts = [op.cuts[0] for op in grads if len(op.cuts) == 1]
    axes = {axis for axis, *_ in cuts}
    if len(cuts) < len(nodes) or len(axes) != 1:
        return None
    (axis,) = axes
    spans = [(start, stop) for _, start, stop, step in cuts if step == 1]
    whole = [(a, b) for a, b in spans if isinstance(a, int) and isinstance(b, int)]
    starts, ends = zip(*sorted(whole), strict=True) if whole else ((), ())
    gapless = len(whole) == len(nodes) and starts == (0, *ends[:-1])
    return axis if gapless and ends[-1] == nodes[0].type.shape[axis] else None


def slice_start(op: Op) -> int:
    """Return the start of the one cut of a gradient of a slice."""
    assert isinstance(op, SliceGrad)
    ((_, start, _, _),) = op.cuts
    assert isinstance(start, int)
    return start


def _starts(cuts: Sequence[Cut], rank: int) -> tuple[int, ...] | None:
    """Return the start of the cuts in each dimension, or None for a step or a batch dimension."""
    starts = [0] * rank
    for axis, start, _, step in cuts:
        if not isinstance(start, int) or step != 1:
            return None
        starts[axis] = start
    return tuple(starts)


def cut_index(cuts: Sequence[Cut], rank: int) -> tuple[slice, ...]:
    """Return the NumPy index of concrete cuts."""
    index = [slice(None)] * rank
    for axis, start, stop, step in cuts:
        assert isinstance(start, int)
        assert isinstance(stop, int)
        index[axis] = slice(start, None if stop < 0 else stop, step)
    return tuple(index)


def _length(dim: Dim, start: Dim, stop: Dim, step: int) -> Dim:
    """Return the size of a slice; raise ValueError if it does not fit the dimension."""
    if isinstance(dim, int) and isinstance(start, int) and isinstance(stop, int):
        forward = step > 0 and 0 <= start <= stop <= dim
        if not forward and not (step < 0 and 0 <= start < dim and -1 <= stop <= start):
            raise ValueError(f"slice {start}:{stop}:{step} does not fit a dimension of {dim}")
        return -(-(stop - start) // step)
    if step != 1 or not isinstance(stop, Batch):
        raise ValueError("the batch dimension cannot be cut")
    first = start.factor if isinstance(start, Batch) else 0
    whole = dim.factor if isinstance(dim, Batch) else 0
    powers = {end.power for end in (dim, start, stop) if isinstance(end, Batch)}
    fits = 0 <= first < stop.factor <= whole and len(powers) == 1
    if not fits or (start != 0 and not isinstance(start, Batch)):
        raise ValueError(f"slice {start}:{stop} does not fit a dimension of {dim}")
    return replace(stop, factor=stop.factor - first)


def slice_(x: Value, key: Any, *, name: str | None = None) -> Value:
    """Return `x[key]` for NumPy's slices and whole numbers; the batch dimension stays whole."""
    keys = key if isinstance(key, tuple) else (key,)
    dots = [i for i, part in enumerate(keys) if part is Ellipsis]
    if dots:
        at = dots[0]
        missing = x.type.rank - len(keys) + 1
        keys = (*keys[:at], *[slice(None)] * missing, *keys[at + 1 :])
    if len(keys) > x.type.rank:
        raise x.builder.error(Slice(()), f"{len(keys)} indices for rank {x.type.rank}", (x,))
    cuts, dropped = [], []
    for axis, part in enumerate(keys):
        cut = _cut(x, axis, part)
        if cut is not None:
            cuts.append(cut)
        if not isinstance(part, slice):
            dropped.append(axis)
    out = x.builder.apply(Slice(tuple(cuts)), x, name=None if dropped else name) if cuts else x
    if cuts and not dropped:
        return out
    shape = tuple(dim for axis, dim in enumerate(out.shape) if axis not in dropped)
    return reshape(out, shape, name=name)


def _cut(x: Value, axis: int, part: Any) -> Cut | None:
    """Return the cut of an index in one axis, or None for all of the axis."""
    dim = x.shape[axis]
    if isinstance(part, slice) and part == slice(None):
        return None
    if isinstance(dim, Batch):
        raise x.builder.error(
            Slice(()),
            "the batch dimension cannot be cut\nits length is known only when the plan runs",
            (x,),
        )
    if isinstance(part, slice) and part.step != 0 and all(map(_is_end, _ends(part))):
        start, stop, step = part.indices(dim)
        if range(start, stop, step):
            return (axis, start, stop, max(-dim, min(step, dim)))
    place = plain(part)
    if type(place) is int and -dim <= place < dim:
        return (axis, place % dim, place % dim + 1, 1)
    message = f"index {_index_text(part)} selects nothing from a dimension of {dim}"
    raise x.builder.error(Slice(()), message, (x,))


def _ends(part: slice) -> tuple[Any, ...]:
    return part.start, part.stop, part.step


def _is_end(end: Any) -> bool:
    return end is None or whole(end) is not None


def _index_text(part: Any) -> str:
    """Return an index as the user wrote it."""
    if not isinstance(part, slice):
        return "..." if part is Ellipsis else str(part)
    ends = ["" if end is None else str(end) for end in (part.start, part.stop)]
    return ":".join(ends if part.step is None else [*ends, str(part.step)])


@dataclass(frozen=True)
class Concat(Move):
    """Values joined along an axis."""

    takes_pairs = True
    is_linear = True
    gradient_text = ("d_out[part]",)
    axis: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type with the sizes of `axis` added up; raise ValueError if others differ."""
        first = ins[0]
        axis = normal_axis(self.axis, first.rank)
        rest = _with(first.shape, axis, 1)
        for other in ins[1:]:
            if other.dtype != first.dtype or _with(other.shape, axis, 1) != rest:
                raise ValueError(f"{first} and {other} cannot be joined along axis {axis}")
        return first.with_shape(_with(first.shape, axis, _total([t.shape[axis] for t in ins])))

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.concatenate(ins, axis=self.axis)

    def operand_starts(self, ins: Sequence[TensorType]) -> list[tuple[int, ...]] | None:
        """Return each operand's start along `axis`; None if a size there depends on the batch."""
        axis, starts, start = normal_axis(self.axis, ins[0].rank), [], 0
        for x in ins:
            size = x.shape[axis]
            if not isinstance(size, int):
                return None
            starts.append(tuple(start * (i == axis) for i in range(x.rank)))
            start += size
        return starts

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the slice of dout at each operand's place; None for operands not of floats."""
        axis = normal_axis(self.axis, dout.type.rank)
        parts: list[Value | None] = []
        start: Dim = 0
        for operand in ins:
            stop = _total([start, operand.shape[axis]]) if start != 0 else operand.shape[axis]
            cut = (axis, start, stop, 1)
            parts.append(b.apply(Slice((cut,)), dout) if operand.type.is_float else None)
            start = stop
        return parts


def _with(shape: Shape, axis: int, dim: Dim) -> Shape:
    """Return the shape with another size of one axis."""
    return (*shape[:axis], dim, *shape[axis + 1 :])


def _total(dims: Sequence[Dim]) -> Dim:
    """Return the sum of dimensions; raise ValueError for a batch beside a fixed one."""
    batches = [dim for dim in dims if isinstance(dim, Batch)]
    if not batches:
        return sum(dim for dim in dims if isinstance(dim, int))
    if len(batches) < len(dims):
        raise ValueError("the batch dimension does not join with a fixed one")
    if len({dim.power for dim in batches}) > 1:
        raise ValueError(f"{' and '.join(map(str, batches))} do not join to a multiple of either")
    return replace(batches[0], factor=sum(dim.factor for dim in batches))


@with_attributes(
    example=("(N, 3)", "[x, x, x], axis=1", "(N, 9)"),
    values="A list of values that agree in dtype and in all other dimensions.",
    returns="With the sum of the sizes in `axis`.",
    raises="If the list is empty, or the values do not fit.",
)
def concat(values: Sequence[Value], axis: int = -1, *, name: str | None = None) -> Value:
    """Return values joined along an axis."""
    if isinstance(values, Value):
        raise GraphError(
            "concat takes several values as one list",
            hint="gc.concat([a, b], axis=1)",
        )
    values = tuple(values)
    if not values:
        raise GraphError("concat: the list of values is empty")
    return apply(Concat(plain(axis)), *values, name=name)
