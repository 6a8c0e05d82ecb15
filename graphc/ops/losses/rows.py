"""Losses between two rows of numbers: cosine, divergence, soft targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.base.arguments import checked_number
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.apply import with_attributes
from graphc.ops.elementwise import div, mul, sub
from graphc.ops.functions import log, sqrt
from graphc.ops.losses.base import RowLoss, apply_loss, loss_function
from graphc.ops.select import greater, maximum, relu, where
from graphc.ops.sums import sum_

__all__ = ["cosine_loss", "cosine_similarity", "kl_loss"]

EPS = 1e-8
"""The lower limit of each norm, so that rows of zeros have the cosine 0."""


@with_attributes(
    example=("(N, 3)", "x, y", "(N,)"),
    also='y = net.input("y", (gc.N, 3))',
    b="Floats whose shapes broadcast.",
    eps="The lower limit of each norm, so that the cosine with a vector of zeros is 0.",
    name="The name of the result; the other nodes are named `<name>.part`.",
    returns="Of the broadcast shape without the axis.",
    raises="If the operands do not fit each other, or there is no such axis.",
)
def cosine_similarity(
    a: Value, b: Value, axis: int = -1, *, eps: float = EPS, name: str | None = None
) -> Value:
    """Return the cosine of the angle between a and b along an axis.

    It is sum(a * b) / (max(|a|, eps) * max(|b|, eps)).
    """
    builder = as_value("cosine_similarity", a).builder
    node = builder.free_name("cosine_similarity", name)
    with builder.all_or_nothing():
        return _cosine(a, b, axis, eps, node)


def _cosine(a: Value, b: Value, axis: int, eps: float, node: str) -> Value:
    """Return the cosine of a and b along an axis."""
    product = sum_(mul(a, b), axis, name=f"{node}.product")
    norm_a, norm_b = _norm(a, axis, eps, f"{node}.norm_a"), _norm(b, axis, eps, f"{node}.norm_b")
    return div(product, mul(norm_a, norm_b), name=node)


def _norm(x: Value, axis: int, eps: float, name: str) -> Value:
    """Return the norm of x, at least eps under the root, so that the gradient at 0 is finite."""
    return sqrt(maximum(sum_(mul(x, x), axis), eps * eps), name=name)


@dataclass(frozen=True)
class CosineLoss(RowLoss):
    """1 - cos of two rows whose target is above 0, else max(0, cos - margin)."""

    roles: ClassVar[tuple[str, ...]] = ("a", "b", "target", "weight")
    margin: float = 0.0

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (N,); raise ValueError unless a and b have one shape and target one per row."""
        a, b, target = ins
        if a != b or not a.is_float or a.rank != 2:
            raise ValueError(f"a is {a}, b is {b}; both are floats of one shape (N, features)")
        if target != a.with_shape(a.shape[:1]):
            raise ValueError(
                f"target is {target}, it must be {a.with_shape(a.shape[:1])}\n"
                "1 is for rows that are alike, -1 for others"
            )
        return target

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        a, b, target = ins
        norms = (np.sqrt(np.maximum((x * x).sum(axis=1), EPS * EPS)) for x in (a, b))
        cosine = (a * b).sum(axis=1) / np.prod(list(norms), axis=0)
        apart = np.maximum(cosine - self.margin, 0)
        return np.asarray(np.where(target > 0, 1 - cosine, apart)).astype(a.dtype, copy=False)

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        first, second, target = ins
        cosine = _cosine(first, second, 1, EPS, f"{name}.cosine")
        apart = relu(sub(cosine, self.margin), name=f"{name}.apart")
        return where(greater(target, 0.0), sub(1.0, cosine), apart, name=name)


@loss_function(
    "x",
    "t",
    "sign",
    a="Floats (N, features).",
    b="Floats of the same shape.",
    target="1 for rows that are alike, -1 for others: floats (N,).",
    margin="The cosine, from -1 to 1, up to which rows that are not alike have no loss.",
)
def cosine_loss(
    a: Value,
    b: Value,
    target: Value,
    *,
    margin: float = 0.0,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return 1 - cos(a, b) where the target is 1, max(0, cos(a, b) - margin) where it is -1."""
    hint = "it is a cosine; 0 to 0.5 is usual"
    margin = checked_number("cosine_loss: margin", margin, least=-1, most=1, hint=hint)
    return apply_loss(CosineLoss(reduction, margin), a, b, target, weight=weight, name=name)


class KlLoss(RowLoss):
    """sum(t * (log t - l)) of each row of log-probabilities l and targets t; 0 where t is 0."""

    roles: ClassVar[tuple[str, ...]] = ("log_probs", "target", "weight")

    def infer_rows(self, ins: Sequence[TensorType]) -> TensorType:
        """Return (N,); raise ValueError unless both are floats of one shape, at least of rank 2."""
        logs, target = ins
        if logs != target or not logs.is_float or logs.rank < 2:
            raise ValueError(
                f"log_probs are {logs}, target is {target}; both have one shape (N, ...)\n"
                "targets are probabilities, such as gc.softmax(scores)"
            )
        return logs.with_shape(logs.shape[:1])

    def reference_rows(self, ins: Sequence[Array]) -> Array:
        logs, target = ins
        each = target * (np.log(np.where(target > 0, target, 1)) - logs)
        return np.asarray(each.sum(axis=tuple(range(1, each.ndim))))

    def rows(self, b: Builder, ins: Sequence[Value], name: str) -> Value:
        logs, target = ins
        known = log(where(greater(target, 0.0), target, 1.0), name=f"{name}.log_target")
        each = mul(target, sub(known, logs), name=f"{name}.each")
        return sum_(each, tuple(range(1, logs.type.rank)), name=name)


@loss_function(
    "x",
    "t",
    log_probs="The logarithms of predicted probabilities: floats (N, ...).",
    target="Probabilities, of the same shape; a row's loss is the sum over its elements.",
)
def kl_loss(
    log_probs: Value,
    target: Value,
    *,
    weight: Value | None = None,
    reduction: str = "mean",
    name: str | None = None,
) -> Value:
    """Return the Kullback-Leibler divergence of the target from a prediction.

    S. Kullback, R. Leibler, "On information and sufficiency", 1951 (doi:10.1214/aoms/1177729694).
    "mean" is what PyTorch calls batchmean.
    """
    return apply_loss(KlLoss(reduction), log_probs, target, weight=weight, name=name)
