"""Functions that split, join, repeat and reverse values, built from other ops."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any, SupportsIndex

from graphc.base.arguments import checked_whole, listed, plain, whole
from graphc.base.errors import GraphError
from graphc.ir.build import Value, as_value
from graphc.ir.op import Op
from graphc.ir.tensor_type import Batch, Dim, Shape, broadcast, normal_axes, shape_text
from graphc.ops.apply import with_attributes
from graphc.ops.shape import Reshape, reshape
from graphc.ops.slicing import Concat, Slice, concat
from graphc.ops.sums import BroadcastTo, broadcast_to

__all__ = [
    "expand",
    "flip",
    "repeat",
    "roll",
    "split",
    "squeeze",
    "stack",
    "tile",
    "unsqueeze",
]

Axes = SupportsIndex | Iterable[SupportsIndex]


@with_attributes(
    example=("(N, 6)", "x, [4, 2]", "[(N, 4), (N, 2)]"),
    show="[part.shape for part in {}]",
    x="A value with at least one axis.",
    parts="The number of equal parts, or the length of each part.",
    axis="The axis, of fixed size; numbers below 0 count from the last one.",
    name="The start of the names of the parts: `<name>.0`, `<name>.1`, ...",
    found="list of Value",
    returns="The parts in order.",
    raises="If the parts do not fill the axis, or it is the batch axis.",
)
def split(
    x: Value,
    parts: SupportsIndex | Sequence[SupportsIndex],
    axis: SupportsIndex = -1,
    *,
    name: str | None = None,
) -> list[Value]:
    """Split x along an axis into equal parts, or into parts of given lengths."""
    op = Slice(())
    (place,), (size,) = axes_of(op, x, axis), fixed_sizes(op, x, axis)
    ends = [0, *accumulate(_lengths(op, x, size, parts))]
    with x.builder.all_or_nothing():
        return [
            cut(x, place, start, stop, None if name is None else f"{name}.{i}")
            for i, (start, stop) in enumerate(pairwise(ends))
        ]


def _lengths(op: Op, x: Value, size: int, parts: Any) -> list[int]:
    """Return the lengths of the parts; raise GraphError if they do not fill the axis."""
    lengths = listed(parts)
    if lengths is not None:
        if any(whole(length, 1) is None for length in lengths) or sum(lengths) != size:
            message = f"parts of {list(lengths)} do not fill a dimension of {size}"
            raise x.builder.error(op, message, (x,))
        return list(lengths)
    count = whole(parts, 1)
    if count is None or size % count:
        message = f"a dimension of {size} cannot be cut into {parts!r} equal parts"
        raise x.builder.error(op, f"{message}\ngive the lengths of the parts", (x,))
    return [size // count] * count


@with_attributes(
    example=("(N, 3)", "[x, x], axis=1", "(N, 2, 3)"),
    values="At least one value; all have one shape and dtype.",
    axis="The position of the new axis in the result.",
    returns="Of the values' shape with one axis more.",
    raises="If there is no value, their types differ, or there is no such axis.",
)
def stack(values: Sequence[Value], axis: SupportsIndex = 0, *, name: str | None = None) -> Value:
    """Join values of one shape along a new axis."""
    values = tuple(values)
    if not values:
        raise GraphError("stack: the list of values is empty")
    first = as_value("stack", values[0])
    for other in values:
        if as_value("stack", other).type != first.type:
            message = f"{first.type} and {other.type} are not of one shape and dtype"
            raise first.builder.error(Concat(0), message, (first, other))
    place = axes_of(Concat(0), first, checked_whole("stack: axis", axis, None), more=1)[0]
    shape = (*first.shape[:place], 1, *first.shape[place:])
    with first.builder.all_or_nothing():
        return concat([reshape(value, shape) for value in values], place, name=name)


@with_attributes(
    example=("(N, 1, 3)", "x", "(N, 3)"),
    returns="The same numbers in fewer axes.",
    axis="The axes to leave out; by default all of size 1.",
)
def squeeze(x: Value, axis: Axes | None = None, *, name: str | None = None) -> Value:
    """Return x without axes of size 1."""
    x = as_value("squeeze", x)
    if axis is None:
        axis = tuple(i for i, dim in enumerate(x.shape) if dim == 1)
    axes = axes_of(Reshape(()), x, axis)
    for i in axes:
        if x.shape[i] != 1:
            message = f"axis {i} of {shape_text(x.shape)} does not have size 1"
            raise x.builder.error(Reshape(()), message, (x,))
    kept = tuple(dim for i, dim in enumerate(x.shape) if i not in axes)
    return reshape(x, kept, name=name)


@with_attributes(
    example=("(N, 3)", "x, 1", "(N, 1, 3)"),
    returns="The same numbers in more axes.",
    axis="The positions of the new axes in the result.",
)
def unsqueeze(x: Value, axis: Axes, *, name: str | None = None) -> Value:
    """Return x with new axes of size 1."""
    x = as_value("unsqueeze", x)
    axis = plain(axis)
    more = len(tuple(axis)) if isinstance(axis, Iterable) else 1
    places = axes_of(Reshape(()), x, axis, more=more)
    rest = iter(x.shape)
    shape = tuple(1 if i in places else next(rest) for i in range(x.type.rank + more))
    return reshape(x, shape, name=name)


@with_attributes(
    example=("(N, 3)", "x, (2, 1, 1)", "(2, N, 3)"),
    returns="The numbers of x, repeated along its axes of size 1.",
    shape="The other shape; `gc.N` is the batch dimension.",
)
def expand(x: Value, shape: Sequence[Dim], *, name: str | None = None) -> Value:
    """Broadcast x and a shape with each other: unlike in `broadcast_to`, x may be the larger."""
    x, wanted = as_value("expand", x), tuple(map(plain, shape))
    try:
        both = broadcast(x.shape, wanted)
    except ValueError as error:
        raise x.builder.error(BroadcastTo(wanted), str(error), (x,)) from None
    return broadcast_to(x, both, name=name)


@with_attributes(
    example=("(N, 3)", "x, (1, 2)", "(N, 6)"),
    returns="Of the shape of x, each dimension times its number.",
    times="A whole number from 1 up for each axis.",
)
def tile(x: Value, times: Sequence[SupportsIndex], *, name: str | None = None) -> Value:
    """Repeat x as a whole, `times[i]` times along axis i."""
    x = as_value("tile", x)
    counts = _counts(x, times)
    if len(counts) != x.type.rank:
        message = f"{len(counts)} repeat counts for {x.type}, of rank {x.type.rank}"
        raise x.builder.error(BroadcastTo(()), message, (x,))
    apart = [size for dim in x.shape for size in (1, dim)]
    spread = [size for n, dim in zip(counts, x.shape, strict=True) for size in (n, dim)]
    whole = tuple(dim * n for n, dim in zip(counts, x.shape, strict=True))
    return _repeated(x, tuple(apart), tuple(spread), whole, name)


@with_attributes(
    example=("(N, 3)", "x, 2, axis=1", "(N, 6)"),
    returns="Of the shape of x, with `times` as many entries of the axis.",
    times="A whole number from 1 up.",
)
def repeat(
    x: Value, times: SupportsIndex, axis: SupportsIndex, *, name: str | None = None
) -> Value:
    """Repeat each entry of an axis `times` times in a row."""
    x = as_value("repeat", x)
    (n,) = _counts(x, [times])
    (place,) = axes_of(BroadcastTo(()), x, axis)
    before, dim, after = x.shape[:place], x.shape[place], x.shape[place + 1 :]
    apart, spread = (*before, dim, 1, *after), (*before, dim, n, *after)
    return _repeated(x, apart, spread, (*before, dim * n, *after), name)


def _counts(x: Value, times: Sequence[SupportsIndex]) -> list[int]:
    """Return whole numbers from 1 up; raise GraphError for anything else."""
    counts = [plain(n) for n in times]
    if any(whole(n, 1) is None for n in counts):
        message = f"{counts} are not whole numbers from 1 up"
        raise x.builder.error(BroadcastTo(()), message, (x,))
    return counts


def _repeated(x: Value, apart: Shape, spread: Shape, whole: Shape, name: str | None) -> Value:
    """Broadcast x from the shape `apart` to `spread`, and return it in the shape `whole`."""
    with x.builder.all_or_nothing():
        return reshape(broadcast_to(reshape(x, apart), spread), whole, name=name)


@with_attributes(
    example=("(N, 3)", "x, 1", "(N, 3)"),
    axis="The axes, of fixed size; by default all.",
)
def flip(x: Value, axis: Axes | None = None, *, name: str | None = None) -> Value:
    """Return x reversed along an axis, several axes, or all."""
    op = Slice(())
    x = as_value("flip", x)
    chosen = range(x.type.rank) if axis is None else axis
    sizes = zip(axes_of(op, x, chosen), fixed_sizes(op, x, chosen), strict=True)
    cuts = tuple((place, size - 1, -1, -1) for place, size in sizes if size)
    return x.builder.apply(Slice(cuts), x, name=name)


@with_attributes(
    example=("(N, 3)", "x, 1", "(N, 3)"),
    shift="By how many places toward the end of the axis; below 0 toward its start.",
    axis="The axis, of fixed size; numbers below 0 count from the last one.",
)
def roll(
    x: Value, shift: SupportsIndex, axis: SupportsIndex = -1, *, name: str | None = None
) -> Value:
    """Return x shifted along an axis; entries that leave at one end enter at the other."""
    op = Slice(())
    (place,), (size,) = axes_of(op, x, axis), fixed_sizes(op, x, axis)
    start = -checked_whole("roll: shift", shift, None) % size if size else 0
    with x.builder.all_or_nothing():
        if not start:
            return reshape(x, x.shape, name=name)  # only names the result
        return concat([cut(x, place, start, size), cut(x, place, 0, start)], place, name=name)


def cut(x: Value, axis: int, start: int, stop: int, name: str | None = None) -> Value:
    """Return the entries of x from `start` up to `stop` along an axis of fixed size."""
    return x.builder.apply(Slice(((axis, start, stop, 1),)), x, name=name)


def axes_of(op: Op, x: Value, axis: Axes, more: int = 0) -> tuple[int, ...]:
    """Return axes of x, or of a value of `more` axes more, counted from the front and sorted."""
    try:
        return normal_axes(axis, as_value(op.name, x).type.rank + more)
    except ValueError as error:
        raise x.builder.error(op, str(error), (x,)) from None


def fixed_sizes(op: Op, x: Value, axis: Axes) -> tuple[int, ...]:
    """Return the sizes of axes; raise GraphError if one depends on the batch."""
    sizes = [x.shape[i] for i in axes_of(op, x, axis)]
    if any(isinstance(size, Batch) for size in sizes):
        message = "the batch dimension cannot be cut\nits length is known only when the plan runs"
        raise x.builder.error(op, message, (x,))
    return tuple(size for size in sizes if isinstance(size, int))
