"""Standardisation by statistics of the training set, which are saved with the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ops.elementwise import div, sub
from graphc.ops.source import Input, State


class Standardize(Layer):
    """(x - mean) / scale, by statistics that training does not change."""

    roles = ("x", "mean", "scale")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
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


def standardize(x: Value, *, name: str | None = None) -> Value:
    """Return (x - mean) / scale for an input x (N, ...), entry by entry of a row.

    The statistics are the states `<node>.mean` and `<node>.scale`, 0 and 1 until they are fitted to
    the training set, which `gc.fit` does first and `gc.fit_standardize` alone.  They are saved with
    the model.  To predict in the units of a standardised target, undo it:
    `prediction * net["t.scale"] + net["t.mean"]`.

    Raise GraphError if x is not an input of the net, or not floats of shape (N, ...).
    """
    b = as_value("standardize", x).builder
    layer = Standardize()
    if x.type.rank < 1 or not isinstance(x.shape[0], Batch):
        raise b.error(layer, f"x is {x.type}, standardize takes floats of shape (N, ...)", (x,))
    if not isinstance(x.node.op, Input):
        message = (
            f"x is the result of {x.node.op.name}, standardize takes an input of the net\n"
            "gc.batchnorm(x) normalises values inside a net"
        )
        raise b.error(layer, message, (x,))
    row = x.type.with_shape(x.shape[1:])
    node = b.free_name("standardize", name)
    with b.all_or_nothing():
        statistics = [
            b.apply(State(_sizes(row), row.dtype, start), name=f"{node}.{kind}")
            for kind, start in (("mean", 0.0), ("scale", 1.0))
        ]
        return b.apply(layer, x, *statistics, name=node)


def _sizes(row: TensorType) -> tuple[int, ...]:
    return tuple(dim for dim in row.shape if isinstance(dim, int))
