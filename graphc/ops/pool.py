"""Pooling over channels-last images, without padding, and its gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from math import prod
from typing import ClassVar

import numpy as np

from graphc.ir.access import AccessMap, dense_maps
from graphc.ir.build import Builder, Value
from graphc.ir.expr import BodyBuilder, Expr, call, select
from graphc.ir.forms import MOST, GatherRule, Read
from graphc.ir.op import Array, Cotangents, NoGradient, Op
from graphc.ir.tensor_type import Shape, TensorType, shape_at
from graphc.ops.reduce import below_largest
from graphc.ops.window import Sizes, Window, dimensions, places, windows


class Pooling(Op, base=True):
    """The base of pools: x (n, *space, c), y (n, *out, c); a window of x for each pixel of y."""

    free: ClassVar[int] = 1
    """The pixels of a window that cost no operation."""
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    @property
    def window(self) -> tuple[Sizes, Sizes, Sizes]:
        """The attributes that all ops of one pool have in common."""
        return self.kernel, self.stride, self.dilation

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return one operation for each pixel of each window but `free` ones."""
        places = min(prod(shape_at(x.shape, n)) for x in (out, *ins))
        return (prod(self.kernel) - self.free) * places, 0

    def result(self, x: TensorType) -> TensorType:
        """Return the type of y; raise ValueError if the window does not fit."""
        rank = len(self.kernel)
        if x.rank != rank + 2 or not x.is_float:
            raise ValueError(
                f"x is {x}, {self.name} takes floats of shape (n, {dimensions(rank)}, channels)"
            )
        out = places(x.shape[1:-1], *self.window)
        return x.with_shape((x.shape[0], *out, x.shape[-1]))

    def windows(self, out: Sequence[int]) -> Iterator[Window]:
        """Yield the index of the pixels at each offset in the windows, in order."""
        places = windows(self.kernel, self.stride, self.dilation, out)
        return (window for _, window in places)

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        """Return the rule of a kernel, or None for a window with too many pixels."""
        if prod(self.kernel) > MOST or result.shape[0] == 0:
            return None
        shapes = [type.shape for type in (*ins, result)]
        return GatherRule(result.shape, partial(self.write, shapes))

    def write(self, shapes: Sequence[Shape], b: BodyBuilder, read: Read) -> Expr:
        """Return an element of the result from those read; shapes are of operands and result."""
        raise NotImplementedError(f"{self.name} has no kernel")

    def maps(self, x: Shape) -> list[AccessMap]:
        """Return the access map to x for each offset in a window, in order."""
        first, *space, last = dense_maps(x)
        found = []
        for offset in product(*map(range, self.kernel)):
            axes = zip(space, self.stride, offset, self.dilation, strict=True)
            axis_maps = (w._replace(scale=s, shift=o * d) for w, s, o, d in axes)
            found.append(AccessMap((first, *axis_maps, last)))
        return found

    def maps_back(self, y: Shape) -> Iterator[AccessMap]:
        """Yield for each offset the access map from a pixel to the window with it there, if any."""
        first, *places, last = dense_maps(y)
        for offset in product(*map(range, self.kernel)):
            axes = zip(places, self.stride, offset, self.dilation, strict=True)
            axis_maps = (w._replace(shift=-o * d, divisor=s) for w, s, o, d in axes)
            yield AccessMap((first, *axis_maps, last))

    def tiles(self, places: Shape, space: Shape) -> bool:
        """Return whether every pixel is in exactly one window."""
        dense = self.kernel == self.stride and set(self.dilation) == {1}
        whole = tuple(p * k for p, k in zip(places, self.kernel, strict=True))
        return dense and whole == space

    def tile_map(self, y: Shape) -> AccessMap:
        """Return the access map from a pixel to the only window that it is in."""
        first, *places, last = dense_maps(y)
        axis_maps = (
            w._replace(divisor=k, floor=True) for w, k in zip(places, self.kernel, strict=True)
        )
        return AccessMap((first, *axis_maps, last))

    def pixels_by_offset(self, x: Array) -> list[Array]:
        """Return the pixels of x at each offset in the windows, in order."""
        return [x[window] for window in self.windows(places(x.shape[1:-1], *self.window))]


def _check_y(y: TensorType, wanted: TensorType, role: str, x: TensorType) -> None:
    """Raise ValueError unless an operand has the type that the pool of x has."""
    if y != wanted:
        raise ValueError(f"{role} is {y}, the pool of {x} gives {wanted}")


@dataclass(frozen=True)
class Pool(Pooling, base=True):
    """The base of pools that compute a number from each window of x."""

    roles: ClassVar[tuple[str, ...]] = ("x",)
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of y; raise ValueError if the window does not fit."""
        return self.result(ins[0])


@dataclass(frozen=True)
class PoolGrad(Pooling, base=True):
    """The base of cotangents of x, of `shape`: a pixel sums the shares of its windows.

    The last operand is the cotangent of y; an index for each window may be the first.
    """

    free = 0
    shape: Shape
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of x; raise ValueError if an operand is not of its pool."""
        *index, dout = ins
        x = dout.with_shape(self.shape)
        _check_y(dout, self.result(x), "dout", x)
        for type in index:
            _check_y(type, dout.with_dtype("int32"), "index", x)
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the sums, window by window."""
        dout = ins[-1]
        dx = np.zeros((len(dout), *shape_at(self.shape[1:], 0)), dout.dtype)
        for number, window in enumerate(self.windows(dout.shape[1:-1])):
            dx[window] += self.share(ins, number)
        return dx

    def write(self, shapes: Sequence[Shape], b: BodyBuilder, read: Read) -> Expr:
        """Return the sum of a pixel's shares of all windows that contain it."""
        *_, y, x = shapes
        if self.tiles(y[1:-1], x[1:-1]):
            return self.share_at(self.tile_map(y), None, b, read)
        parts = [self.share_at(at, i, b, read) for i, at in enumerate(self.maps_back(y))]
        return reduce(lambda a, x: a + x, parts)

    def share(self, ins: Sequence[Array], number: int) -> Array:
        """Return the share that each window gives to its pixel at offset `number`."""
        return ins[-1]

    def share_at(self, at: AccessMap, number: int | None, b: BodyBuilder, read: Read) -> Expr:
        """Return the share of one window for its pixel at an offset; None: the offset in a tile."""
        return read(0, at)


class MaxPool(Pool):
    """The largest number of each window."""

    is_exact = True
    gradient_text = ("max_pool_grad(max_pool_index(x), d_out)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the largest number of each window."""
        return np.asarray(np.max(self.pixels_by_offset(ins[0]), axis=0))

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        """Return the distances between the largest pixel of a window and the others."""
        return below_largest(np.array(self.pixels_by_offset(ins[0])), (0,))

    def write(self, shapes: Sequence[Shape], b: BodyBuilder, read: Read) -> Expr:
        """Return the largest of the pixels that are read."""
        pixels = [read(0, at) for at in self.maps(shapes[0])]
        return reduce(lambda a, x: call("maximum", a, x), pixels)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangent of x, by the index of the largest pixel."""
        (x,) = ins
        index = b.apply(MaxPoolIndex(*self.window), x)
        return (b.apply(MaxPoolGrad(x.shape, *self.window), index, dout),)


class MaxPoolIndex(NoGradient, Pool):
    """The offset, as a number, of the first largest pixel in each window."""

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of y with the dtype int32."""
        return self.result(ins[0]).with_dtype("int32")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the index of the first largest pixel."""
        offsets = self.pixels_by_offset(ins[0])
        largest, index = offsets[0], np.zeros(offsets[0].shape, "int32")
        for i, pixels in enumerate(offsets):
            index[pixels > largest] = i
            largest = np.maximum(largest, pixels)
        return index

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        """Return the distances between the largest pixel of a window and the others."""
        return below_largest(np.array(self.pixels_by_offset(ins[0])), (0,))

    def write(self, shapes: Sequence[Shape], b: BodyBuilder, read: Read) -> Expr:
        """Return the index, compared pixel by pixel."""
        first, *others = self.maps(shapes[0])
        largest, index = read(0, first), b.const(0, "int32")
        for number, at in enumerate(others, 1):
            pixel = read(0, at)
            index = select(pixel > largest, b.const(number, "int32"), index)
            largest = call("maximum", largest, pixel)
        return index


class MaxPoolGrad(PoolGrad):
    """The cotangent of x, of `shape`: the sum of each window's cotangent at its index."""

    roles = ("index", "dout")
    gradient_text = ("", "max_pool_pick(index, d_out)")

    def share(self, ins: Sequence[Array], number: int) -> Array:
        """Return the cotangents of the windows whose largest pixel is at the offset."""
        index, dout = ins
        return np.where(index == number, dout, 0)

    def share_at(self, at: AccessMap, number: int | None, b: BodyBuilder, read: Read) -> Expr:
        """Return the cotangent of the window if its largest pixel is at the offset, else 0."""
        dout = read(1, at)
        here = read(0, at).equals(b.offset(self.kernel) if number is None else number)
        return select(here, dout, b.const(0, dout.dtype))

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangent of `dout`: its picks by the index."""
        return None, b.apply(MaxPoolPick(*self.window), ins[0], dout)


class MaxPoolPick(Pool):
    """The pixel of x at the index of each window."""

    is_exact = True
    roles = ("index", "x")
    gradient_text = ("", "max_pool_grad(index, d_out)")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type of y; raise ValueError if the index is not of its pool."""
        index, x = ins
        y = self.result(x)
        _check_y(index, y.with_dtype("int32"), "index", x)
        return y

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the picked pixels."""
        index, x = ins
        y = np.zeros(index.shape, x.dtype)
        for i, window in enumerate(self.windows(index.shape[1:-1])):
            y[index == i] = x[window][index == i]
        return y

    def write(self, shapes: Sequence[Shape], b: BodyBuilder, read: Read) -> Expr:
        """Return the pixel at the index, chosen among all of the window."""
        _, x, y = shapes
        own, (first, *others) = AccessMap(tuple(dense_maps(y))), self.maps(x)
        index, found = read(0, own), read(1, first)
        for number, at in enumerate(others, 1):
            found = select(index.equals(number), read(1, at), found)
        return found

    def flops(self, ins: Sequence[TensorType], out: TensorType, n: int) -> tuple[int, int]:
        """Return 0: pixels are only moved."""
        return 0, 0

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangent of x."""
        index, x = ins
        return None, b.apply(MaxPoolGrad(x.shape, *self.window), index, dout)


class SumPool(Pool):
    """The sum of each window."""

    gradient_text = ("sum_pool_grad(d_out)",)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Return the sum of each window, pixel by pixel."""
        return np.asarray(np.sum(self.pixels_by_offset(ins[0]), axis=0))

    def write(self, shapes: Sequence[Shape], b: BodyBuilder, read: Read) -> Expr:
        """Return the sum of the pixels that are read."""
        return reduce(lambda a, x: a + x, [read(0, at) for at in self.maps(shapes[0])])

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangent of x."""
        return (b.apply(SumPoolGrad(ins[0].shape, *self.window), dout),)


class SumPoolGrad(PoolGrad):
    """The cotangent of x, of `shape`: the sum of each window's cotangent at all its pixels."""

    roles = ("dout",)
    gradient_text = ("sum_pool(d_out)",)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the cotangent of the cotangent: its sum pool."""
        return (b.apply(SumPool(*self.window), dout),)
