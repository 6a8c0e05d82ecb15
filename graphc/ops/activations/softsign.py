"""An activation with a rational slope."""

from __future__ import annotations

import numpy as np

from graphc.ir.build import Value, apply
from graphc.ir.op import Array
from graphc.ops.activations.activation import Activation
from graphc.ops.elementwise import add, div
from graphc.ops.functions import abs_


class Softsign(Activation):
    """x / (1 + |x|)."""

    name = "softsign"

    def of(self, x: Array) -> Array:
        return np.asarray(x / (1 + np.abs(x)))

    def build(self, x: Value, name: str) -> Value:
        return div(x, add(abs_(x), 1.0), name=name)


def softsign(x: Value, *, name: str | None = None) -> Value:
    """Return x / (1 + |x|)."""
    return apply(Softsign(), x, name=name)
