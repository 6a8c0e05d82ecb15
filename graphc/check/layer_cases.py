"""The inputs for `check_layer`, the layers to compare with, and the results of usual mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from math import prod
from typing import Any

import numpy as np

from graphc import layers
from graphc.ir.op import Array

Rng = np.random.Generator
Results = Mapping[str, Any]
Candidate = tuple[str, Any]
"""A mistake, and the result that it gives."""
Mistakes = Callable[[str, "Case", Results], Iterator[Candidate]]
"""The usual mistakes in a result of a layer, given its name, the case, and the right results."""


@dataclass(frozen=True)
class Case:
    """One input of a layer: arrays by argument name, a cotangent, and the parameter dictionary."""

    arrays: Mapping[str, Array]
    dout: Array
    param: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def x(self) -> Array:
        """The layer's input."""
        return self.arrays["x"]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.arrays.items())
        mode = f", mode {self.param['mode']!r}" if "mode" in self.param else ""
        return f"{shapes}{mode}{', ' if self.note else ''}{self.note}"


@dataclass(frozen=True)
class Spec:
    """A layer of the course: its functions, the names of its gradients, inputs, usual mistakes."""

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    gradients: tuple[str, ...]
    cases: Callable[[Rng], Iterator[Case]]
    mistakes: Mistakes


def _affine(rng: Rng) -> Iterator[Case]:
    for shape, units in (((5, 4), 3), ((1, 4), 3), ((2, 3, 4), 5), ((3, 3), 3), ((4, 3), 2)):
        whole = shape == (4, 3)
        draw = partial(rng.integers, -4, 5) if whole else rng.standard_normal
        sizes = (shape, (prod(shape[1:]), units), (units,), (shape[0], units))
        x, w, b, dout = (np.asarray(draw(size), np.float64) for size in sizes)
        yield Case({"x": x, "w": w, "b": b}, dout, note="whole numbers" if whole else "")


def _relu(rng: Rng) -> Iterator[Case]:
    for shape in ((4, 5), (1, 3), (2, 3, 4)):
        yield Case({"x": rng.standard_normal(shape)}, rng.standard_normal(shape))
    x = rng.integers(-1, 2, (5, 6)).astype(np.float64)
    yield Case({"x": x}, rng.standard_normal(x.shape), note="whole numbers")


def _batchnorm(rng: Rng) -> Iterator[Case]:
    train: dict[str, Any] = {"mode": "train"}
    yield _batchnorm_case(rng, rng.standard_normal((6, 3)) * 2 + 1, train)
    yield _batchnorm_case(rng, rng.standard_normal((3, 3)), train | {"momentum": 0.7})
    yield _batchnorm_case(rng, rng.standard_normal((5, 4)), train | {"eps": 0.1}, "eps 0.1")
    whole = rng.integers(-4, 5, (7, 2)).astype(np.float64)
    yield _batchnorm_case(rng, whole, train, "whole numbers")
    yield _batchnorm_case(rng, rng.standard_normal((1, 3)), train)
    yield _batchnorm_case(rng, rng.standard_normal((4, 3)), {"mode": "test"})


def _batchnorm_case(rng: Rng, x: Array, param: Mapping[str, Any], note: str = "") -> Case:
    shape = x.shape[1:]
    running = {
        "running_mean": rng.standard_normal(shape),
        "running_var": rng.uniform(0.5, 2.0, shape),
    }
    arrays = {"x": x, "gamma": rng.uniform(0.5, 2, shape), "beta": rng.standard_normal(shape)}
    return Case(arrays, rng.standard_normal(x.shape), {**param, **running}, note)


def _dropout(rng: Rng) -> Iterator[Case]:
    for shape, p in (((200, 50), 0.3), ((100, 10, 10), 0.8), ((1, 3), 0.5)):
        for mode in ("train", "test"):
            x = rng.uniform(0.5, 1.5, shape) * rng.choice([-1.0, 1.0], shape)
            yield Case({"x": x}, rng.uniform(0.5, 1.5, shape), {"mode": mode, "p": p}, f"p {p}")


def _loss(rng: Rng) -> Iterator[Case]:
    one = np.ones(())
    for shape in ((6, 4), (1, 3), (3, 3)):
        yield Case({"x": rng.standard_normal(shape), "y": _labels(rng, shape)}, one)
    x = rng.integers(-3, 4, (5, 4)).astype(np.float64)
    yield Case({"x": x, "y": _labels(rng, x.shape)}, one, note="whole numbers")
    x = rng.standard_normal((4, 3)) * 1000
    yield Case({"x": x, "y": _labels(rng, x.shape)}, one, note="scores of a thousand")


def _labels(rng: Rng, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.integers(0, shape[1], shape[0]))


# ------------------------------------------------------------------ comparison


def close(theirs: Array, ours: Array) -> Array:
    """Return a mask of the entries where two arrays of one shape agree up to rounding."""
    scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
    return np.asarray(np.isclose(theirs, ours, rtol=1e-6, atol=1e-9 * scale, equal_nan=False))


def matches(theirs: Array, candidate: Array) -> bool:
    """Return whether an array is the candidate, up to rounding."""
    return theirs.shape == candidate.shape and bool(close(theirs, candidate).all())


def numbers(value: Any) -> Array | None:
    """Return the value as an array of float64, or None if it is not an array of numbers."""
    try:
        array = np.asarray(value)
        return np.asarray(array, np.float64) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None


# ------------------------------------------------------------------ usual mistakes


def likely_cause(layer: str, what: str, theirs: Any, case: Case, ours: Results) -> str:
    """Return the mistake whose result equals `theirs`, or "" if none is known."""
    array = numbers(theirs)
    if array is None:
        return ""
    if layer == "softmax_loss" and not np.isfinite(array).all():
        return _not_finite(array)
    right = np.asarray(ours[what])
    with np.errstate(all="ignore"):
        return first_match(array, chain(SPECS[layer].mistakes(what, case, ours), _general(right)))


def first_match(theirs: Array, mistakes: Iterable[Candidate]) -> str:
    """Return the first of the mistakes whose result equals `theirs`, or ""."""
    return next((text for text, result in mistakes if matches(theirs, np.asarray(result))), "")


def _not_finite(array: Array) -> str:
    """Return the cause of a softmax that is not finite.

    An overflow gives inf / inf, a probability that is rounded to 0 gives log(0).
    """
    if np.isnan(array).any():
        return "exp overflows; subtract each row's largest score first"
    return (
        "the log of a probability that has become 0; the log-probabilities are "
        "shifted - log(sum(exp(shifted)))"
    )


def _general(right: Array) -> Iterator[Candidate]:
    yield "the sign is flipped", -right
    yield "it is never filled in", np.zeros_like(right)
    if right.ndim == 2:
        yield "it is transposed", right.T


def _affine_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    rows, dout = len(case.x), case.dout
    if what == "out":
        yield "the bias is not added", ours["out"] - case.arrays["b"]
    if what == "dx":
        yield "dx keeps the flattened shape; reshape it to x.shape", ours["dx"].reshape(rows, -1)
    if what == "db":
        yield from _wrong_axis("db", dout)
    if what in ("dx", "dw", "db"):
        yield f"{what} is divided by N; the loss has done that already", ours[what] / rows


def _wrong_axis(what: str, dout: Array) -> Iterator[Candidate]:
    """Yield mistakes in a sum over the rows."""
    text = f"the bias gradient is over the wrong axis; {what} sums dout over the rows, axis 0"
    if what != "db":
        text = f"{what} is over the wrong axis; it sums over the rows, axis 0"
    yield text, dout.sum(axis=1)
    yield text, dout.sum(axis=1, keepdims=True)
    yield f"{what} is one sum of everything; sum over the rows only, axis 0", dout.sum()
    yield f"{what} is not summed over the rows, axis 0", dout
    text = f"{what} has a dimension too many; sum with axis 0 and without keepdims"
    yield text, dout.sum(axis=0, keepdims=True)


def _affine_relu_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, w, b = case.arrays.values()
    before, cache = layers.affine_forward(x, w, b)
    if what == "out":
        yield "the relu is left out", before
    else:
        unmasked = layers.affine_backward(case.dout, cache)[("dx", "dw", "db").index(what)]
        yield "the relu's mask is left out of the backward pass", unmasked
    yield from _affine_mistakes(what, case, ours)


def _relu_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, dout = case.x, case.dout
    if what == "dx":
        yield "the mask x > 0 is left out", dout
        yield "the gradient at exactly 0 is 0; the mask is x > 0, not x >= 0", dout * (x >= 0)
        yield "the mask is made from dout; make it from x", np.maximum(dout, 0)
        yield "dout is left out; the chain rule multiplies by it", (x > 0).astype(float)
    else:
        yield "it is the absolute value", np.abs(x)


def _batchnorm_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    if what.startswith("running"):
        yield from _running(what, case, ours)
    elif what == "out":
        yield from _normalised(case)
    else:
        yield from _batchnorm_gradients(what, case)


_UNBIASED = "unbiased variance (divided by N - 1) where the biased one (divided by N) is meant"


def _running(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    """Yield mistakes in running statistics."""
    keep, old = float(case.param.get("momentum", 0.9)), case.param[what]
    batch = case.x.mean(0) if what == "running_mean" else case.x.var(0)

    def mixed(new: Array) -> Array:
        return np.asarray(keep * old + (1 - keep) * new)

    if what == "running_var":
        yield _UNBIASED, mixed(_var1(case.x))
        yield "the standard deviation is averaged, not the variance", mixed(np.sqrt(batch))
    if case.param["mode"] == "test":
        yield f"{what} is updated in test mode", mixed(batch)
    other = "momentum is the share of the old value that is kept; it is used the other way round"
    yield other, (1 - keep) * old + keep * batch
    yield f"{what} is not updated, or not stored back in bn_param", old
    yield f"{what} is the batch's own; mix it with the old one", batch


def _var1(x: Array) -> Array:
    return x.var(axis=0, ddof=1) if len(x) > 1 else np.full(x.shape[1], np.nan)


def _normalised(case: Case) -> Iterator[Candidate]:
    """Yield mistakes in the output of batch normalisation."""
    x, gamma, beta = case.arrays.values()
    eps, batch = float(case.param.get("eps", 1e-5)), (x.mean(0), x.var(0))
    running = (case.param["running_mean"], case.param["running_var"])
    mean, var = batch if case.param["mode"] == "train" else running
    other = running if case.param["mode"] == "train" else batch

    def out(mean: Array, std: Array) -> Array:
        return np.asarray(gamma * (x - mean) / std + beta)

    yield _UNBIASED, out(mean, np.sqrt(_var1(x) + eps))
    added = "eps is added to the standard deviation; add it to the variance"
    yield added, out(mean, np.sqrt(var) + eps)
    yield "eps is left out, or is not the one in bn_param", out(mean, np.sqrt(var))
    yield "eps is left out, or is not the one in bn_param", out(mean, np.sqrt(var + 1e-5))
    yield "divided by the variance; take its square root", out(mean, var + eps)
    mode = case.param["mode"]
    used = f"the {'running' if mode == 'train' else 'batch'} statistics are used in {mode} mode"
    yield used, out(other[0], np.sqrt(other[1] + eps))
    xhat = (x - mean) / np.sqrt(var + eps)
    yield "gamma and beta are left out", xhat
    yield "beta is left out", gamma * xhat
    yield "gamma is left out", xhat + beta


def _batchnorm_gradients(what: str, case: Case) -> Iterator[Candidate]:
    """Yield mistakes in the gradients of batch normalisation."""
    x, gamma, _ = case.arrays.values()
    dout, rows, eps = case.dout, len(x), float(case.param.get("eps", 1e-5))
    std, std1 = np.sqrt(x.var(0) + eps), np.sqrt(_var1(x) + eps)
    xhat, xhat1 = (x - x.mean(0)) / std, (x - x.mean(0)) / std1
    if what == "dgamma":
        yield _UNBIASED, (dout * xhat1).sum(0)
        yield "dgamma sums dout * x; it takes the normalised x", (dout * x).sum(0)
        yield from _wrong_axis("dgamma", dout * xhat)
    if what == "dbeta":
        yield from _wrong_axis("dbeta", dout)
    if what == "dx":
        slope = dout - dout.mean(0) - xhat1 * (dout * xhat1).sum(0) / max(rows - 1, 1)
        yield _UNBIASED, gamma / std1 * slope
        fixed = "the mean and the variance are treated as constants; they depend on x too"
        through_mean, through_var = dout.mean(0), xhat * (dout * xhat).mean(0)
        yield fixed, gamma / std * dout
        yield "the path through the variance is missing", gamma / std * (dout - through_mean)
        yield "the path through the mean is missing", gamma / std * (dout - through_var)
        yield "gamma is left out of dx", (dout - through_mean - through_var) / std


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
    if what == "loss":
        whole = ours["loss"] + 1
        yield "the label's own margin of 1 is counted; leave it out", whole
        yield "the label's own margin of 1 is counted, and /N is missing", whole * len(rows)
    else:
        for value in (0, -1 / len(rows)):
            wrong = np.array(ours["dx"])
            wrong[rows, labels] = value
            yield "the label's column takes minus the number of violated margins", wrong


def _softmax_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    yield from _loss_mistakes(what, case, ours)
    if what == "dx":
        p = np.array(ours["dx"])
        p[np.arange(len(p)), case.arrays["y"]] += 1 / len(p)
        yield "1 is not subtracted at the labels", p
        yield "1 is not subtracted at the labels, and /N is missing", p * len(p)


def _no_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    yield from ()  # dropout is random: check_layer tests its mask instead


_AFFINE = ("dx", "dw", "db")
SPECS = {
    "affine": Spec(
        layers.affine_forward, layers.affine_backward, _AFFINE, _affine, _affine_mistakes
    ),
    "relu": Spec(layers.relu_forward, layers.relu_backward, ("dx",), _relu, _relu_mistakes),
    "affine_relu": Spec(
        layers.affine_relu_forward,
        layers.affine_relu_backward,
        _AFFINE,
        _affine,
        _affine_relu_mistakes,
    ),
    "batchnorm": Spec(
        layers.batchnorm_forward,
        layers.batchnorm_backward,
        ("dx", "dgamma", "dbeta"),
        _batchnorm,
        _batchnorm_mistakes,
    ),
    "dropout": Spec(
        layers.dropout_forward, layers.dropout_backward, ("dx",), _dropout, _no_mistakes
    ),
    "svm_loss": Spec(layers.svm_loss, None, ("dx",), _loss, _svm_mistakes),
    "softmax_loss": Spec(layers.softmax_loss, None, ("dx",), _loss, _softmax_mistakes),
}
