"""The forms in which ops become kernels besides expressions: matrix products and gathers.

An op returns them by its rules `product` and `gather`.  The matrix of a product may be that of a
window over images, of which nothing is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Literal, NamedTuple, Protocol

from graphc.ir.access import AccessMap, AxisMap, dense_maps, merged_axes
from graphc.ir.expr import BodyBuilder, Expr
from graphc.ir.tensor_type import ORDERED, Batch, Dim, Shape, TensorType

Sizes = tuple[int, ...]
"""A number for each dimension of space."""
TermOrder = Literal["pairs", "blocks"]
"""The order in which the products of a sum are added: 1, 0, 3, 2, ..., or in blocks.

Of each block of terms those of even and of odd number are added up apart, from 0 on; the sum of
both is added to that of the blocks before.
"""
BLOCK = 32
"""The terms of a block; the last one may have fewer."""


class Phase(NamedTuple):
    """Places of one dimension at which the same offsets meet pixels: the first, and their number.

    `met` pairs each offset that meets pixels with the pixel it meets at the first place.
    """

    first: int
    places: int
    met: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """A matrix with a row for each image and place, a column for each filter offset and channel.

    The element is the pixel at (place * stride + offset * dilation - before) / divisor of an
    image of `space` pixels, channels last.  If that is not a pixel there is no element, and a
    product leaves its term out: a factor that is infinite or NaN meets no zero there.  To multiply
    a zero is the same for finite factors, but for the sign of a sum that underflows; the backend
    `numpy` does so, as the reference rule of a pad and a convolution does.

    With `groups` there are as many such matrices: an image has the `channels` of each, side by
    side.
    """

    space: Sizes
    channels: int
    kernel: Sizes
    places: Sizes
    stride: Sizes
    dilation: Sizes
    before: Sizes
    divisor: Sizes
    groups: int = 1

    @property
    def count(self) -> int:
        """The places in an image: its rows of the matrix."""
        return prod(self.places)

    @property
    def depth(self) -> int:
        """The columns of a matrix."""
        return prod(self.kernel) * self.channels

    @property
    def pixel(self) -> int:
        """The elements of a pixel: the channels of all groups."""
        return self.channels * self.groups

    @property
    def pixels(self) -> int:
        """The elements of an image."""
        return prod(self.space) * self.pixel

    @property
    def extent(self) -> Sizes:
        """The positions from the first to the last that is met, zeros among them."""
        sizes = zip(self.places, self.stride, self.kernel, self.dilation, strict=True)
        return tuple((p - 1) * s + (k - 1) * d + 1 for p, s, k, d in sizes)

    @property
    def is_direct(self) -> bool:
        """True if every position is a pixel, so that images are read without a copy."""
        inside = all(e <= size for e, size in zip(self.extent, self.space, strict=True))
        return inside and not any(self.before) and set(self.divisor) == {1}

    @property
    def held(self) -> Sizes:
        """The positions of an image in memory: of a copy with zeros, if it is not direct."""
        return self.space if self.is_direct else self.extent

    @property
    def held_elements(self) -> int:
        """The elements of an image in memory, or of a copy with zeros."""
        return prod(self.held) * (self.pixel if self.is_direct else self.channels)

    @property
    def offsets(self) -> int:
        """The positions of the filter."""
        return prod(self.kernel)

    @property
    def pitches(self) -> Sizes:
        """The elements from a position of `held` to the next, in each dimension.

        A copy has only the channels of one group.
        """
        sizes = (*self.held, self.pixel if self.is_direct else self.channels)
        return tuple(prod(sizes[axis + 1 :]) for axis in range(len(self.held)))

    def places_met(self, axis: int, offset: int) -> range:
        """Return the places of one dimension at which an offset of the filter meets a pixel.

        There are no zeros between pixels.
        """
        stride, at = self.stride[axis], offset * self.dilation[axis] - self.before[axis]
        first, end = max(-(at // stride), 0), (self.space[axis] - 1 - at) // stride + 1
        return range(first, min(end, self.places[axis]))

    @property
    def pixel_pitches(self) -> Sizes:
        """The elements from a pixel of an image to the next, in each dimension."""
        sizes = (*self.space, self.pixel)
        return tuple(prod(sizes[axis + 1 :]) for axis in range(len(self.space)))

    def met(self, axis: int, place: int) -> range:
        """Return the offsets of one dimension at which a place meets pixels.

        There are no zeros between pixels.
        """
        at, dilation = place * self.stride[axis] - self.before[axis], self.dilation[axis]
        first, end = (max(-(-room // dilation), 0) for room in (-at, self.space[axis] - at))
        return range(first, min(end, self.kernel[axis]))

    def is_padded(self, axis: int) -> bool:
        """Return whether some offsets of one dimension are outside an image at some places."""
        ends = 0, self.places[axis] - 1
        return any(len(self.met(axis, place)) < self.kernel[axis] for place in ends)

    @property
    def steps(self) -> Sizes:
        """The elements from a place to the next, in each dimension."""
        return tuple(s * pitch for s, pitch in zip(self.stride, self.pitches, strict=True))

    @property
    def is_spread(self) -> bool:
        """True if there are zeros between pixels, and places have a stride of 1."""
        return max(self.divisor) > 1 and set(self.stride) == {1}

    def phases(self, axis: int) -> tuple[Phase, ...]:
        """Return the places of one dimension by their remainders modulo `divisor`.

        In each phase the offsets that meet pixels are the same.
        """
        divisor, step, before = self.divisor[axis], self.dilation[axis], self.before[axis]
        found = []
        for first in range(min(divisor, self.places[axis])):
            ats = [(offset, first + offset * step - before) for offset in range(self.kernel[axis])]
            met = tuple((offset, at // divisor) for offset, at in ats if at % divisor == 0)
            found.append(Phase(first, -(-(self.places[axis] - first) // divisor), met))
        return tuple(found)

    @property
    def meetings(self) -> int:
        """The products of a place and an offset, in an image and for one channel."""
        if not self.is_spread:
            return self.count * prod(self.kernel)
        axes = range(len(self.space))
        return prod(sum(p.places * len(p.met) for p in self.phases(axis)) for axis in axes)

    @property
    def run(self) -> int:
        """The number of columns that are neighbours in memory: of a pixel, or of a filter line."""
        return self.channels * (1 if self._runs_end else self.kernel[-1])

    @property
    def _runs_end(self) -> bool:
        """True if the next pixel of a line of the filter is not a neighbour."""
        return self.dilation[-1] > 1 or (self.groups > 1 and self.is_direct)

    @property
    def reach(self) -> tuple[tuple[int, int], ...]:
        """The size and the stride in elements of each filter dimension that no run covers."""
        sizes = zip(self.kernel, self.dilation, self.pitches, strict=True)
        found = tuple((k, d * pitch) for k, d, pitch in sizes)
        return found if self._runs_end else found[:-1]

    @property
    def columns(self) -> Sequence[int]:
        """The offset of each column of the first row."""
        offsets = product(*([i * step for i in range(count)] for count, step in self.reach))
        starts = map(sum, offsets)
        return [start + i for start in starts for i in range(self.run)]


@dataclass(frozen=True, slots=True)
class Product:
    """The form of an op as a matrix product of its first two operands: see `Gemm`."""

    inner: Dim
    trans_a: bool = False
    trans_b: bool = False
    order: TermOrder | None = None
    """The order in which terms are added; None for factors of another dtype than `ORDERED`."""


@dataclass(frozen=True, slots=True)
class BatchedProduct(Product):
    """The form of an op whose operands are stacks of matrices: see `BatchedGemm`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowProduct(Product):
    """The form of an op whose first operand is images that a window reads: see `Convolution`."""

    window: Window


MOST_INT8 = (2**31 - 1) // 128**2
"""The most products of int8 whose sum always fits int32."""


def sum_dtype(a: TensorType, b: TensorType, order: TermOrder | None) -> str | None:
    """Return the dtype of sums of products: that of floats, one of 32 bits for narrow factors.

    None for factors of other dtypes, or of two.  Raise ValueError unless those of `ORDERED`, or
    those of float32 that are rounded first, have an order of terms, and no others.
    """
    if order is None and a.dtype == ORDERED:
        raise ValueError(f"products of {ORDERED} need an order of terms")
    if order is not None and a.dtype not in (ORDERED, "float32"):
        raise ValueError(f"products of {a.dtype} have no order of terms")
    if a.dtype != b.dtype:
        return None
    return a.dtype if a.is_float else {"int8": "int32", ORDERED: "float32"}.get(a.dtype)


def check_sums(terms: Dim, dtype: str) -> None:
    """Raise ValueError if sums of so many products of int8 may not fit int32."""
    if dtype == "int32" and (isinstance(terms, Batch) or terms > MOST_INT8):
        raise ValueError(f"sums of {terms} products of int8 may not fit int32")


def matrix_product(
    ins: Sequence[TensorType],
    trans_a: bool = False,
    trans_b: bool = False,
    order: TermOrder | None = None,
) -> Product | None:
    """Return the form of a @ b, either one transposed, or None if it has no such kernel.

    A kernel multiplies int8 by a stored matrix, as a frozen weight is.
    """
    a, b = ins[:2]
    if a.dtype == "int8" and (trans_a or trans_b or b.rank > 2 or b.batched):
        return None
    inner = a.shape[-2 if trans_a else -1]
    if b.rank > 2 or (a.rank > 2 and trans_a):
        counted = all(isinstance(dim, int) for dim in (*a.shape[-2:], *b.shape[-2:]))
        return BatchedProduct(inner, trans_a, trans_b, order) if counted else None
    return Product(inner, trans_a, trans_b, order)


MOST = 64
"""The most elements gathered for one of the result: each is code in the kernel."""


class Read(Protocol):
    """A function that reads an operand, given by position, through an access map.

    Without a map it reads the operand's one number of a row.
    """

    def __call__(self, operand: int, at: AccessMap | None, *index: Expr) -> Expr:
        """Return the element at `at`; `index` is the first index, if that is given."""


Write = Callable[[BodyBuilder, Read], Expr]


@dataclass(frozen=True)
class GatherRule:
    """The rule of an op whose result is an expression of gathered elements."""

    shape: Shape
    """The dimensions of the result, one for each part of the access map."""
    write: Write


def moved(
    x: Shape,
    result: TensorType,
    map_axes: Callable[[list[AxisMap]], Sequence[AxisMap] | None],
    fill: float = 0.0,
) -> GatherRule | None:
    """Return the rule of an op that only moves elements, or None if it has no such kernel.

    `map_axes` makes the maps of the result from those that read x in order; the batch stays first.
    """
    if not x or any(isinstance(dim, Batch) for dim in (*x[1:], *result.shape[1:])):
        return None
    axis_maps = map_axes(dense_maps(x))
    if axis_maps is None or not isinstance(result.shape[-1], int) or 0 in result.shape:
        return None
    shape, axis_maps = merged_axes(result.shape, axis_maps)
    at = AccessMap(tuple(axis_maps), fill)
    return GatherRule(shape, lambda builder, read: read(0, at))


def places_of(shape: Shape) -> Sizes:
    """Return all dimensions but the first and the last."""
    return tuple(dim for dim in shape[1:-1] if isinstance(dim, int))
