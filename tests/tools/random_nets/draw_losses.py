"""Losses with all their options, similarities, and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .calls import Rows
from .draw_shapes import scores
from .drawer import Drawer, Var


def options(d: Drawer, rows: Any = None) -> dict[str, Any]:
    """Return a weight and a reduction, as all losses take them."""
    found: dict[str, Any] = {}
    if d.chance(0.4):
        found["weight"] = d.input(rows or (Rows(),), "weights")
    if d.chance(0.4):
        found["reduction"] = d.one(["mean", "sum", "none"])
    return found


def lose(d: Drawer, name: str, *args: Any, **kwargs: Any) -> None:
    """Draw a loss; what has no reduction gets one, and some are weighed."""
    made = d.call(f"gc.{name}", *args, **kwargs)
    how = kwargs.get("reduction", "mean")
    if how == "none":
        how = d.one(["sum", "mean"])
        made = d.call(f"gc.{how}", made)
        how = "sum" if "weight" in kwargs else how
    if d.chance(0.2):
        made = d.call("gc.mul", made, d.number(0.1, 1))
    mixed = any(isinstance(a, Var) and a.mixed for a in [*args, *kwargs.values()])
    d.losses[made.name] = "mixed" if mixed else how


def places(d: Drawer) -> tuple[Var, tuple[Any, ...]]:
    """Return scores (N, C) or (N, C, d1, ...), and the shape of their labels."""
    if d.chance(0.3):
        v = d.batched(low=3, high=4)
        return v, (v.shape[0], *v.shape[2:])
    return scores(d), (Rows(),)


def label_loss(name: str) -> Callable[[Drawer], None]:
    def draw(d: Drawer) -> None:
        v, rows = places(d)
        count = int(v.shape[1])  # type: ignore[arg-type]
        extra = options(d, rows)
        if name == "softmax_loss" and d.chance(0.3):
            extra["label_smoothing"] = d.number(0, 0.9)
        if name == "softmax_loss" and d.chance(0.15):
            lose(d, name, v, d.input(v.shape, "shares"), **extra)
            return
        kind = "labels"
        if d.chance(0.35):
            weights = np.round(d.rng.uniform(0.2, 2, count), 2)
            extra["class_weight"] = d.parameter((count,)) if d.chance(0.1) else weights.tolist()
            if isinstance(extra["class_weight"], Var):
                extra["class_weight"] = d.above(extra["class_weight"])
        if d.chance(0.3):
            extra["ignore"], kind = d.one([-1, 0, -100]), "labels"
        labels = d.input(rows, kind, count)
        d.ignored[str(d.calls[-1].args[0])] = extra.get("ignore")
        if name == "nll_loss":
            v = d.call("gc.log_softmax", v, 1)
        lose(d, name, v, labels, **extra)

    return draw


def svm_loss(d: Drawer) -> None:
    v = scores(d)
    lose(d, "svm_loss", v, d.input((Rows(),), "labels", v.width), **options(d))


def numbers(name: str, kind: str) -> Callable[[Drawer], None]:
    """Return what draws a loss of two values of one shape."""

    def draw(d: Drawer) -> None:
        v = d.batched()
        extra = options(d)
        if name == "sigmoid_loss" and d.chance(0.3):
            extra["pos_weight"] = d.number(0.3, 3)
            if v.rank == 2 and d.chance(0.4):
                extra["pos_weight"] = [d.number(0.3, 3) for _ in range(v.width)]
        if name == "hinge_loss":
            extra["squared"] = d.chance(0.5)
        args = (d.number(0.2, 2),) if name == "huber_loss" and d.chance(0.6) else ()
        if name == "poisson_loss":
            v = d.small(v)
        other = d.pick(lambda o: o.real and o.shape == v.shape and o is not v)
        take = kind == "normal" and other is not None and d.chance(0.3)
        lose(d, name, v, other if take else d.input(v.shape, kind), *args, **extra)

    return draw


def kl_loss(d: Drawer) -> None:
    v = scores(d)
    logs = d.call("gc.log_softmax", v)
    lose(d, "kl_loss", logs, d.input(v.shape, "shares"), **options(d))


def cosine_loss(d: Drawer) -> None:
    v = scores(d)
    other = d.pick(lambda o: o.real and o.shape == v.shape and o is not v) or d.input(v.shape)
    extra = {"margin": d.number(-0.5, 0.5)} if d.chance(0.5) else {}
    lose(d, "cosine_loss", v, other, d.input((Rows(),), "signs"), **options(d), **extra)


def cosine_similarity(d: Drawer) -> None:
    v = d.batched(low=2)
    other = d.pick(lambda o: o.real and o.shape == v.shape) or v
    d.call("gc.cosine_similarity", v, other, -1)


def accuracy(d: Drawer) -> None:
    v = scores(d)
    d.call("gc.accuracy", v, d.input((Rows(),), "labels", v.width))


def mean_absolute_error(d: Drawer) -> None:
    v = d.batched()
    d.call("gc.mean_absolute_error", v, d.input(v.shape))


DRAWS: dict[str, Callable[[Drawer], None]] = {
    **{name: label_loss(name) for name in ("softmax_loss", "nll_loss")},
    "softmax_loss_again": label_loss("softmax_loss"),
    "svm_loss": svm_loss,
    "sigmoid_loss": numbers("sigmoid_loss", "unit"),
    "hinge_loss": numbers("hinge_loss", "signs"),
    "poisson_loss": numbers("poisson_loss", "counts"),
    **{
        f"{name}_loss": numbers(f"{name}_loss", "normal")
        for name in ("mse", "mae", "huber", "log_cosh")
    },
    "kl_loss": kl_loss,
    "cosine_loss": cosine_loss,
    "cosine_similarity": cosine_similarity,
    "accuracy": accuracy,
    "mean_absolute_error": mean_absolute_error,
}
