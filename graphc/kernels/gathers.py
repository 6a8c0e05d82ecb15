"""The form of an op as a gather: an expression of elements that it reads through access maps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from graphc.ir.tensor_type import Batch, Dim, Shape, TensorType, count
from graphc.kernels.expr import BodyBuilder, Expr
from graphc.kernels.walk import Elsewhere, Walk, straight
from graphc.kernels.window import Sizes

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


def moved(
    x: Shape,
    result: TensorType,
    map_axes: Callable[[list[Walk]], Sequence[Walk] | None],
    fill: float = 0.0,
) -> Reader | None:
    """Return the rule of an op that only moves elements, or None if it has no such kernel.

    `map_axes` makes those of the result from the maps that read x in order.  The batch must stay
    first.
    """
    if not x or any(isinstance(dim, Batch) for dim in x[1:]):
        return None
    walks = map_axes(straight(x))
    if walks is None or not isinstance(result.shape[-1], int) or 0 in result.shape:
        return None
    shape, walks = _merged(result.shape, walks)
    at = Elsewhere(tuple(walks), fill)
    return Reader(shape, lambda builder, read: read(0, at))


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


def places_of(shape: Shape) -> Sizes:
    """Return all dimensions but the first and the last."""
    return tuple(dim for dim in shape[1:-1] if isinstance(dim, int))
