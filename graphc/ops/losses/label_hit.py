"""The class of each label as a row of truth values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.expr import Axis, Broadcast, Expr, select
from graphc.ir.op import Array, Iteration
from graphc.ir.tensor_type import TensorType
from graphc.ops.index import ByIndex, hit


@dataclass(frozen=True)
class LabelHit(ByIndex):
    """labels (N,) -> (N, classes), true at the label; a row of the ignored label is all false."""

    name = "label_hit"
    roles = ("labels",)
    gradient_text = ("",)
    classes: int
    ignore: int | None = None

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (labels,) = ins
        if labels.rank != 1:
            raise ValueError(f"labels are {labels}, there is one for each row")
        self.check_indices(labels.shape, labels)
        return TensorType((*labels.shape, self.classes), "bool")

    def numbers(self) -> Array:
        """Return the classes' numbers; the ignored class has one that no label has."""
        found = np.arange(self.classes)
        if self.ignore is not None and 0 <= self.ignore < self.classes:
            found[self.ignore] = np.iinfo(np.int32).min
        return found

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0][:, None] == self.numbers())

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements"

    def broadcast_kinds(self, ins: Sequence[TensorType]) -> tuple[Broadcast, ...] | None:
        return ("row",)

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        own = hit(ins[0])
        if self.ignore is None or not 0 <= self.ignore < self.classes:
            return own
        return select(ins[0].cast("int64").equals(self.ignore), own.lift(False), own)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {0: self.classes}
