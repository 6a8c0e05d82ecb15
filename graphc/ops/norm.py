"""Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.base.arguments import checked_number, takes
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.expr import Axis, Broadcast, Expr, call
from graphc.ir.init import Ones, Zeros
from graphc.ir.op import Array, Cotangents, Iteration, Layer, Op
from graphc.ir.tensor_type import TensorType
from graphc.ops.apply import OF_LAYER, with_attributes
from graphc.ops.arithmetic import power
from graphc.ops.autodiff import pullback
from graphc.ops.elementwise import add, div, mul, sub
from graphc.ops.functions import sqrt
from graphc.ops.reduce import mean
from graphc.ops.shape import channels_first, channels_last, pixels, reshape
from graphc.ops.source import Parameter, State
from graphc.ops.sums import sum_

__all__ = ["batchnorm"]


def feature_axes(rank: int) -> tuple[int, ...]:
    """Return all axes but the features': the rows, and for images height and width."""
    return tuple(axis for axis in range(rank) if axis != 1)


def columns(array: Array, rank: int) -> Array:
    """Reshape a vector (features,) so that it broadcasts over x of that rank."""
    return array.reshape((1, -1) + (1,) * (rank - 2))


def _spread(vector: Value, like: Value) -> Value:
    """Reshape a vector (features,) so that it broadcasts over a value."""
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
        """Return whether to normalise by the statistics of the batch."""
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
        """Build it on rows (N, F): images become rows of pixels with channels last, and back."""
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
        """Build the ops for a matrix: the last is `name`, which starts the names of statistics."""
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
    """Add the mean and the uncorrected variance of each feature."""
    axes = feature_axes(x.type.rank)
    average = mean(x, axes, name=f"{name}.mean")
    centred = sub(x, _spread(average, x), name=f"{name}.centred")
    square = power(centred, 2, name=f"{name}.square")
    return average, mean(square, axes, name=f"{name}.var")


@dataclass(frozen=True)
class ByFeature(Op, base=True):
    """The base of ops on x (N, features, ...); in kernels x is a matrix.

    Each further operand has x's type, or one number for each feature: `kinds` says which.
    """

    kinds: ClassVar[tuple[Broadcast, ...]]
    """The broadcast kinds of the operands: each, or column for one number a feature."""
    iterates: ClassVar[Iteration] = "rows"
    eps: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError if a vector or a dout does not fit x."""
        x, others = ins[0], list(zip(ins, self.kinds, strict=True))[1:]
        check_features(x, [type for type, kind in others if kind == "column"])
        for dout in (type for type, kind in others if kind == "each"):
            if x != dout:
                raise ValueError(f"x is {x}, dout is {dout}")
        return x

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return self.iterates if ins[0].rank == 2 else "call"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return self.kinds


class BatchNormTrain(ByFeature):
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
    kinds = ("each", "column", "column")

    def reference(self, ins: Sequence[Array]) -> Array:
        x, gamma, beta = ins
        return np.asarray(columns(gamma, x.ndim) * _xhat(x, self.eps) + columns(beta, x.ndim))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        x, gamma, beta = ins
        centred, std = _centred_and_std(x, self.eps, axis)
        # One division for each feature, and a product for each element.
        return centred * (gamma / std) + beta

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return one fused op each for x and gamma, and for beta the sum of dout."""
        x, gamma, _ = ins
        return (
            b.apply(BatchNormDx(self.eps), x, gamma, dout),
            b.apply(BatchNormDgamma(self.eps), x, dout),
            sum_(dout, feature_axes(x.type.rank)),
        )


def _xhat(x: Array, eps: float) -> Array:
    """Return x with mean 0 and variance 1 in each feature."""
    axes = feature_axes(x.ndim)
    average, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    return np.asarray((x - average) / np.sqrt(variance + x.dtype.type(eps)))


def _centred_and_std_of(x: Value, eps: float) -> tuple[Value, Value]:
    """Return x minus its mean, and its standard deviation, as values."""
    axes = feature_axes(x.type.rank)
    centred = sub(x, mean(x, axes, keepdims=True))
    variance = mean(power(centred, 2), axes, keepdims=True)
    return centred, sqrt(add(variance, eps))


def _centred_and_std(x: Expr, eps: float, axis: Axis) -> tuple[Expr, Expr]:
    """Return x minus its mean, and its standard deviation, as expressions of a kernel."""
    centred = x - x.mean(axis)  # mean(x * x) - mean(x)**2 would lose digits
    return centred, call("sqrt", (centred * centred).mean(axis) + eps)


class BatchNormDgamma(ByFeature):
    """The cotangent of gamma: sum(dout * xhat) for each feature."""

    name = "batchnorm_dgamma"
    roles = ("x", "dout")
    gradient_text = ("d_out / std(x) * project(dout)", "d_out * xhat(x)")
    operations = 8
    kinds = ("each", "each")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x = super().infer(ins)
        return x.with_shape((x.shape[1],))

    def reference(self, ins: Sequence[Array]) -> Array:
        x, dout = ins
        return np.asarray((dout * _xhat(x, self.eps)).sum(axis=feature_axes(x.ndim)))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        x, dout = ins
        centred, std = _centred_and_std(x, self.eps, axis)
        return (dout * centred).sum(axis) / std

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        x, upper = ins
        xhat = div(*_centred_and_std_of(x, self.eps))
        primitive = sum_(mul(upper, xhat), feature_axes(x.type.rank))
        return pullback(primitive, dout, ins)


class BatchNormDx(ByFeature):
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
    kinds = ("each", "column", "each")

    def reference(self, ins: Sequence[Array]) -> Array:
        """Compute gamma / std * (dout - mean(dout) - xhat * mean(dout * xhat)) by feature."""
        x, gamma, dout = ins
        axes = feature_axes(x.ndim)
        xhat = _xhat(x, self.eps)
        std = np.sqrt(x.var(axis=axes, keepdims=True) + x.dtype.type(self.eps))
        centred = dout - dout.mean(axis=axes, keepdims=True)
        slope = centred - xhat * (dout * xhat).mean(axis=axes, keepdims=True)
        return np.asarray(columns(gamma, x.ndim) / std * slope)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        x, gamma, dout = ins
        centred, std = _centred_and_std(x, self.eps, axis)
        share = (dout * centred).mean(axis) / (std * std)
        return (dout - dout.mean(axis) - centred * share) * (gamma / std)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Build the formula from simple ops, and differentiate those."""
        x, gamma, upper = ins
        axes = feature_axes(x.type.rank)
        centred, std = _centred_and_std_of(x, self.eps)
        xhat = div(centred, std)
        slope = sub(upper, mean(upper, axes, keepdims=True))
        slope = sub(slope, mul(xhat, mean(mul(upper, xhat), axes, keepdims=True)))
        return pullback(mul(div(_spread(gamma, x), std), slope), dout, ins)


class Normalize(ByFeature):
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
    kinds = ("each", "column", "column", "column", "column")
    iterates = "elements"

    def reference(self, ins: Sequence[Array]) -> Array:
        x, average, variance, gamma, beta = (ins[0], *(columns(v, ins[0].ndim) for v in ins[1:]))
        return np.asarray((x - average) / np.sqrt(variance + x.dtype.type(self.eps)) * gamma + beta)

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
@with_attributes(
    example=("(N, 3, 8, 8)", "x", "(N, 3, 8, 8)"),
    x="Floats of shape (N, F, ...).",
    eps="A number above 0 that is added to the variance.",
    running_decay="The share of the old value that the running statistics keep: 1 minus PyTorch's "
    "`momentum`.",
    frozen="True if training uses the running statistics as well, as constants, and leaves them\n"
    "unchanged: for fine-tuning.  gamma and beta are still trained.",
    name=OF_LAYER,
    returns="Of x's shape.",
    raises="If x does not have an axis of features, or a number is out of range.",
)
def batchnorm(
    x: Value,
    *,
    eps: float = 1e-5,
    running_decay: float = 0.9,
    frozen: bool = False,
    name: str | None = None,
) -> Value:
    """Return x with mean 0 and variance 1 in each feature, scaled and shifted.

    Ioffe and Szegedy 2015 (arXiv:1502.03167).  Rows (N, F) are normalised over N, images (N, C, H,
    W) over N, H and W.  Training divides by the uncorrected batch standard deviation, inference by
    the running one.  `<node>.gamma` and `<node>.beta` (F,) are trained, from 1 and 0.  The states
    `<node>.running_mean` and `<node>.running_var` follow the batches.
    """
    eps = checked_number("batchnorm: eps", eps, above=0)
    running_decay = checked_number("batchnorm: running_decay", running_decay, least=0, most=1)
    layer = BatchNorm(eps, running_decay, bool(frozen))
    b = as_value("batchnorm", x).builder
    if b.outer is not None and not frozen:
        what = "it has running statistics, which the step of a loop cannot update\n"
        hint = "use gc.layernorm in the step, or normalise before the loop"
        raise b.error(layer, f"{what}{hint}", (x,))
    return with_vectors(layer, "batchnorm", x, 1, "(N, features, ...)", name)


_STARTS: dict[str, tuple[Callable[..., Op], object]] = {
    "gamma": (Parameter, Ones()),
    "beta": (Parameter, Zeros()),
    "running_mean": (State, 0.0),
    "running_var": (State, 1.0),
}
"""The further operands of normalisations: the kind and the start of each."""


def with_vectors(
    layer: Layer, function: str, x: Value, axis: int, shape: str, name: str | None
) -> Value:
    """Apply a layer, with a new parameter or state of the size of `axis` for each operand but x.

    Raise GraphError, with the function's name and the `shape` that x should have, if it has not.
    """
    b = as_value(function, x).builder
    size = x.shape[axis] if x.type.rank > max(axis, 0) else None
    if not isinstance(size, int) or not x.type.is_float:
        raise b.error(layer, f"x is {x.type}, {function} takes floats of shape {shape}", (x,))
    node = b.free_name(function, name)
    with b.all_or_nothing():
        vectors = []
        for role in layer.roles[1:]:
            kind, start = _STARTS[role]
            vectors.append(b.apply(kind((size,), x.dtype, start), name=f"{node}.{role}"))
        return b.apply(layer, x, *vectors, name=node)
