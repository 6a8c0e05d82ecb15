"""What a net is for: its scores, labels, losses and outputs."""

from __future__ import annotations

from typing import Any

import graphc as gc
from tests.tools.generate.growth import CLASSES, Growth, scalar

REGRESSIONS = (
    gc.mse_loss,
    gc.mae_loss,
    gc.huber_loss,
    gc.sigmoid_loss,
    gc.log_cosh_loss,
    gc.hinge_loss,
    lambda s, t, **options: gc.hinge_loss(s, t, squared=True, **options),
    lambda s, t, **options: gc.poisson_loss(gc.tanh(s), t, **options),
    lambda s, t, **options: gc.sigmoid_loss(s, t, pos_weight=2.5, **options),
)
REDUCTIONS = ("mean", "mean", "sum", "none")


def finish(g: Growth) -> None:
    """Scores of the last value with a loss, and perhaps more losses and outputs."""
    scores = gc.affine(gc.flatten(g.pool[-1]), CLASSES)
    g.net.output("scores", scores)
    y = g.net.input("y", (gc.N,), dtype=g.choice("int64", "int64", "int64", "int32"))
    loss = g.choice(gc.softmax_loss, gc.softmax_loss, gc.svm_loss, _smoothed, _by_class)
    g.net.loss("loss", _of_rows(g, loss, scores, y))
    if g.chance(0.6):
        _regression(g)
    if g.chance(0.1):
        _distributions(g, scores)
    if g.chance(0.1):
        _places(g)
    if g.chance(0.3):
        g.net.loss("penalty", scalar(gc.tanh(g.choice(*g.pool))) * scalar(gc.tanh(scores)))
    if g.chance(0.5):
        g.output("inner", g.choice(*g.pool))
    if g.chance(0.15):
        _plain_outputs(g)


def _smoothed(scores: gc.Value, labels: gc.Value, **options: Any) -> gc.Value:
    return gc.softmax_loss(scores, labels, label_smoothing=0.2, **options)


def _by_class(scores: gc.Value, labels: gc.Value, *, reduction: str, **options: Any) -> gc.Value:
    """Weights of classes, smoothing, and a label that is ignored, though not in all rows."""
    ignore = 1
    weights = [0.5 + i for i in range(CLASSES)]
    return gc.softmax_loss(
        scores,
        labels,
        reduction=reduction,
        class_weight=weights,
        label_smoothing=0.1,
        ignore=ignore,
        **options,
    )


def _distributions(g: Growth, scores: gc.Value) -> None:
    """Targets that are probabilities, and the cosine of two rows."""
    target = gc.softmax(g.input("beliefs", gc.N, CLASSES))
    kinds = gc.softmax_loss, lambda s, t, **o: gc.kl_loss(gc.log_softmax(s), t, **o), _alike
    g.net.loss("belief", _of_rows(g, g.choice(*kinds), gc.tanh(scores), target) * 0.1)


def _alike(a: gc.Value, b: gc.Value, **options: Any) -> gc.Value:
    """Pushes apart what is alike, and the other way round, by the sign of the first number."""
    return gc.cosine_loss(a + 2.0, b, gc.stop_gradient(a[:, 0]), margin=0.2, **options)


def _places(g: Growth) -> None:
    """Scores (N, C, d) of labels (N, d)."""
    found = [v for v in g.pool if v.type.rank == 3 and v.shape[0] == gc.N and g.trained(v)]
    if not found:
        return
    scores = gc.tanh(g.choice(*found))
    fixed = scores.shape[2]
    fed = scores.shape[1] == CLASSES and g.chance(0.5)
    labels = (
        g.input("k", gc.N, fixed, dtype="int64")
        if fed
        else gc.cast(gc.argmax(gc.stop_gradient(scores), axis=1), "int64")
    )
    g.net.loss("places", _of_labels(g, scores, labels))


def _of_labels(g: Growth, scores: gc.Value, labels: gc.Value) -> gc.Value:
    loss = g.choice(gc.softmax_loss, gc.nll_loss)
    reduction = g.choice(*REDUCTIONS)
    value = loss(scores, labels, reduction=reduction, ignore=g.choice(None, 99))
    return gc.mean(value) if reduction == "none" else value


def _of_rows(g: Growth, loss, a: gc.Value, b: gc.Value) -> gc.Value:  # type: ignore[no-untyped-def]
    """The loss with any reduction, and perhaps a weight for each row."""
    weight = g.input("weight", gc.N) if g.chance(0.2) else None
    reduction = g.choice(*REDUCTIONS)
    value: gc.Value = loss(a, b, weight=weight, reduction=reduction)
    if reduction == "none":
        g.output("rows", value)
        return gc.mean(gc.tanh(value))
    return value


def _regression(g: Growth) -> None:
    """How far a value is from a target that is fed, or that is another value."""
    value = g.choice(*g.pool)
    value = g.choice(value, gc.tanh(value), gc.mean(value, -1))
    if not g.trained(value):
        return
    others = [v for v in g.pool if v.shape == value.shape]
    fed = not others or g.chance(0.6)
    target = g.input("target", *value.shape) if fed else g.choice(*others)
    loss = g.choice(*REGRESSIONS)
    g.net.loss("regression", _of_rows(g, loss, value, target) * 0.1)


def _plain_outputs(g: Growth) -> None:
    """Inputs, parameters and reshaped values as outputs."""
    g.output("same", g.pool[0])
    g.output("flat", gc.flatten(g.choice(*g.pool)))
    weights = [w for w, _ in g.shareable]
    if weights:
        g.output("weight_out", g.choice(*weights))
