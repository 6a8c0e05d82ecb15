"""Losses that compare each element of a prediction with its target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.losses.row_loss import RowLoss
from graphc.ops.reduce import mean


class ElementLoss(RowLoss):
    """A loss of each element; a row's is the mean over its features."""

    roles = ("prediction", "target", "weight")

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        """Return the loss of each element, named `name`; nodes before it are named `node.part`."""
        raise NotImplementedError

    def reference_each(self, prediction: Array, target: Array) -> Array:
        """Compute the loss of each element in plain NumPy."""
        raise NotImplementedError

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        a, b = ins
        if a != b or not a.is_float or a.rank < 1:
            first, second, _ = self.roles
            raise ValueError(
                f"{first} is {a}, {second} is {b}; they must be equal\n"
                "a silent broadcast would compare every row with every other"
            )
        return a.with_shape(a.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        each = self.reference_each(*ins)
        return np.asarray(each.mean(axis=tuple(range(1, each.ndim))))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        prediction, target = ins
        if prediction.type.rank == 1:
            return self.each(prediction, target, name, name)
        each = self.each(prediction, target, name, f"{name}.each")
        return mean(each, tuple(range(1, prediction.type.rank)), name=name)
