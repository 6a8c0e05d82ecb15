"""Normalisation of each sample's groups of channels (Wu and He 2018, arXiv:1803.08494)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.init import Ones, Zeros
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import TensorType, count
from graphc.ops.elementwise import add, mul, sub
from graphc.ops.norm import check_features, columns
from graphc.ops.reduce import broadcast_to, mean
from graphc.ops.row_norm import by_spread, checked
from graphc.ops.shape import reshape
from graphc.ops.source import Parameter


@dataclass(frozen=True)
class GroupNorm(Layer):
    """gamma * (x - mean) / sqrt(var + eps) + beta, by the statistics of a sample's group.

    A group is a number of neighbouring channels with all their pixels; gamma and beta have a number
    a channel.  Training and inference compute the same.
    """

    name = "groupnorm"
    roles = ("x", "gamma", "beta")
    groups: int
    eps: float = 1e-5

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x = ins[0]
        check_features(x, ins[1:], self.name)
        channels = x.shape[1]
        if not isinstance(channels, int) or self.groups < 1 or channels % self.groups:
            raise ValueError(f"groups is {self.groups}, it must divide the {channels} channels")
        return x

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, gamma, beta = (ins[0], *(columns(v, ins[0].ndim) for v in ins[1:]))
        groups = x.reshape(len(x), self.groups, -1)
        centred = groups - groups.mean(axis=-1, keepdims=True)
        spread = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + x.dtype.type(self.eps))
        return np.asarray((centred / spread).reshape(x.shape) * gamma + beta)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, gamma, beta = ins
        rows = count((x.shape[0], self.groups))
        part = count((x.shape[1], *x.shape[2:]))
        assert isinstance(part, int)
        groups = reshape(x, (rows, part // self.groups), name=f"{name}.groups")
        average = mean(groups, -1, keepdims=True, name=f"{name}.mean")
        centred = sub(groups, average, name=f"{name}.centred")
        xhat = reshape(by_spread(centred, self.eps, name), x.shape)
        scaled = mul(xhat, _at_pixels(gamma, x, f"{name}.gamma"), name=f"{name}.scaled")
        return add(scaled, _at_pixels(beta, x, f"{name}.beta"), name=name)


def _at_pixels(vector: Value, x: Value, name: str) -> Value:
    """Return a number a channel, repeated for each of its pixels: columns of x as a matrix."""
    channels, *space = x.shape[1:]
    column = reshape(vector, (channels, *(1 for _ in space)))
    return broadcast_to(column, (channels, *space)) if space else vector


def groupnorm(x: Value, groups: int, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x (N, c, ...) with mean 0 and variance 1 in each group of a sample's channels.

    There are `groups` of them.  `<node>.gamma` and `<node>.beta` (c,) scale and move each channel,
    from 1 and 0.  Raise GraphError if the groups do not divide the channels.
    """
    x, number = as_value("groupnorm", x), checked_whole("groupnorm: groups", groups)
    return _apply(GroupNorm(number, checked("groupnorm", eps)), x, "groupnorm", name)


def instancenorm(x: Value, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x (N, c, ...) with mean 0 and variance 1 in each channel of each sample.

    Ulyanov et al. 2016 (arXiv:1607.08022).  `<node>.gamma` and `<node>.beta` (c,) scale and move
    each channel, from 1 and 0.
    """
    x = as_value("instancenorm", x)
    channels = x.shape[1] if x.type.rank > 1 else None
    number = channels if isinstance(channels, int) else 1
    return _apply(GroupNorm(number, checked("instancenorm", eps)), x, "instancenorm", name)


def _apply(layer: GroupNorm, x: Value, function: str, name: str | None) -> Value:
    b = x.builder
    channels = x.shape[1] if x.type.rank > 1 else None
    if not isinstance(channels, int) or not x.type.is_float:
        message = f"x is {x.type}, {function} takes floats of shape (N, channels, ...)"
        raise b.error(layer, message, (x,))
    node = b.free_name(function, name)
    with b.all_or_nothing():
        vectors = [
            b.apply(Parameter((channels,), x.dtype, start), name=f"{node}.{role}")
            for role, start in (("gamma", Ones()), ("beta", Zeros()))
        ]
        return b.apply(layer, x, *vectors, name=node)
