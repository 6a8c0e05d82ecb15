"""PyTorch's losses, by graphc.

A loss of graphc is of rows (N, ...): its "mean" is a mean of means, its "sum" is the sum of
the rows' own means, and its "none" gives one number a row.  To count each element as PyTorch does,
they become rows of one element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc as gc
from tests.ops.opinfo.refused import refuse
from tests.ops.opinfo.signatures.extra_axis import without_axes

Value = gc.Value


def by_reduction(loss: Callable[..., Value]) -> Callable[..., Value]:
    """Return a loss that also has PyTorch's two deprecated arguments, and refuses them."""

    def function(*args: Any, size_average: Any = None, reduce: Any = None, **more: Any) -> Value:
        refuse("deprecated arguments", size_average is not None or reduce is not None)
        return loss(*args, **more)

    return function


def _elements(loss: Any, x: Value, y: Value, reduction: str, **more: Any) -> Value:
    """A loss of each element, its weight of x's shape."""
    weight = more.pop("weight", None)
    if x.shape != y.shape:
        x, y = gc.expand(x, y.shape), gc.expand(y, x.shape)
    flat = [gc.reshape(v, (-1,)) for v in (x, y)]
    if weight is not None:  # PyTorch's mean divides by the number of elements
        rows = loss(*flat, reduction="none", **more)
        rows = rows * gc.reshape(gc.broadcast_to(weight, x.shape), (-1,))
        found = {"mean": gc.mean, "sum": gc.sum}.get(reduction, lambda v: v)(rows)
    else:
        found = loss(*flat, reduction=reduction, **more)
    return gc.reshape(found, x.shape) if reduction == "none" else found


def _plain(loss: Any) -> Any:
    @by_reduction
    def function(x: Value, y: Value, reduction: str = "mean") -> Value:
        return _elements(loss, x, y, reduction)

    return function


def huber(x: Value, y: Value, reduction: str = "mean", delta: float = 1.0) -> Value:
    return _elements(gc.huber_loss, x, y, reduction, delta=delta)


@by_reduction
def smooth_l1(x: Value, y: Value, reduction: str = "mean", beta: float = 1.0) -> Value:
    if beta == 0:
        return _elements(gc.mae_loss, x, y, reduction)
    return _elements(gc.huber_loss, x, y, reduction, delta=beta) / beta


@by_reduction
def bce_with_logits(
    x: Value,
    y: Value,
    weight: Value | None = None,
    reduction: str = "mean",
    pos_weight: Value | None = None,
) -> Value:
    refuse("weights of labels that are values", pos_weight is not None)
    return _elements(gc.sigmoid_loss, x, y, reduction, weight=weight)


@by_reduction
def poisson(
    x: Value,
    y: Value,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Value:
    refuse("the part that the target alone makes", full)
    if not log_input:
        each = x - y * gc.log(x + eps)
        return {"mean": gc.mean, "sum": gc.sum}.get(reduction, lambda v: v)(each)
    return _elements(gc.poisson_loss, x, y, reduction)


@by_reduction
def kl_div(x: Value, y: Value, reduction: str = "mean", log_target: bool = False) -> Value:
    target = gc.exp(y) if log_target else y
    if reduction == "batchmean":
        refuse("x has no axes", x.type.rank < 1)
        return gc.kl_loss(*(gc.reshape(v, (v.shape[0], -1)) for v in (x, target)))
    return _elements(_kl_of_each, x, target, reduction)


def _kl_of_each(x: Value, target: Value, *, reduction: str) -> Value:
    return gc.kl_loss(gc.unsqueeze(x, 1), gc.unsqueeze(target, 1), reduction=reduction)


@by_reduction
def nll(
    x: Value,
    y: Value,
    weight: Value | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Value:
    alone = x.type.rank == 1
    rows = (gc.unsqueeze(v, 0) for v in (x, y)) if alone else (x, y)
    ignored = _ignored(ignore_index)
    loss = gc.nll_loss(*rows, class_weight=weight, ignore=ignored, reduction=reduction)
    return gc.reshape(loss, ()) if alone else loss


@by_reduction
def cross_entropy(
    x: Value,
    y: Value,
    weight: Value | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Value:
    return gc.softmax_loss(
        x,
        y,
        class_weight=weight,
        reduction=reduction,
        label_smoothing=label_smoothing,
        ignore=_ignored(ignore_index),
    )


def _ignored(index: int) -> int | None:
    """PyTorch's default ignores a label that no sample has."""
    return None if index == -100 else index


@by_reduction
def multi_margin(
    x: Value, y: Value, p: int = 1, margin: float = 1.0, weight: Any = None, reduction: str = "mean"
) -> Value:
    """PyTorch's is divided by the number of classes."""
    refuse("other powers, margins or weights", (p, margin, weight) != (1, 1.0, None))
    refuse("scores without a batch", x.type.rank != 2)
    return gc.svm_loss(x, y, reduction=reduction) / x.shape[1]


@without_axes
def cosine_similarity(x: Value, y: Value, dim: int = 1, eps: float = 1e-8) -> Value:
    wide = gc.expand(x, y.shape)
    return gc.cosine_similarity(wide, gc.broadcast_to(y, wide.shape), dim, eps=eps)


@by_reduction
def cosine_embedding(
    x: Value, y: Value, target: Value, margin: float = 0, reduction: str = "mean"
) -> Value:
    refuse("vectors without a batch", x.type.rank != 2)
    return gc.cosine_loss(x, y, target, margin=margin, reduction=reduction)


OURS = {
    "nn.functional.mse_loss": _plain(gc.mse_loss),
    "nn.functional.l1_loss": _plain(gc.mae_loss),
    "nn.functional.huber_loss": huber,
    "nn.functional.smooth_l1_loss": smooth_l1,
    "nn.functional.binary_cross_entropy_with_logits": bce_with_logits,
    "nn.functional.poisson_nll_loss": poisson,
    "nn.functional.kl_div": kl_div,
    "nn.functional.nll_loss": nll,
    "nn.functional.cross_entropy": cross_entropy,
    "nn.functional.multi_margin_loss": multi_margin,
    "nn.functional.cosine_similarity": cosine_similarity,
    "nn.functional.cosine_embedding_loss": cosine_embedding,
}
