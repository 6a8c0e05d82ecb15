"""Pooling of images with their channels first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial, reduce
from math import prod
from typing import Any, ClassVar

import numpy as np

from graphc.base.arguments import takes
from graphc.base.work import spend_array
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import Shape, TensorType, shape_text
from graphc.ops.apply import with_attributes
from graphc.ops.elementwise import div
from graphc.ops.pad import Pad, Pads, pad
from graphc.ops.pool import MaxPool, Pool, SumPool
from graphc.ops.reduce import mean
from graphc.ops.shape import (
    channels_first,
    channels_last,
    first,
    first_array,
    last,
    last_array,
)
from graphc.ops.source import constant
from graphc.ops.window import Sizes, covering_pads, has_empty_window, pads, pixels_inside, sizes

__all__ = ["avg_pool", "global_avg_pool", "global_max_pool", "max_pool"]

COUNTING_ARRAYS = 5
"""The number of integer arrays that counting the pixels of windows takes."""


@dataclass(frozen=True)
class PoolLayer(Layer, base=True):
    """The base of pooling layers: a number for each window, x (n, c, *space), y (n, c, *out).

    With `ceil`, a window that begins in the image or before it also counts if it ends beyond the
    padding.
    """

    roles = ("x",)
    kind: ClassVar[type[Pool]]
    """The op on the padded, channels-last image."""
    outside: ClassVar[float] = 0.0
    """The number that fills the padding."""
    kernel: Sizes
    stride: Sizes
    padding: Pads
    dilation: Sizes
    ceil: bool = False

    def pool(self) -> Pool:
        """Return the op on the padded, channels-last image."""
        return self.kind(self.kernel, self.stride, self.dilation)

    def pad(self, space: Shape) -> Pad:
        """Return the padding up to the last windows' end; raise ValueError for an open size."""
        if any(not isinstance(size, int) for size in space):
            raise ValueError(f"an image of {shape_text(space)} pixels has no fixed size")
        around = self.padding
        if self.ceil:
            around = covering_pads(
                fixed(space), self.kernel, self.stride, self.dilation, self.padding
            )
        return Pad(((0, 0), *around, (0, 0)), self.outside)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (n, channels, *out); raise ValueError if a window would hold only padding."""
        (x,) = ins
        if x.rank != len(self.kernel) + 2 or not x.is_float:
            raise ValueError(f"x is {x}, {self.name} takes floats of shape (n, channels, *space)")
        y = first(self.pool().infer([self.pad(x.shape[2:]).infer([last(x)])]))
        for i, out in enumerate(fixed(y.shape[2:])):
            if has_empty_window(
                out, *self._window_along(i), self._inside(i, x.shape[2:], padding=False)
            ):
                raise ValueError(
                    f"padding {self.padding} leaves a window without a pixel\n"
                    "the padding must be less than the window"
                )
        return y

    def _window_along(self, i: int) -> tuple[int, int, int]:
        """Return size, stride and dilation of the window in one dimension."""
        return self.kernel[i], self.stride[i], self.dilation[i]

    def _inside(self, i: int, space: Shape, padding: bool) -> range:
        """Return the range of pixels that windows count in a dimension, with `padding` or not."""
        (before, after), size = self.padding[i], fixed(space)[i]
        return range(before + size + after) if padding else range(before, before + size)

    def padded_array(self, x: Array) -> Array:
        """Return an array x with its channels last and its padding."""
        return self.pad(x.shape[2:]).reference([last_array(x)])

    def padded(self, x: Value, name: str) -> Value:
        """Return x with its channels last and its padding."""
        around = self.pad(x.shape[2:])
        x = channels_last(x, name=f"{name}.channels_last")
        if any(map(any, around.pads)):
            x = pad(x, around.pads, around.value, name=f"{name}.padded")
        return x


class MaxPoolLayer(PoolLayer):
    """The largest number of each window; the gradient goes to the first of equal ones."""

    name = "max_pool"
    kind = MaxPool
    outside = -float("inf")  # never the largest

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        return first_array(self.pool().reference([self.padded_array(ins[0])]))

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        y = b.apply(self.pool(), self.padded(ins[0], name), name=f"{name}.largest")
        return channels_first(y, name=name)


@dataclass(frozen=True)
class AvgPoolLayer(PoolLayer):
    """The mean of each window: of its pixels, or with `count_include_pad` of the padding too."""

    name = "avg_pool"
    kind = SumPool
    count_include_pad: bool = False

    def sizes(self, y: Shape, space: Shape, dtype: np.dtype[Any]) -> Array:
        """Return the number of terms of each mean: one count, or (*out, channels)."""
        along = [
            self._numbers_along(i, count, space, dtype) for i, count in enumerate(fixed(y[1:-1]))
        ]
        if all((counts == counts[0]).all() for counts in along):
            return np.asarray(prod(counts[0] for counts in along))
        spend_array(prod(fixed(y[1:])))
        found = reduce(np.multiply.outer, along)
        return np.array(np.broadcast_to(found[..., None], fixed(y[1:])))

    def _numbers_along(self, i: int, count: int, space: Shape, dtype: np.dtype[Any]) -> Array:
        """Return the number of terms of each window along one dimension."""
        spend_array(COUNTING_ARRAYS * count)
        return pixels_inside(
            count, *self._window_along(i), self._inside(i, space, self.count_include_pad)
        ).astype(dtype)

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        (x,) = ins
        total = self.pool().reference([self.padded_array(x)])
        return first_array(total / self.sizes(total.shape, x.shape[2:], np.dtype(x.dtype)))

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        (x,) = ins
        total = b.apply(self.pool(), self.padded(x, name), name=f"{name}.sum")
        sizes = constant(b, self.sizes(total.shape, x.shape[2:], np.dtype(x.dtype)))
        return channels_first(div(total, sizes, name=f"{name}.mean"), name=name)


def fixed(shape: Shape) -> Sizes:
    """Return the dimensions of a shape that are not the batch's."""
    return tuple(size for size in shape if isinstance(size, int))


class GlobalAvgPool(Layer):
    """The mean of each channel's pixels: (n, c, 1, ...)."""

    roles = ("x",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if x.rank < 3 or not x.is_float:
            raise ValueError(f"x is {x}, {self.name} takes floats of shape (n, channels, *space)")
        return x.with_shape((*x.shape[:2], *(1 for _ in x.shape[2:])))

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        (x,) = ins
        return np.asarray(x.mean(axis=tuple(range(2, x.ndim)), keepdims=True))

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x = channels_last(ins[0], name=f"{name}.channels_last")
        axes = tuple(range(1, x.type.rank - 1))
        return channels_first(mean(x, axes, keepdims=True, name=f"{name}.mean"), name=name)


_POOL = takes(
    "gc.max_pool(x, 2)",
    pool_size="it is kernel",
    kernel_size="it is kernel",
    strides="it is stride",
    ceil_mode="it is ceil",
)


_windowed = partial(
    with_attributes,
    example=("(N, 3, 8, 8)", "x, 2", "(N, 3, 4, 4)"),
    x="Floats of shape (N, c, *space), with 1 to 3 dimensions of space.",
    stride="The size of a window, and the distance of windows, by default that size: a whole\n"
    "number, or one for each dimension of space.",
    padding="The pixels before and after the image, in the same form or as pairs (before, after).",
    dilation="The distance of the pixels of a window, in the same form.",
    ceil="True if pixels that no window reaches get one more window, cut at the edge.",
    returns="Of shape (N, c, *out).",
    raises="If a window does not fit, or would hold only padding.",
)
_global = partial(
    with_attributes,
    example=("(N, 3, 8, 8)", "x", "(N, 3, 1, 1)"),
    x="Floats of shape (N, c, *space).",
    returns="Of shape (N, c, 1, ...).",
    raises="If x is not images.",
)


@_POOL
@_windowed()
def max_pool(
    x: Value,
    kernel: Any,
    stride: Any = None,
    *,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
    name: str | None = None,
) -> Value:
    """Return the largest number of each window of x.

    The gradient goes to the first of several largest.  The padding is never the largest.
    """
    window = _arguments("max_pool", x, kernel, stride, padding, dilation)
    return x.builder.apply(MaxPoolLayer(*window, bool(ceil)), x, name=name)


@_POOL
@_windowed(
    count_include_pad="True if the zeros of the padding count in the mean, as in PyTorch by\n"
    "default; pixels that `ceil` adds never do.",
)
def avg_pool(
    x: Value,
    kernel: Any,
    stride: Any = None,
    *,
    padding: Any = 0,
    dilation: Any = 1,
    ceil: bool = False,
    count_include_pad: bool = False,
    name: str | None = None,
) -> Value:
    """Return the mean of each window of x."""
    window = _arguments("avg_pool", x, kernel, stride, padding, dilation)
    layer = AvgPoolLayer(*window, bool(ceil), bool(count_include_pad))
    return x.builder.apply(layer, x, name=name)


@_global()
def global_avg_pool(x: Value, *, name: str | None = None) -> Value:
    """Return the mean of each channel of x."""
    x = as_value("global_avg_pool", x)
    return x.builder.apply(GlobalAvgPool(), x, name=name)


@_global(x="Floats of shape (N, c, *space), with 1 to 3 dimensions of space.")
def global_max_pool(x: Value, *, name: str | None = None) -> Value:
    """Return the largest number of each channel of x."""
    x = as_value("global_max_pool", x)
    return max_pool(x, x.shape[2:], name=name or x.builder.free_name("global_max_pool", None))


def _arguments(
    op: str, x: Value, kernel: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Sizes, Sizes, Pads, Sizes]:
    """Return kernel, stride, padding and dilation in each dimension, checked."""
    rank = dimensions_of(op, x)
    window = sizes(op, "kernel", kernel, rank)
    steps = window if stride is None else sizes(op, "stride", stride, rank)
    return window, steps, pads(op, padding, rank), sizes(op, "dilation", dilation, rank)


def dimensions_of(op: str, x: Value) -> int:
    """Return the number of dimensions of space; raise GraphError unless x is images."""
    x = as_value(op, x)
    if not 3 <= x.type.rank <= 5 or not x.type.is_float:
        message = (
            f"x is {x.type}, {op} takes floats of shape (N, channels, *space)\n"
            "with 1, 2 or 3 dimensions of space"
        )
        raise x.builder.error(GlobalAvgPool(), message, (x,))
    return x.type.rank - 2
