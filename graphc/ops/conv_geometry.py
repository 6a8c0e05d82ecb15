"""The sizes of a convolution, the way to compute it, and the scratch that this needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Literal

from graphc.ir.tensor_type import Shape
from graphc.ops.window import Sizes, reach

Way = Literal["pointwise", "depthwise", "grouped", "columns"]
"""The ways to compute a convolution:

    pointwise  a kernel of one pixel and stride 1: one matrix product
    depthwise  each channel by itself: products of elements, an offset of the kernel at a time
    grouped    one group after the other
    columns    the pixels that each place meets, copied side by side, then a matrix product
"""

BLOCK = 1 << 20
"""The bytes of columns worked on at a time: about as many as a core's own cache holds."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The sizes of x (n, *space, channels), w (*kernel, ...) and y (n, *out, units)."""

    space: Sizes
    kernel: Sizes
    out: Sizes
    channels: int
    units: int
    stride: Sizes
    dilation: Sizes
    groups: int = 1

    @property
    def way(self) -> Way:
        """The way to compute the convolution."""
        if self.groups > 1:
            return "depthwise" if self.channels == self.groups == self.units else "grouped"
        return "pointwise" if {*self.kernel, *self.stride} == {1} else "columns"

    @property
    def weights(self) -> int:
        """The number of elements of w."""
        return prod(self.kernel) * self.channels // self.groups * self.units

    @property
    def columns(self) -> int:
        """The number of elements in the columns of one sample."""
        return prod(self.out) * prod(self.kernel) * self.channels

    @property
    def dense(self) -> bool:
        """Whether places are one pixel apart, so that the gradient of x is a convolution."""
        return set(self.stride) == {1}

    def one_group(self) -> Geometry:
        """Return the sizes of one of the groups."""
        channels, units = self.channels // self.groups, self.units // self.groups
        return replace(self, channels=channels, units=units, groups=1)

    def backwards(self) -> Geometry:
        """Return the sizes of the convolution that gives x from padded y and the flipped filter.

        This is for dense convolutions only.
        """
        spans = reach(self.kernel, self.dilation)
        around = tuple(size + span - 1 for size, span in zip(self.space, spans, strict=True))
        sizes = {"channels": self.units, "units": self.channels}
        return replace(self, space=around, out=self.space, **sizes)  # type: ignore[arg-type]


def geometry(x: Shape, w: Shape, y: Shape, how: tuple[Sizes, Sizes, int]) -> Geometry:
    """Return the sizes of operands and result; `how` has stride, dilation and groups."""
    space, kernel, out = (
        tuple(size for size in shape if isinstance(size, int))
        for shape in (x[1:-1], w[:-2], y[1:-1])
    )
    channels, units = x[-1], y[-1]
    assert isinstance(channels, int)
    assert isinstance(units, int)
    return Geometry(space, kernel, out, channels, units, *how)


Elements = Callable[[Geometry, int, int], tuple[int, ...]]
"""elements(sizes, samples, itemsize): the number of elements of each scratch buffer."""


def at_once(elements: int, samples: int, itemsize: int) -> int:
    """Return how many samples, of so many elements each, are worked on at a time."""
    return max(1, min(samples, BLOCK // (elements * itemsize)))


def conv_scratch(g: Geometry, samples: int, itemsize: int) -> tuple[int, ...]:
    """Return the number of elements of each scratch buffer of y: columns, or products."""
    if g.way == "pointwise":
        return ()
    if g.way == "grouped":
        return (*_of_one_group(g, samples), *conv_scratch(g.one_group(), samples, itemsize))
    each = prod(g.out) * g.units if g.way == "depthwise" else g.columns
    return (at_once(each, samples, itemsize) * each,)


def conv_dx_scratch(g: Geometry, samples: int, itemsize: int) -> tuple[int, ...]:
    """Return the number of elements of each scratch buffer of dx.

    These are columns; or padded dy, its columns, and the flipped filter.
    """
    if g.way == "grouped":
        return (*_of_one_group(g, samples), *conv_dx_scratch(g.one_group(), samples, itemsize))
    if g.way != "columns" or not g.dense:
        return conv_scratch(g, samples, itemsize)
    back = g.backwards()
    count = at_once(back.columns, samples, itemsize)
    return count * prod(back.space) * back.channels, count * back.columns, g.weights


def conv_dw_scratch(g: Geometry, samples: int, itemsize: int) -> tuple[int, ...]:
    """Return the number of elements of each scratch buffer of dw.

    These are the buffers of y, and the part of dw from a block of samples.
    """
    if g.way == "grouped":
        return (*_of_one_group(g, samples), *conv_dw_scratch(g.one_group(), samples, itemsize))
    if g.way == "pointwise":
        return ()
    return (*conv_scratch(g, samples, itemsize), g.weights)


def _of_one_group(g: Geometry, samples: int) -> tuple[int, int, int]:
    """Return the numbers of elements of x, w and y of one group."""
    one = g.one_group()
    pixels = samples * prod(g.space) * one.channels
    return pixels, one.weights, samples * prod(g.out) * one.units
