"""Convolution over channels-last images, and its two gradients.

The gradient of each of the three ops consists of the two others.  They do not pad: `Pad` does.  An
image has 1, 2 or 3 dimensions of space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.forms import Product, Window, WindowProduct, check_sums, sum_dtype
from graphc.ir.narrow import dtype_of_sums, narrow
from graphc.ir.op import Array, Cotangents
from graphc.ir.tensor_type import ORDERED, Dim, Shape, TensorType, shape_at
from graphc.kernels.iteration_space import by_last
from graphc.ops.linalg import OrderedProduct
from graphc.ops.window import Sizes, places, windows


class Convolution(OrderedProduct, base=True):
    """The base of the three: x (n, *space, c), w (*kernel, c / groups, o), y (n, *out, o).

    y[n, p] = sum over offsets k of x[n, p * stride + k * dilation] @ w[k].  Each group, a
    contiguous part of the channels of x and of y, is convolved by itself.
    """

    stride: Sizes
    dilation: Sizes
    groups: int

    @property
    def attributes(self) -> tuple[Sizes, Sizes, int]:
        """The attributes that the three ops of one convolution share."""
        return self.stride, self.dilation, self.groups

    def sums_with(self, x: TensorType, w: TensorType, dy: TensorType) -> str:
        """Return the dtype of sums of products with dy.

        Raise ValueError unless dy has the type of the convolution of x and w, or is it rounded.
        """
        y = self.result(x, w)
        if dy != (y.with_dtype(x.dtype) if x.dtype == ORDERED else y):
            raise ValueError(f"dy is {dy}, the convolution of {x} gives {y}")
        return y.dtype

    def result(self, x: TensorType, w: TensorType) -> TensorType:
        """Return the type of y; raise ValueError if x and w do not fit."""
        rank = len(self.stride)
        if x.rank != rank + 2 or w.rank != rank + 2:
            raise ValueError(
                f"x is {x}, w is {w}: with {rank} dimensions of space both have rank {rank + 2}"
            )
        dtype = sum_dtype(x, w, self.order)
        if dtype is None:
            raise ValueError(f"x is {x}, w is {w}: both must be of one float dtype, or int8")
        *kernel, part, channels = w.shape
        sizes = tuple(size for size in kernel if isinstance(size, int))
        if self.order is not None and self.groups > 1:
            raise ValueError(f"convolutions in groups do not multiply {ORDERED}")
        if 0 in (*w.shape, x.shape[-1]):
            raise ValueError(f"x is {x}, w is {w}: the filter and the channels may not be empty")
        if w.batched or not isinstance(x.shape[-1], int):
            raise ValueError("filters and channels may not depend on the batch")
        given = x.shape[-1]
        self._check_channels(given, part, channels)
        out = places(x.shape[1:-1], sizes, self.stride, self.dilation)
        check_sums(prod((*sizes, given)) // self.groups, dtype)
        return TensorType((x.shape[0], *out, channels), dtype)

    def _check_channels(self, given: int, part: object, channels: object) -> None:
        """Raise ValueError unless the channels of x, w and y fit the groups."""
        assert isinstance(part, int)
        assert isinstance(channels, int)
        if self.groups < 1 or given % self.groups or channels % self.groups:
            raise ValueError(
                f"groups is {self.groups}, it must divide the {given} channels of x "
                f"and the {channels} of the result"
            )
        if given != part * self.groups:
            takes = f"{part} in each of {self.groups} groups" if self.groups > 1 else str(part)
            raise ValueError(
                f"x has {given} channels, w takes {takes}\n"
                "a filter has the channels of x, with groups those of one group"
            )

    def window(self, x: Shape, filter_size: Sizes, y: Shape) -> Window:
        """Return the matrix of windows of x, which the matrix of the filters is multiplied by."""
        none, one = (0,) * len(filter_size), (1,) * len(filter_size)
        (channels,) = _sizes(x[-1:])
        rest = filter_size, _sizes(y[1:-1]), self.stride, self.dilation, none, one, self.groups
        return Window(_sizes(x[1:-1]), channels // self.groups, *rest)

    def multiplied(self, w: TensorType, y: TensorType, n: int) -> tuple[int, int]:
        """Return the `flops`: a multiply-add for each number of y and weight of its channel."""
        return 0, 2 * prod(shape_at(y.shape, n)) * prod(shape_at(w.shape[:-1], n))

    def is_pointwise(self, filter_size: Sizes) -> bool:
        """Return whether this is a product of matrices: one pixel, no stride, no groups."""
        return self.groups == 1 and set(filter_size) == set(self.stride) == {1}

    def parts(self, array: Array) -> Array:
        """Return a matrix for each group: (groups, all other axes, channels of a group)."""
        return array.reshape(-1, self.groups, array.shape[-1] // self.groups).swapaxes(0, 1)

    def plus(self, sums: Array, pixels: Array, filters: Array) -> Array:
        """Return sums plus the products of pixels and the filters of one offset."""
        if self.order is not None:
            total = sums.reshape(-1, sums.shape[-1]).copy()
            narrow().add_products(
                total, pixels.reshape(-1, pixels.shape[-1]), filters, order=self.order
            )
            return total.reshape(sums.shape)
        product = self.joined(self.parts(pixels) @ self.parts(filters))
        return np.asarray(sums + product.reshape(sums.shape))

    def transposed(self, filters: Array) -> Array:
        """Return the filters of one offset, those of each group transposed."""
        return self.joined(self.parts(filters).swapaxes(1, 2))

    def joined(self, parts: Array) -> Array:
        """Return the groups' matrices as one, with their columns side by side."""
        return parts.swapaxes(0, 1).reshape(parts.shape[1], self.groups * parts.shape[2])


@dataclass(frozen=True)
class Conv(Convolution):
    """The convolution y of x and w."""

    roles = ("x", "w")
    gradient_text = ("conv_dx(d_out, w)", "conv_dw(x, d_out)")
    stride: Sizes
    dilation: Sizes
    groups: int = 1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of y."""
        return self.result(*ins)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the sum, over the offsets in the filter, of a product of matrices each."""
        if ins[0].dtype == np.int8:  # exact in float64
            return self.reference([each.astype(np.float64) for each in ins]).astype(np.int32)
        x, w = self.factors(ins)
        out = places(x.shape[1:-1], w.shape[:-2], self.stride, self.dilation)
        y = np.zeros((len(x), *out, w.shape[-1]), dtype_of_sums(x))
        for offset, window in windows(w.shape[:-2], *self.attributes[:2], y.shape[1:-1]):
            y[...] = self.plus(y, x[window], w[offset])
        return y

    def product(self, ins: Sequence[TensorType]) -> Product | None:
        """Return the product of the windows of x and the filters."""
        x, w = ins
        filter_size = _sizes(w.shape[:-2])
        if self.is_pointwise(filter_size):
            return Product(w.shape[-2], order=self.order)
        window = self.window(x.shape, filter_size, self.infer(ins).shape)
        if x.dtype == "int8" and self._is_narrow(window, w):
            return None
        return WindowProduct(window.depth, order=self.order, window=window)

    def _is_narrow(self, window: Window, w: TensorType) -> bool:
        """Return whether groups are too narrow for words of int8, as depthwise ones are."""
        (units,) = _sizes(w.shape[-1:])
        return self.groups > 1 and (window.channels < 4 or units < 8 * self.groups)

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return a multiply-add for each number of y and weight of its channel."""
        return self.multiplied(ins[1], out, n)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangents of x and w, each of which is a convolution too."""
        x, w = ins
        dx = ConvDx(x.shape, *self.attributes, order=self.order)
        dw = ConvDw(w.shape, *self.attributes, order=self.order)
        return b.apply(dx, dout, w), b.apply(dw, x, dout)


@dataclass(frozen=True)
class ConvDx(Convolution):
    """The cotangent of x, of `shape`, from that of y: each y is scattered to its pixels.

    By itself this is the transposed convolution.
    """

    roles = ("dy", "w")
    gradient_text = ("conv(d_out, w)", "conv_dw(d_out, dy)")
    shape: Shape
    stride: Sizes
    dilation: Sizes
    groups: int = 1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of x; raise ValueError if its convolution is not of the type of dy."""
        dy, w = ins
        x = dy.with_shape(self.shape)
        return x.with_dtype(self.sums_with(x, w, dy))

    def reference(self, ins: Sequence[Array]) -> Array:
        """Add each product of dy and a filter offset to the pixels that it was read from.

        The last offset is the first that a window of dy meets.
        """
        dy, w = self.factors(ins)
        dx = np.zeros((len(dy), *shape_at(self.shape[1:], 0)), dtype_of_sums(dy))
        met = windows(w.shape[:-2], *self.attributes[:2], dy.shape[1:-1])
        for offset, window in reversed([*met]):
            dx[window] = self.plus(dx[window], dy, self.transposed(w[offset]))
        return dx

    def product(self, ins: Sequence[TensorType]) -> Product | None:
        """Return the product of the windows of dy and the transposed filters."""
        dy, w = ins
        filter_size = _sizes(w.shape[:-2])
        if self.is_pointwise(filter_size):
            return Product(dy.shape[-1], trans_b=True, order=self.order)
        window = self._window_of_dy(dy.shape, filter_size)
        return WindowProduct(window.depth, trans_b=True, order=self.order, window=window)

    def _window_of_dy(self, dy: Shape, filter_size: Sizes) -> Window:
        """Return the matrix of windows of dy that contribute to each pixel of x.

        This is a convolution of dy, dilated by the stride, with the flipped filter.
        """
        one = (1,) * len(filter_size)
        before = tuple((k - 1) * d for k, d in zip(filter_size, self.dilation, strict=True))
        (channels,) = _sizes(dy[-1:])
        space = _sizes(self.shape[1:-1])
        rest = filter_size, space, one, self.dilation, before, self.stride, self.groups
        return Window(_sizes(dy[1:-1]), channels // self.groups, *rest)

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return the operations of the convolution itself."""
        return self.multiplied(ins[1], ins[0], n)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangents of dy and w."""
        dy, w = ins
        y = Conv(*self.attributes, order=self.order)
        dw = ConvDw(w.shape, *self.attributes, order=self.order)
        return b.apply(y, dout, w), b.apply(dw, dout, dy)


@dataclass(frozen=True)
class ConvDw(Convolution):
    """The cotangent of w, of `shape`, from that of y."""

    roles = ("x", "dy")
    gradient_text = ("conv_dx(dy, d_out)", "conv(x, d_out)")
    shape: Shape
    stride: Sizes
    dilation: Sizes
    groups: int = 1

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of w; raise ValueError if its convolution is not of the type of dy."""
        x, dy = ins
        w = x.with_shape(self.shape)
        return w.with_dtype(self.sums_with(x, w, dy))

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return, for each offset in the filter, the product of the pixels that it meets and dy."""
        x, dy = self.factors(ins)
        shape = shape_at(self.shape, 0)
        dw = np.zeros(shape, dtype_of_sums(x))
        for offset, window in windows(_sizes(shape[:-2]), *self.attributes[:2], dy.shape[1:-1]):
            pixels = self.parts(x[window]).swapaxes(1, 2)
            dw[offset] = self.joined(self._product(pixels, self.parts(dy), self._run(dy)))
        return dw

    def _product(self, pixels: Array, dy: Array, run: int | None) -> Array:
        if self.order is None:
            return np.asarray(pixels @ dy)
        return narrow().multiplied(pixels, dy, run, self.order)

    def _run(self, dy: Array) -> int | None:
        """Return the number of terms within which pairs or blocks are counted."""
        if self.is_pointwise(_sizes(self.shape[:-2])):
            return None
        return 1 if self.order == "pairs" else prod(dy.shape[1:-1])

    def product(self, ins: Sequence[TensorType]) -> Product | None:
        """Return the product of the transposed windows of x and dy."""
        x, dy = ins
        rows, filter_size = by_last(dy.shape)[0], _sizes(self.shape[:-2])
        if self.is_pointwise(filter_size):
            return Product(rows, trans_a=True, order=self.order)
        window = self.window(x.shape, filter_size, dy.shape)
        return WindowProduct(rows, trans_a=True, order=self.order, window=window)

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return the operations of the convolution itself."""
        return self.multiplied(out, ins[1], n)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangents of x and dy."""
        x, dy = ins
        dx = ConvDx(x.shape, *self.attributes, order=self.order)
        y = Conv(*self.attributes, order=self.order)
        return b.apply(dx, dy, dout), b.apply(y, x, dout)


def _sizes(dims: Sequence[Dim]) -> Sizes:
    """Return the dimensions that do not depend on the batch."""
    return tuple(dim for dim in dims if isinstance(dim, int))
