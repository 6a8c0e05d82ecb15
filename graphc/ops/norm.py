"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.base.arguments import checked_number, takes
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.expr import Axis, Broadcast, Expr, call
from graphc.ir.init import Ones, Zeros
from graphc.ir.op import Array, Cotangents, Iteration, Layer, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.arithmetic import power
from graphc.ops.autodiff import pullback
from graphc.ops.elementwise import add, div, mul, sub
from graphc.ops.functions import sqrt
from graphc.ops.reduce import mean, sum_
from graphc.ops.shape import channels_first, channels_last, pixels, reshape
from graphc.ops.source import Parameter, State

__all__ = ["batchnorm"]


def feature_axes(rank: int) -> tuple[int, ...]:
    """Return all axes but the features': the rows, and for images height and width."""
    return tuple(axis for axis in range(rank) if axis != 1)


def columns(array: Array, rank: int) -> Array:
    """Reshape a vector (features,) so that it broadcasts over x of that rank."""
    return array.reshape((1, -1) + (1,) * (rank - 2))


def _spread(vector: Value, like: Value) -> Value:
    rank = like.type.rank
    return vector if rank == 2 else reshape(vector, (1, vector.shape[0]) + (1,) * (rank - 2))


def check_features(x: TensorType, vectors: Sequence[TensorType], layer: str = "batchnorm") -> None:
    """Raise ValueError unless x is (N, features, ...) and each vector is (features,)."""
    if x.rank < 2 or not x.is_float:
        raise ValueError(f"x is {x}, {layer} takes floats of shape (N, features, ...)")
    for vector in vectors:
        if vector != TensorType((x.shape[1],), x.dtype):
            raise ValueError(f"x has {x.shape[1]} features of {x.dtype}, a parameter is {vector}")


@dataclass(frozen=True)
class BatchNorm(Layer):
    """gamma * xhat + beta, with xhat by batch statistics in training, else by running ones.

    running = running_decay * running + (1 - running_decay) * batch, with the uncorrected variance.
    If frozen, it uses the running ones in training too and leaves them unchanged.
    """

    name = "batchnorm"
    roles = ("x", "gamma", "beta", "running_mean", "running_var")
    eps: float = 1e-5
    running_decay: float = 0.9
    frozen: bool = False

    def by_batch(self, train: bool) -> bool:
        """Return whether the statistics are those of the batch."""
        return train and not self.frozen

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_features(ins[0], ins[1:])
        return ins[0]

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, gamma, beta, running_mean, running_var = ins
        if self.by_batch(train):
            return BatchNormTrain(self.eps).reference([x, gamma, beta])
        return Normalize(self.eps).reference([x, running_mean, running_var, gamma, beta])

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, *vectors = ins
        if x.type.rank == 2:
            return self._expand_rows(b, name, x, vectors, train)
        image = channels_last(x, name=f"{name}.channels_last")
        rows = pixels(image, name=f"{name}.pixels")
        made = self._expand_rows(b, f"{name}.rows", rows, vectors, train)
        return channels_first(reshape(made, image.shape), name=name)

    def _expand_rows(
        self, b: Builder, name: str, x: Value, vectors: Sequence[Value], train: bool
    ) -> Value:
        """Build the ops for a matrix.

        The last one is named `name`, and the names of the statistics start with it.
        """
        gamma, beta, running_mean, running_var = vectors
        if not self.by_batch(train):
            return b.apply(
                Normalize(self.eps), x, running_mean, running_var, gamma, beta, name=name
            )
        average, variance = _statistics(x, name)
        for state, batch in ((running_mean, average), (running_var, variance)):
            kept = mul(state, self.running_decay, name=f"{state.name}.kept")
            fresh = mul(batch, 1 - self.running_decay, name=f"{state.name}.fresh")
            b.update(state, add(kept, fresh, name=f"{state.name}.next"))
        return b.apply(BatchNormTrain(self.eps), x, gamma, beta, name=name)


def _statistics(x: Value, name: str) -> tuple[Value, Value]:
    axes = feature_axes(x.type.rank)
    average = mean(x, axes, name=f"{name}.mean")
    centred = sub(x, _spread(average, x), name=f"{name}.centred")
    square = power(centred, 2, name=f"{name}.square")
    return average, mean(square, axes, name=f"{name}.var")


@dataclass(frozen=True)
class BatchNormTrain(Op):
    """gamma * (x - mean(x)) / sqrt(var(x) + eps) + beta, differentiated through mean and var.

    The gradient is the closed form, which needs two sums a feature:
    dx = gamma / std * (dout - dbeta / M - xhat * dgamma / M).
    """

    name = "batchnorm_train"
    roles = ("x", "gamma", "beta")
    gradient_text = (
        "gamma / std(x) * (d_out - mean(d_out) - xhat(x) * mean(d_out * xhat(x)))",
        "sum(d_out * xhat(x), rows)",
        "sum(d_out, rows)",
    )
    operations = 8
    eps: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_features(ins[0], ins[1:])
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        x, gamma, beta = ins
        return np.asarray(columns(gamma, x.ndim) * _xhat(x, self.eps) + columns(beta, x.ndim))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "rows" if ins[0].rank == 2 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "column", "column"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        x, gamma, beta = ins
        centred, std = _centred_and_std(x, self.eps, axis)
        return centred * (gamma / std) + beta

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, gamma, _ = ins
        return (
            b.apply(BatchNormDx(self.eps), x, gamma, dout),
            b.apply(BatchNormDgamma(self.eps), x, dout),
            sum_(dout, feature_axes(x.type.rank)),
        )


def _xhat(x: Array, eps: float) -> Array:
    axes = feature_axes(x.ndim)
    average, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return np.asarray((x - average) / np.sqrt(variance + x.dtype.type(eps)))


def _xhat_value(x: Value, eps: float) -> Value:
    axes = feature_axes(x.type.rank)
    centred = sub(x, mean(x, axes, keepdims=True))
    variance = mean(power(centred, 2), axes, keepdims=True)
    return div(centred, sqrt(add(variance, eps)))


def _centred_and_std(x: Expr, eps: float, axis: Axis) -> tuple[Expr, Expr]:
    centred = x - x.mean(axis)  # mean(x * x) - mean(x)**2 would lose digits
    return centred, call("sqrt", (centred * centred).mean(axis) + eps)


@dataclass(frozen=True)
class BatchNormDgamma(Op):
    """The cotangent of gamma: sum(dout * xhat) for each feature."""

    name = "batchnorm_dgamma"
    roles = ("x", "dout")
    gradient_text = ("d_out / std(x) * project(dout)", "d_out * xhat(x)")
    operations = 8
    eps: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, dout = ins
        if x != dout:
            raise ValueError(f"x is {x}, dout is {dout}")
        return x.with_shape((x.shape[1],))

    def reference(self, ins: Sequence[Array]) -> Array:
        x, dout = ins
        return np.asarray((dout * _xhat(x, self.eps)).sum(axis=feature_axes(x.ndim)))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "rows" if ins[0].rank == 2 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "each"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        x, dout = ins
        centred, std = _centred_and_std(x, self.eps, axis)
        return (dout * centred).sum(axis) / std

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, upper = ins
        primitive = sum_(mul(upper, _xhat_value(x, self.eps)), feature_axes(x.type.rank))
        return pullback(primitive, dout, ins)


@dataclass(frozen=True)
class BatchNormDx(Op):
    """The cotangent of x, in closed form; see `BatchNormTrain`."""

    name = "batchnorm_dx"
    roles = ("x", "gamma", "dout")
    gradient_text = (
        "-(xhat(x) * mean(d_out * out) + gamma / std(x) * project(d_out * mean(dout * "
        "xhat(x)) + dout * mean(d_out * xhat(x)))) / std(x)",
        "sum(d_out * out, rows) / gamma",
        "gamma / std(x) * project(d_out)",
    )
    operations = 12
    eps: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, gamma, dout = ins
        check_features(x, [gamma])
        if x != dout:
            raise ValueError(f"x is {x}, dout is {dout}")
        return x

    def reference(self, ins: Sequence[Array]) -> Array:
        x, gamma, dout = ins
        axes = feature_axes(x.ndim)
        xhat = _xhat(x, self.eps)
        std = np.sqrt(x.var(axis=axes, keepdims=True) + x.dtype.type(self.eps))
        centred = dout - dout.mean(axis=axes, keepdims=True)
        slope = centred - xhat * (dout * xhat).mean(axis=axes, keepdims=True)
        return np.asarray(columns(gamma, x.ndim) / std * slope)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "rows" if ins[0].rank == 2 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "column", "each"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        x, gamma, dout = ins
        centred, std = _centred_and_std(x, self.eps, axis)
        share = (dout * centred).mean(axis) / (std * std)
        return (dout - dout.mean(axis) - centred * share) * (gamma / std)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, gamma, upper = ins
        axes = feature_axes(x.type.rank)
        xhat = _xhat_value(x, self.eps)
        centred = sub(x, mean(x, axes, keepdims=True))
        std = sqrt(add(mean(power(centred, 2), axes, keepdims=True), self.eps))
        slope = sub(upper, mean(upper, axes, keepdims=True))
        slope = sub(slope, mul(xhat, mean(mul(upper, xhat), axes, keepdims=True)))
        return pullback(mul(div(_spread(gamma, x), std), slope), dout, ins)


@dataclass(frozen=True)
class Normalize(Op):
    """gamma * (x - mean) / sqrt(var + eps) + beta for given statistics."""

    roles = ("x", "mean", "var", "gamma", "beta")
    inplace = (0,)
    gradient_text = (
        "d_out * gamma / sqrt(var + eps)",
        "-sum(d_out, rows) * gamma / sqrt(var + eps)",
        "-sum(d_out * (x - mean), rows) * gamma / (2 * (var + eps) ** 1.5)",
        "sum(d_out * (x - mean), rows) / sqrt(var + eps)",
        "sum(d_out, rows)",
    )
    operations = 4
    eps: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_features(ins[0], ins[1:])
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        x, average, variance, gamma, beta = (ins[0], *(columns(v, ins[0].ndim) for v in ins[1:]))
        return np.asarray((x - average) / np.sqrt(variance + x.dtype.type(self.eps)) * gamma + beta)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements" if ins[0].rank == 2 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return "each", "column", "column", "column", "column"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        x, average, variance, gamma, beta = ins
        return (x - average) * (gamma / call("sqrt", variance + self.eps)) + beta

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, average, variance, gamma, beta = (ins[0], *(_spread(v, ins[0]) for v in ins[1:]))
        xhat = div(sub(x, average), sqrt(add(variance, self.eps)))
        return pullback(add(mul(xhat, gamma), beta), dout, ins)


@takes(
    "gc.batchnorm(x)",
    momentum="running_decay is Keras's momentum, and 1 minus PyTorch's",
    epsilon="it is eps",
)
def batchnorm(
    x: Value,
    *,
    eps: float = 1e-5,
    running_decay: float = 0.9,
    frozen: bool = False,
    name: str | None = None,
) -> Value:
    """Normalise (N, F) over N, or images (N, C, H, W) over N, H and W.

    `running_decay` is the share of the old value that the running statistics keep: the complement
    of PyTorch's `momentum`.  Training divides by the uncorrected batch standard deviation,
    inference by the running one.  With `frozen`, for fine-tuning, training too uses the running
    statistics, as constants, and leaves them unchanged; gamma and beta are still trained.  Raise
    GraphError if x does not have a feature axis.
    """
    b = as_value("batchnorm", x).builder
    eps = checked_number("batchnorm: eps", eps, above=0)
    running_decay = checked_number("batchnorm: running_decay", running_decay, least=0, most=1)
    layer = BatchNorm(eps, running_decay, bool(frozen))
    features = x.shape[1] if x.type.rank > 1 else None
    if not isinstance(features, int) or not x.type.is_float:
        message = f"x is {x.type}, batchnorm takes floats of shape (N, features, ...)"
        raise b.error(layer, message, (x,))
    node = b.free_name("batchnorm", name)
    with b.all_or_nothing():
        return b.apply(layer, x, *_parameters(b, node, (features,), x.dtype), name=node)


def _parameters(b: Builder, node: str, shape: tuple[int, ...], dtype: str) -> tuple[Value, ...]:
    return (
        b.apply(Parameter(shape, dtype, Ones()), name=f"{node}.gamma"),
        b.apply(Parameter(shape, dtype, Zeros()), name=f"{node}.beta"),
        b.apply(State(shape, dtype, 0.0), name=f"{node}.running_mean"),
        b.apply(State(shape, dtype, 1.0), name=f"{node}.running_var"),
    )
