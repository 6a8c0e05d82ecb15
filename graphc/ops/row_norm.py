"""Normalisation of each row by its own statistics: layernorm and rmsnorm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.init import Ones, Zeros
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import add, div, mul, power, sub
from graphc.ops.functions import sqrt
from graphc.ops.reduce import mean
from graphc.ops.source import Parameter


class RowNorm(Layer):
    """A normalisation over the last axis, scaled by gamma; the same in training and inference."""

    roles: ClassVar[tuple[str, ...]] = ("x", "gamma", "beta")
    eps: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, *vectors = ins
        if not x.is_float or x.rank < 1 or not isinstance(x.shape[-1], int):
            raise ValueError(f"x is {x}, {self.name} takes floats of shape (N, ..., features)")
        for vector in vectors:
            if vector != x.with_shape(x.shape[-1:]):
                raise ValueError(f"x has {x.shape[-1]} features of {x.dtype}, one is {vector}")
        return x


@dataclass(frozen=True)
class LayerNorm(RowNorm):
    """gamma * (x - mean) / sqrt(var + eps) + beta of each row, with the uncorrected variance.

    Ba et al. 2016 (arXiv:1607.06450).
    """

    name = "layernorm"
    eps: float = 1e-5

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, gamma, beta = ins
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + x.dtype.type(self.eps)) * gamma + beta)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, gamma, beta = ins
        centred = sub(x, mean(x, -1, keepdims=True, name=f"{name}.mean"), name=f"{name}.centred")
        scaled = mul(by_spread(centred, self.eps, name), gamma, name=f"{name}.scaled")
        return add(scaled, beta, name=name)


@dataclass(frozen=True)
class RmsNorm(RowNorm):
    """gamma * x / sqrt(mean(x**2) + eps) of each row.

    Zhang and Sennrich 2019 (arXiv:1910.07467).
    """

    name = "rmsnorm"
    roles = ("x", "gamma")
    eps: float = 1e-5

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, gamma = ins
        square = (x**2).mean(axis=-1, keepdims=True)
        return np.asarray(x / np.sqrt(square + x.dtype.type(self.eps)) * gamma)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, gamma = ins
        return mul(by_spread(x, self.eps, name), gamma, name=name)


def by_spread(x: Value, eps: float, name: str) -> Value:
    """Return x / sqrt(mean(x**2) + eps) of each row."""
    square = mean(power(x, 2, name=f"{name}.square"), -1, keepdims=True, name=f"{name}.var")
    spread = sqrt(add(square, eps), name=f"{name}.std")
    return div(x, spread, name=f"{name}.xhat")


def layernorm(x: Value, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x (N, ..., features) with mean 0 and variance 1 in each row, scaled and moved.

    `<node>.gamma` and `<node>.beta` (features,) are trained, from 1 and 0.  Raise GraphError unless
    x has floats with a last axis of fixed size.
    """
    return _apply(LayerNorm(checked("layernorm", eps)), x, name)


def rmsnorm(x: Value, *, eps: float = 1e-5, name: str | None = None) -> Value:
    """Return x (N, ..., features) with mean square 1 in each row, scaled by `<node>.gamma`.

    gamma is (features,).  Raise GraphError unless x has floats with a last axis of fixed size.
    """
    return _apply(RmsNorm(checked("rmsnorm", eps)), x, name)


def checked(layer: str, eps: float) -> float:
    """Return eps; raise GraphError unless it is above 0."""
    if not eps > 0:
        raise GraphError(
            f"{layer}: eps is {eps!r}, it must be above 0",
            loc=caller_loc(),
            hint="a row of equal numbers would be divided by 0",
        )
    return float(eps)


def _apply(layer: LayerNorm | RmsNorm, x: Value, name: str | None) -> Value:
    b = as_value(layer.name, x).builder
    features = x.shape[-1] if x.type.rank else None
    if not isinstance(features, int) or not x.type.is_float:
        message = f"x is {x.type}, {layer.name} takes floats of shape (N, ..., features)"
        raise b.error(layer, message, (x,))
    node = b.free_name(layer.name, name)
    starts = {"gamma": Ones(), "beta": Zeros()}
    with b.all_or_nothing():
        vectors = [
            b.apply(Parameter((features,), x.dtype, starts[role]), name=f"{node}.{role}")
            for role in layer.roles[1:]
        ]
        return b.apply(layer, x, *vectors, name=node)
