"""Cross-entropy with targets that are probabilities of classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.elementwise import mul, neg
from graphc.ops.losses.row_loss import RowLoss
from graphc.ops.reduce import sum_


@dataclass(frozen=True)
class SoftNllLoss(RowLoss):
    """-sum(t * l) of each row of logarithms of probabilities l and targets t."""

    name = "soft_nll_loss"
    roles: ClassVar[tuple[str, ...]] = ("log_probs", "target", "weight")
    reduction: str = "mean"

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        logs, target = ins
        if logs != target or not logs.is_float or logs.rank != 2:
            raise ValueError(
                f"log_probs are {logs}, target is {target}; both are (N, classes)\n"
                "labels that are class numbers are declared with dtype='int64'"
            )
        return logs.with_shape(logs.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        logs, target = ins
        return np.asarray(-(target * logs).sum(axis=1))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, target = ins
        return neg(sum_(mul(target, logs, name=f"{name}.each"), 1), name=name)
