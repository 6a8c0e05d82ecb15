"""The base of losses of each element against its target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.apply import described
from graphc.ops.losses.base import RowLoss, apply_loss, loss_function
from graphc.ops.reduce import mean


class ElementLoss(RowLoss, base=True):
    """The base of losses of each element; a row's loss is the mean over its features."""

    roles = ("prediction", "target", "weight")

    def each(self, prediction: Value, target: Value, node: str, name: str) -> Value:
        """Return the loss of each element, named `name`; nodes before it are named `node.part`."""
        raise NotImplementedError

    def reference_each(self, prediction: Array, target: Array) -> Array:
        """Compute the loss of each element in plain NumPy."""
        raise NotImplementedError

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the type (N,); raise ValueError unless both operands have one type."""
        a, b = ins
        if a != b or not a.is_float or a.rank < 1:
            first, second, _ = self.roles
            raise ValueError(
                f"{first} is {a}, {second} is {b}; they must be equal\n"
                "broadcasting would compare every row with every other"
            )
        return a.with_shape(a.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        """Compute the mean over each row's elements in plain NumPy."""
        each = self.reference_each(*ins)
        return np.asarray(each.mean(axis=tuple(range(1, each.ndim))))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        """Return the mean over each row's elements."""
        prediction, target = ins
        if prediction.type.rank == 1:
            return self.each(prediction, target, name, name)
        each = self.each(prediction, target, name, f"{name}.each")
        return mean(each, tuple(range(1, prediction.type.rank)), name=name)


class OfErrors(Protocol):
    """A loss of the differences between predictions and targets."""

    def __call__(
        self,
        prediction: Value,
        target: Value,
        *,
        weight: Value | None = None,
        reduction: str = "mean",
        name: str | None = None,
    ) -> Value:
        """Return the loss, as a node of that name."""


def of_errors(kind: type[ElementLoss]) -> OfErrors:
    """Return the function that applies a loss of elements without options."""

    def function(
        prediction: Value,
        target: Value,
        *,
        weight: Value | None = None,
        reduction: str = "mean",
        name: str | None = None,
    ) -> Value:
        return apply_loss(kind(reduction), prediction, target, weight=weight, name=name)

    documented = loss_function(
        "x", "t", prediction="Floats (N, ...).", target="The right numbers, of the same shape."
    )
    return documented(described(function, kind))
