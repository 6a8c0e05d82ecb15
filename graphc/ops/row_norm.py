"""Normalisation of rows and of groups of channels, and by fixed statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import ClassVar

import numpy as np

from graphc.base.arguments import checked_number, checked_whole
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import Batch, TensorType, count
from graphc.ops.apply import OF_LAYER, with_attributes
from graphc.ops.arithmetic import power
from graphc.ops.elementwise import add, div, mul, sub
from graphc.ops.functions import sqrt
from graphc.ops.norm import check_features, columns, with_vectors
from graphc.ops.reduce import mean
from graphc.ops.shape import reshape
from graphc.ops.source import State
from graphc.ops.sums import broadcast_to

__all__ = ["groupnorm", "instancenorm", "layernorm", "rmsnorm", "standardize"]


class Standardize(Layer):
    """(x - mean) / scale, by statistics that training does not change."""

    roles = ("x", "mean", "scale")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError unless each statistic has the shape of a row."""
        x, *statistics = ins
        if not x.is_float or x.rank < 1:
            raise ValueError(f"x is {x}, standardize takes floats of shape (N, ...)")
        for vector in statistics:
            if vector != x.with_shape(x.shape[1:]):
                raise ValueError(f"x is {x}, a statistic of a row of it is {vector}")
        return x

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, mean, scale = ins
        return np.asarray((x - mean) / scale)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, mean, scale = ins
        return div(sub(x, mean, name=f"{name}.centred"), scale, name=name)


@with_attributes(
    example=("(N, 4)", "x", "(N, 4)"),
    x="An input of the net, floats of shape (N, ...).",
    name=OF_LAYER,
    returns="Of x's shape.",
    raises="If x is not an input of the net, or not floats of shape (N, ...).",
)
def standardize(x: Value, *, name: str | None = None) -> Value:
    """Return (x - mean) / scale for an input of the net, by statistics of the training set.

    The statistics have a number for each entry of a row.  They are the states `<node>.mean` and
    `<node>.scale`, 0 and 1 until they are fitted, which `gc.fit` does first and
    `gc.fit_standardize` alone.  They are saved with the model.  To predict in the units of a
    standardised target, undo it: `prediction * net["t.scale"] + net["t.mean"]`.
    """
    b = as_value("standardize", x).builder
    layer = Standardize()
    if x.type.rank < 1 or not isinstance(x.shape[0], Batch):
        raise b.error(layer, f"x is {x.type}, standardize takes floats of shape (N, ...)", (x,))
    if not x.node.op.is_input:
        message = (
            f"x is the result of {x.node.op.name}, standardize takes an input of the net\n"
            "gc.batchnorm(x) normalises values inside a net"
        )
        raise b.error(layer, message, (x,))
    sizes = tuple(dim for dim in x.shape[1:] if isinstance(dim, int))
    node = b.free_name("standardize", name)
    with b.all_or_nothing():
        statistics = [
            b.apply(State(sizes, x.dtype, start), name=f"{node}.{kind}")
            for kind, start in (("mean", 0.0), ("scale", 1.0))
        ]
        return b.apply(layer, x, *statistics, name=node)


@dataclass(frozen=True)
class RowNorm(Layer, base=True):
    """The base of normalisations over the last axis; the same in training and inference."""

    roles: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta")
    eps: float = 1e-5

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError unless each vector has as many entries as a row."""
        x, *vectors = ins
        if not x.is_float or x.rank < 1 or not isinstance(x.shape[-1], int):
            raise ValueError(f"x is {x}, {self.name} takes floats of shape (N, ..., features)")
        for vector in vectors:
            if vector != x.with_shape(x.shape[-1:]):
                raise ValueError(f"x has {x.shape[-1]} features of {x.dtype}, one is {vector}")
        return x


class LayerNorm(RowNorm):
    """gamma * (x - mean) / sqrt(var + eps) + beta of each row, with the uncorrected variance.

    Ba et al. 2016 (arXiv:1607.06450).
    """

    name = "layernorm"

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, gamma, beta = ins
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + x.dtype.type(self.eps)) * gamma + beta)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, gamma, beta = ins
        centred = sub(x, mean(x, -1, keepdims=True, name=f"{name}.mean"), name=f"{name}.centred")
        scaled = mul(divided_by_rms(centred, self.eps, name), gamma, name=f"{name}.scaled")
        return add(scaled, beta, name=name)


class RmsNorm(RowNorm):
    """gamma * x / sqrt(mean(x**2) + eps) of each row.

    Zhang and Sennrich 2019 (arXiv:1910.07467).
    """

    name = "rmsnorm"
    roles = ("x", "gamma")

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, gamma = ins
        square = (x**2).mean(axis=-1, keepdims=True)
        return np.asarray(x / np.sqrt(square + x.dtype.type(self.eps)) * gamma)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, gamma = ins
        return mul(divided_by_rms(x, self.eps, name), gamma, name=name)


def divided_by_rms(x: Value, eps: float, name: str) -> Value:
    """Return x divided by its root mean square in each row: x / sqrt(mean(x**2) + eps)."""
    square = mean(power(x, 2, name=f"{name}.square"), -1, keepdims=True, name=f"{name}.var")
    spread = sqrt(add(square, eps), name=f"{name}.std")
    return div(x, spread, name=f"{name}.xhat")


_normalizing = partial(
    with_attributes,
    x="Floats of shape (N, ..., features).",
    eps="A number above 0 that is added to the variance.",
    name=OF_LAYER,
    returns="Of x's shape.",
    raises="If x is not of floats with a last axis of fixed size, or `eps` is not above 0.",
)


@_normalizing(example=("(N, 5, 8)", "x", "(N, 5, 8)"))
def layernorm(x: Value, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x with mean 0 and variance 1 in each row, scaled and shifted.

    Ba et al. 2016 (arXiv:1607.06450).  `<node>.gamma` (features,) is trained from 1, beta from 0.
    """
    layer = LayerNorm(checked("layernorm", eps))
    return with_vectors(layer, "layernorm", x, -1, "(N, ..., features)", name)


@_normalizing(
    example=("(N, 5, 8)", "x", "(N, 5, 8)"),
    eps="A number above 0 that is added to the mean square.",
)
def rmsnorm(x: Value, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x with mean square 1 in each row, scaled.

    Zhang and Sennrich 2019 (arXiv:1910.07467).  `<node>.gamma` (features,) is trained, from 1.
    """
    layer = RmsNorm(checked("rmsnorm", eps))
    return with_vectors(layer, "rmsnorm", x, -1, "(N, ..., features)", name)


def checked(layer: str, eps: float) -> float:
    """Return eps as a float; raise GraphError unless it is above 0."""
    hint = "a row of equal numbers would be divided by 0"
    return checked_number(f"{layer}: eps", eps, above=0, hint=hint)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """gamma * (x - mean) / sqrt(var + eps) + beta, by the statistics of a sample's group.

    A group is contiguous channels with all their pixels; gamma and beta have a number a channel.
    Training and inference compute the same.
    """

    name = "groupnorm"
    roles = ("x", "gamma", "beta")
    groups: int
    eps: float = 1e-5

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError if the groups do not divide its channels."""
        x = ins[0]
        check_features(x, ins[1:], self.name)
        channels = x.shape[1]
        if not isinstance(channels, int) or self.groups < 1 or channels % self.groups:
            raise ValueError(f"groups is {self.groups}, it must divide the {channels} channels")
        return x

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, gamma, beta = (ins[0], *(columns(v, ins[0].ndim) for v in ins[1:]))
        groups = x.reshape(len(x), self.groups, prod(x.shape[1:]) // self.groups)
        centred = groups - groups.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + x.dtype.type(self.eps))
        return np.asarray((centred / spread).reshape(x.shape) * gamma + beta)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        """Build it on a matrix with a row for each group of a sample, then scale by channel."""
        x, gamma, beta = ins
        rows = count((x.shape[0], self.groups))
        part = count((x.shape[1], *x.shape[2:]))
        assert isinstance(part, int)
        groups = reshape(x, (rows, part // self.groups), name=f"{name}.groups")
        average = mean(groups, -1, keepdims=True, name=f"{name}.mean")
        centred = sub(groups, average, name=f"{name}.centred")
        xhat = reshape(divided_by_rms(centred, self.eps, name), x.shape)
        scaled = mul(xhat, _at_pixels(gamma, x, f"{name}.gamma"), name=f"{name}.scaled")
        return add(scaled, _at_pixels(beta, x, f"{name}.beta"), name=name)


def _at_pixels(vector: Value, x: Value, name: str) -> Value:
    """Broadcast a number for each channel over the channel's pixels: a column in kernels."""
    channels, *space = x.shape[1:]
    column = reshape(vector, (channels, *(1 for _ in space)))
    return broadcast_to(column, (channels, *space)) if space else vector


@_normalizing(
    example=("(N, 6, 4, 4)", "x, 2", "(N, 6, 4, 4)"),
    x="Floats of shape (N, c, ...).",
    groups="The number of groups, which divides c; a group is contiguous channels.",
    raises="If the groups do not divide the channels, or `eps` is not above 0.",
)
def groupnorm(x: Value, groups: int, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x with mean 0 and variance 1 in each group of a sample's channels.

    Wu and He 2018 (arXiv:1803.08494).  `<node>.gamma` and `<node>.beta` (c,) scale and shift each
    channel; they are trained, from 1 and 0.
    """
    layer = GroupNorm(checked_whole("groupnorm: groups", groups), checked("groupnorm", eps))
    return with_vectors(layer, "groupnorm", x, 1, "(N, channels, ...)", name)


@_normalizing(
    example=("(N, 6, 4, 4)", "x", "(N, 6, 4, 4)"),
    x="Floats of shape (N, c, ...).",
    raises="If x is not of floats with channels, or `eps` is not above 0.",
)
def instancenorm(x: Value, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x with mean 0 and variance 1 in each channel of each sample.

    Ulyanov et al. 2016 (arXiv:1607.08022).  `<node>.gamma` and `<node>.beta` (c,) scale and shift
    each channel; they are trained, from 1 and 0.
    """
    x = as_value("instancenorm", x)
    channels = x.shape[1] if x.type.rank > 1 else None
    number = channels if isinstance(channels, int) else 1
    layer = GroupNorm(number, checked("instancenorm", eps))
    return with_vectors(layer, "instancenorm", x, 1, "(N, channels, ...)", name)
