"""Limits of gradients: of each number, and of the norm over all of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ops.elementwise import add, div, mul
from graphc.ops.functions import abs_
from graphc.ops.optim import ClipScale, SquareSum
from graphc.ops.reduce import max_
from graphc.ops.select import clip, maximum
from graphc.ops.shape import cast


def bounded(b: Builder, gradients: Mapping[str, Value], most: float) -> dict[str, Value]:
    """Return the gradients with each number from -most to most."""
    return {
        name: clip(gradient, -most, most, name=b.unique(f"{name}.bounded"))
        for name, gradient in gradients.items()
    }


def clipped(b: Builder, gradients: Mapping[str, Value], limit: Value) -> dict[str, Value]:
    """Scale the gradients by min(1, limit/norm), with the norm over all of them together.

    Squares are summed in float64, where those of float32 neither overflow nor underflow;
    gradients of float64 are divided by the largest number first.
    """
    scaled = gradients
    numbers = [gradient for gradient in gradients.values() if 0 not in gradient.shape]
    if any(gradient.dtype == "float64" for gradient in numbers):  # no dtype is wider
        wide = {name: cast(gradient, "float64") for name, gradient in gradients.items()}
        largest = _largest(b, wide)
        limit = div(cast(limit, "float64"), largest, name=b.unique("clip_norm.scaled"))
        scaled = {
            name: div(gradient, largest, name=b.unique(f"{name}.scaled"))
            for name, gradient in wide.items()
        }
    total: Value | None = None
    for name, gradient in scaled.items():
        part = b.apply(SquareSum(), gradient, name=b.unique(f"{name}.square_sum"))
        total = part if total is None else add(total, part, name=b.unique("square_sum.total"))
    assert total is not None, "an optimizer trains something"
    scales = Casts(b.apply(ClipScale(), total, limit, name=b.unique("clip_scale")))
    return {
        name: mul(gradient, scales.to(gradient.dtype), name=b.unique(f"{name}.clipped"))
        for name, gradient in gradients.items()
    }


def _largest(b: Builder, gradients: Mapping[str, Value]) -> Value:
    """Return the largest absolute value of all gradients; finite, and not 0."""
    most: Value | None = None
    for name, gradient in gradients.items():
        if 0 in gradient.shape:
            continue
        part = max_(abs_(gradient), name=b.unique(f"{name}.largest_gradient"))
        most = (
            part if most is None else maximum(most, part, name=b.unique("largest_gradient.total"))
        )
    assert most is not None, "some gradient has a number"
    numbers = np.finfo(np.float64)
    return clip(most, numbers.tiny, numbers.max, name=b.unique("largest_gradient"))


class Casts:
    """A scalar, cast once to each dtype asked for: the parameters of a net may have several."""

    def __init__(self, value: Value) -> None:
        self._known = {value.dtype: value}
        self._value = value

    def to(self, dtype: str) -> Value:
        """Return the scalar in this dtype."""
        if dtype not in self._known:
            self._known[dtype] = cast(self._value, dtype)
        return self._known[dtype]
