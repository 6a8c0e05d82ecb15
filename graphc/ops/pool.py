"""Pooling over channels-last images, without padding, and its gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import Shape, TensorType, shape_at
from graphc.ops.window import Sizes, Window, dimensions, places, windows


class Pooling(Op):
    """The base of pools: x (n, *space, c), y (n, *out, c), and a window for each place of y."""

    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def result(self, x: TensorType) -> TensorType:
        """Return the type of y; raise ValueError if the window does not fit."""
        rank = len(self.kernel)
        if x.rank != rank + 2 or not x.is_float:
            raise ValueError(
                f"x is {x}, {self.name} takes floats of shape (n, {dimensions(rank)}, channels)"
            )
        out = places(x.shape[1:-1], self.kernel, self.stride, self.dilation)
        return x.with_shape((x.shape[0], *out, x.shape[-1]))

    def windows(self, out: Sequence[int]) -> Iterator[Window]:
        """Yield the pixels that each offset in the window meets, in order, as an index."""
        places = windows(self.kernel, self.stride, self.dilation, out)
        return (window for _, window in places)

    def met(self, x: Array) -> list[Array]:
        """Return the pixels of x that each offset in the window meets, in order."""
        out = places(x.shape[1:-1], self.kernel, self.stride, self.dilation)
        return [x[window] for window in self.windows(out)]


def _of_y(y: TensorType, wanted: TensorType, role: str, x: TensorType) -> None:
    if y != wanted:
        raise ValueError(f"{role} is {y}, the pool of {x} gives {wanted}")


@dataclass(frozen=True)
class MaxPool(Pooling):
    """The largest number of each window."""

    name = "max_pool"
    roles = ("x",)
    gradient_text = ("max_pool_grad(max_pool_index(x), d_out)",)
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return self.result(ins[0])

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        return np.asarray(np.max(self.met(x), axis=0))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        (x,) = ins
        index = b.apply(MaxPoolIndex(self.kernel, self.stride, self.dilation), x)
        back = MaxPoolGrad(x.shape, self.kernel, self.stride, self.dilation)
        return (b.apply(back, index, dout),)


@dataclass(frozen=True)
class MaxPoolIndex(Pooling):
    """The number of the offset in each window that has the first of its largest pixels."""

    name = "max_pool_index"
    roles = ("x",)
    gradient_text = ("",)
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return self.result(ins[0]).with_dtype("int32")

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        met = self.met(x)
        largest, index = met[0], np.zeros(met[0].shape, "int32")
        for i, pixels in enumerate(met):
            index[pixels > largest] = i
            largest = np.maximum(largest, pixels)
        return index

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)


@dataclass(frozen=True)
class MaxPoolGrad(Pooling):
    """The cotangent of x, of `shape`: the sum of each window's cotangent at its index."""

    name = "max_pool_grad"
    roles = ("index", "dout")
    gradient_text = ("", "max_pool_pick(index, d_out)")
    shape: Shape
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        index, dout = ins
        x = dout.with_shape(self.shape)
        _of_y(dout, self.result(x), "dout", x)
        _of_y(index, dout.with_dtype("int32"), "index", x)
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        index, dout = ins
        dx = np.zeros((len(dout), *shape_at(self.shape[1:], 0)), dout.dtype)
        for i, window in enumerate(self.windows(dout.shape[1:-1])):
            dx[window] += np.where(index == i, dout, 0)
        return dx

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        pick = MaxPoolPick(self.kernel, self.stride, self.dilation)
        return None, b.apply(pick, ins[0], dout)


@dataclass(frozen=True)
class MaxPoolPick(Pooling):
    """The pixel of x at the index of each window."""

    name = "max_pool_pick"
    roles = ("index", "x")
    gradient_text = ("", "max_pool_grad(index, d_out)")
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        index, x = ins
        y = self.result(x)
        _of_y(index, y.with_dtype("int32"), "index", x)
        return y

    def reference(self, ins: Sequence[Array]) -> Array:
        index, x = ins
        y = np.zeros(index.shape, x.dtype)
        for i, window in enumerate(self.windows(index.shape[1:-1])):
            y[index == i] = x[window][index == i]
        return y

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        back = MaxPoolGrad(ins[1].shape, self.kernel, self.stride, self.dilation)
        return None, b.apply(back, ins[0], dout)


@dataclass(frozen=True)
class SumPool(Pooling):
    """The sum of each window."""

    name = "sum_pool"
    roles = ("x",)
    gradient_text = ("sum_pool_grad(d_out)",)
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return self.result(ins[0])

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        return np.asarray(np.sum(self.met(x), axis=0))

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        back = SumPoolGrad(ins[0].shape, self.kernel, self.stride, self.dilation)
        return (b.apply(back, dout),)


@dataclass(frozen=True)
class SumPoolGrad(Pooling):
    """The cotangent of x, of `shape`: the sum of each window's cotangent at all its pixels."""

    name = "sum_pool_grad"
    roles = ("dout",)
    gradient_text = ("sum_pool(d_out)",)
    shape: Shape
    kernel: Sizes
    stride: Sizes
    dilation: Sizes

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (dout,) = ins
        x = dout.with_shape(self.shape)
        _of_y(dout, self.result(x), "dout", x)
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        (dout,) = ins
        dx = np.zeros((len(dout), *shape_at(self.shape[1:], 0)), dout.dtype)
        for window in self.windows(dout.shape[1:-1]):
            dx[window] += dout
        return dx

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (b.apply(SumPool(self.kernel, self.stride, self.dilation), dout),)
