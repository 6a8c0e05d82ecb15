"""The course's losses: inputs, and usual mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from graphc import layers
from graphc.check.course.compare import Candidate
from graphc.check.course.spec import Case, Cases, Nearest, OfResult, Results, Rng, Spec, by_result
from graphc.ir.op import Array

# ------------------------------------------------------------------ inputs


def _loss(rng: Rng) -> Iterator[Case]:
    one = np.ones(())
    for shape in ((6, 4), (1, 3), (3, 3)):
        yield Case({"x": rng.standard_normal(shape), "y": _labels(rng, shape)}, one)
    x = rng.integers(-3, 4, (5, 4)).astype(np.float64)
    yield Case({"x": x, "y": _labels(rng, x.shape)}, one, note="whole numbers")
    x = rng.standard_normal((4, 3)) * 1000
    yield Case({"x": x, "y": _labels(rng, x.shape)}, one, note="scores of a thousand")
    x = rng.standard_normal((4, 3)) + 1000
    yield Case({"x": x, "y": _labels(rng, x.shape)}, one, note="scores near a thousand")


def _labels(rng: Rng, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.integers(0, shape[1], shape[0]))


def _temporal_loss(rng: Rng) -> Iterator[Case]:
    for shape in ((3, 4, 5), (2, 3, 4), (1, 3, 3)):
        mask = rng.uniform(size=shape[:2]) < 0.6
        mask[:, 0], mask[0, -1] = True, False
        y = rng.integers(0, shape[2], shape[:2])
        yield Case({"x": rng.standard_normal(shape), "y": y, "mask": mask}, np.ones(()))
    x = rng.standard_normal((2, 2, 3)) + 1000
    arrays = {
        "x": x,
        "y": np.array([[0, 1], [2, 0]]),
        "mask": np.array([[True, True], [False, True]]),
    }
    yield Case(arrays, np.ones(()), note="scores near a thousand")


def _nearest_svm(theirs: Array, case: Case, ours: Array) -> Array:
    """Return the gradient of the hinge loss with theirs where a margin is met exactly."""
    rows, y = np.arange(len(case.x)), case.arrays["y"]
    margins = case.x - case.x[rows, y][:, None] + 1
    margins[rows, y] = -1
    slope = np.where(margins == 0, np.clip(theirs * len(rows), 0, 1), margins > 0)
    slope[rows, y] = -slope.sum(1)
    return np.asarray(slope / len(rows))


def _loss_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    rows, classes = case.x.shape
    name = "the loss is" if what == "loss" else "dx is"
    if rows > 1:
        yield f"missing /N: {name} a sum over the rows, not their mean", ours[what] * rows
        yield f"{name} divided by N twice", ours[what] / rows
    yield f"{name} divided by the number of classes too", ours[what] / classes


def _svm_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    yield from _loss_mistakes(what, case, ours)
    rows, labels = np.arange(len(case.x)), case.arrays["y"]
    own = "the label's own margin of 1 is counted"
    for value in (0, -1 / len(rows)) if what == "dx" else ():
        wrong = np.array(ours["dx"])
        wrong[rows, labels] = value
        yield "the label's column takes minus the number of violated margins", wrong
    if what == "loss":
        yield f"{own}; leave it out", ours["loss"] + 1
        yield f"{own}, and /N is missing", (ours["loss"] + 1) * len(rows)
    for margin in (0.0, 0.1, 0.5, 2.0, 10.0):
        text, over = f"the margin is {margin:g}, not 1", case.x - case.x[rows, labels][:, None]
        over[rows, labels] = -margin - 1
        over += margin
        loss = np.maximum(over, 0).sum() / len(rows)
        if what == "loss":
            yield text, loss
            if margin:
                yield f"{text}, and the label's own one is counted too", loss + margin
            continue
        for violated in (over > 0, over >= 0):
            slope = violated.astype(float)
            slope[rows, labels] = -slope.sum(1)
            yield text, slope / len(rows)


def _softmax_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    yield from _loss_mistakes(what, case, ours)
    x, y, rows = case.x, case.arrays["y"], np.arange(len(case.x))
    overflow = "exp overflows; subtract each row's largest score first"
    powers = np.exp(x)
    p = powers / powers.sum(1, keepdims=True)
    if what == "dx":
        p[rows, y] -= 1
        yield overflow, p / len(x)
        right = np.array(ours["dx"])
        right[rows, y] += 1 / len(x)
        yield "1 is not subtracted at the labels", right
        yield "1 is not subtracted at the labels, and /N is missing", right * len(x)
        return
    yield overflow, -np.log(p[rows, y]).mean()
    yield overflow, (np.log(powers.sum(1)) - x[rows, y]).mean()
    shifted = np.exp(x - x.max(1, keepdims=True))
    rounded = -np.log((shifted / shifted.sum(1, keepdims=True))[rows, y]).mean()
    text = "the log of a probability that has become 0; the log-probabilities are "
    yield text + "shifted - log(sum(exp(shifted)))", rounded
    yield "the sign is flipped, and exp overflows", np.log(p[rows, y]).mean()


def _temporal_softmax_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, y, mask = case.arrays.values()
    rows, steps = y.shape
    right, name = ours[what], "the loss is" if what == "loss" else "dx is"
    yield f"missing /N: {name} a sum over the rows; divide it by N", right * rows
    yield f"{name} divided by N * T; divide it by N", right / steps
    counted = f"{name} divided by the number of steps that count; divide it by N"
    yield counted, right * rows / max(mask.sum(), 1)
    loss, dx = layers.temporal_softmax_loss(x, y, np.ones_like(mask))
    yield "the mask is left out", loss if what == "loss" else dx
    yield (
        "the mask is inverted: it is true for steps that count",
        dict(zip(("loss", "dx"), layers.temporal_softmax_loss(x, y, ~mask), strict=True))[what],
    )
    hit, powers = np.eye(x.shape[2])[y], np.exp(x)
    p = powers / powers.sum(-1, keepdims=True)
    overflow = "exp overflows; subtract each step's largest score first"
    if what == "dx":
        yield "1 is not subtracted at the labels", right + hit * mask[..., None] / rows
        yield overflow, (p - hit) * mask[..., None] / rows
    else:
        yield overflow, -(np.log((p * hit).sum(-1)) * mask).sum() / rows


def _loss_spec(
    function: Callable[..., Any], cases: Cases, rule: OfResult, nearest: Nearest | None = None
) -> Spec:
    return Spec(function, None, ("dx",), cases, by_result(rule), ("loss",), nearest)


SPECS = {
    "svm_loss": _loss_spec(layers.svm_loss, _loss, _svm_mistakes, _nearest_svm),
    "softmax_loss": _loss_spec(layers.softmax_loss, _loss, _softmax_mistakes),
    "temporal_softmax_loss": _loss_spec(
        layers.temporal_softmax_loss, _temporal_loss, _temporal_softmax_mistakes
    ),
}
"""The losses."""
