"""The findings of check_layer: what differs, its text, and the mistake that would give it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc import layers
from graphc.check.layer_cases import Case
from graphc.ir.op import Array


@dataclass(frozen=True)
class Finding:
    """A fault: its place (`out`, `dw`, `cache`, ...), text, input, and perhaps its cause."""

    what: str
    text: str
    case: str
    cause: str = ""
    index: tuple[int, ...] | None = None
    theirs: float | None = None
    ours: float | None = None

    def __str__(self) -> str:
        cause = f"\n    likely cause: {self.cause}" if self.cause else ""
        return f"  {self.text}\n    for {self.case}{cause}"


@dataclass(frozen=True)
class LayerReport:
    """The result of `check_layer`; `str(report)` is for reading."""

    layer: str
    findings: tuple[Finding, ...]
    compared: tuple[str, ...]
    cases: int

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        if self.ok:
            return (
                f"check_layer {self.layer}: ok, {_listed(self.compared)} "
                f"{'agrees' if len(self.compared) == 1 else 'agree'} on {self.cases} inputs"
            )
        wrong = _listed([finding.what for finding in self.findings])
        return "\n".join([f"check_layer {self.layer}: wrong in {wrong}", *map(str, self.findings)])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def close(theirs: Array, ours: Array) -> Array:
    """Return a mask of the entries where two arrays of one shape agree up to rounding."""
    scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
    return np.asarray(np.isclose(theirs, ours, rtol=1e-6, atol=1e-9 * scale, equal_nan=False))


def matches(theirs: Any, candidate: Array) -> bool:
    """Return whether an array is the candidate, up to rounding."""
    return (
        isinstance(theirs, np.ndarray)
        and theirs.shape == candidate.shape
        and bool(close(theirs, candidate).all())
    )


def numbers(value: Any) -> Array | None:
    """Return the value as an array of float64, or None if it is not an array of numbers."""
    try:
        array = np.asarray(value)
        return np.asarray(array, np.float64) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None


def difference(what: str, theirs: Any, ours: Any, case: str) -> Finding | None:
    """Return a finding about the worst entry that differs, or None if they agree."""
    mine, array = np.asarray(ours, np.float64), numbers(theirs)
    if array is None:
        return Finding(what, f"{what} is {_kind(theirs)}, it should be an array", case)
    if array.shape != mine.shape:
        text = f"{what} has shape {array.shape}, it should have {mine.shape}"
        return Finding(what, text, case)
    same = close(array, mine)
    if same.all():
        return None
    gap = np.where(same, -1.0, np.nan_to_num(np.abs(array - mine), nan=np.inf))
    index = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
    a, b = float(array[index]), float(mine[index])
    place = f"[{', '.join(map(str, index))}]" if index else ""
    text = f"{what}{place} is {a:.6g}, it should be {b:.6g} (off by {abs(a - b):.3g})"
    return Finding(what, text, case, "", index, a, b)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


# ------------------------------------------------------------------ likely causes

Results = Mapping[str, Any]
Candidate = tuple[str, Any]


def likely_cause(layer: str, what: str, theirs: Any, case: Case, ours: Results) -> str:
    """Return the mistake whose result equals `theirs`, or "" if none is known."""
    array = numbers(theirs)
    if array is None:
        return ""
    if layer == "softmax_loss" and not np.isfinite(array).all():
        return _not_finite(array)
    right = np.asarray(ours[what])
    with np.errstate(all="ignore"):
        for text, candidate in (*_OF[layer](what, case, ours), *_general(right)):
            if matches(array, np.asarray(candidate)):
                return text
    return ""


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


def _affine(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
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
    text = f"the bias gradient is over the wrong axis; {what} sums dout over the rows, axis 0"
    if what != "db":
        text = f"{what} is over the wrong axis; it sums over the rows, axis 0"
    yield text, dout.sum(axis=1)
    yield text, dout.sum(axis=1, keepdims=True)
    yield f"{what} is one sum of everything; sum over the rows only, axis 0", dout.sum()
    yield f"{what} is not summed over the rows, axis 0", dout
    yield (
        f"{what} has a dimension too many; sum with axis 0 and without keepdims",
        dout.sum(axis=0, keepdims=True),
    )


def _affine_relu(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, w, b = case.arrays.values()
    before, cache = layers.affine_forward(x, w, b)
    if what == "out":
        yield "the relu is left out", before
    else:
        unmasked = dict(
            zip(("dx", "dw", "db"), layers.affine_backward(case.dout, cache), strict=True)
        )
        yield "the relu's mask is left out of the backward pass", unmasked[what]
    yield from _affine(what, case, ours)


def _relu(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, dout = case.x, case.dout
    if what == "dx":
        yield "the mask x > 0 is left out", dout
        yield "the gradient at exactly 0 is 0; the mask is x > 0, not x >= 0", dout * (x >= 0)
        yield "the mask is made from dout; make it from x", np.maximum(dout, 0)
        yield "dout is left out; the chain rule multiplies by it", (x > 0).astype(float)
    else:
        yield "it is the absolute value", np.abs(x)


def _batchnorm(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    if what.startswith("running"):
        yield from _running(what, case, ours)
    elif what == "out":
        yield from _normalised(case)
    else:
        yield from _batchnorm_gradients(what, case)


_UNBIASED = "unbiased variance (divided by N - 1) where the biased one (divided by N) is meant"


def _running(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    keep, old = float(case.param.get("momentum", 0.9)), case.param[what]
    batch = case.x.mean(0) if what == "running_mean" else case.x.var(0)
    if what == "running_var":
        yield _UNBIASED, keep * old + (1 - keep) * _var1(case.x)
        yield (
            "the standard deviation is averaged, not the variance",
            keep * old + (1 - keep) * np.sqrt(batch),
        )
    if case.param["mode"] == "test":
        yield f"{what} is updated in test mode", keep * old + (1 - keep) * batch
    yield (
        "momentum is the share of the old value that is kept; it is used the other way round",
        (1 - keep) * old + keep * batch,
    )
    yield f"{what} is not updated, or not stored back in bn_param", old
    yield f"{what} is the batch's own; mix it with the old one", batch


def _var1(x: Array) -> Array:
    return x.var(axis=0, ddof=1) if len(x) > 1 else np.full(x.shape[1], np.nan)


def _normalised(case: Case) -> Iterator[Candidate]:
    x, gamma, beta = case.arrays.values()
    eps, batch = float(case.param.get("eps", 1e-5)), (x.mean(0), x.var(0))
    running = (case.param["running_mean"], case.param["running_var"])
    mean, var = batch if case.param["mode"] == "train" else running
    other = running if case.param["mode"] == "train" else batch

    def out(mean: Array, std: Array) -> Array:
        return np.asarray(gamma * (x - mean) / std + beta)

    yield _UNBIASED, out(mean, np.sqrt(_var1(x) + eps))
    yield (
        "eps is added to the standard deviation; add it to the variance",
        out(mean, np.sqrt(var) + eps),
    )
    yield "eps is left out, or is not the one in bn_param", out(mean, np.sqrt(var))
    yield "eps is left out, or is not the one in bn_param", out(mean, np.sqrt(var + 1e-5))
    yield "divided by the variance; take its square root", out(mean, var + eps)
    used = "running" if case.param["mode"] == "train" else "batch"
    yield (
        f"the {used} statistics are used in {case.param['mode']} mode",
        out(other[0], np.sqrt(other[1] + eps)),
    )
    xhat = (x - mean) / np.sqrt(var + eps)
    yield "gamma and beta are left out", xhat
    yield "beta is left out", gamma * xhat
    yield "gamma is left out", xhat + beta


def _batchnorm_gradients(what: str, case: Case) -> Iterator[Candidate]:
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
        yield (
            "the mean and the variance are treated as constants; they depend on x too",
            gamma / std * dout,
        )
        yield "the path through the variance is missing", gamma / std * (dout - dout.mean(0))
        yield (
            "the path through the mean is missing",
            gamma / std * (dout - xhat * (dout * xhat).mean(0)),
        )
        unscaled = dout - dout.mean(0) - xhat * (dout * xhat).mean(0)
        yield "gamma is left out of dx", unscaled / std


def _loss(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    rows, classes = case.x.shape
    name = "the loss is" if what == "loss" else "dx is"
    if rows > 1:
        yield f"missing /N: {name} a sum over the rows, not their mean", ours[what] * rows
        yield f"{name} divided by N twice", ours[what] / rows
    yield f"{name} divided by the number of classes too", ours[what] / classes


def _svm(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    yield from _loss(what, case, ours)
    rows, labels = np.arange(len(case.x)), case.arrays["y"]
    if what == "loss":
        yield "the label's own margin of 1 is counted; leave it out", ours["loss"] + 1
        yield (
            "the label's own margin of 1 is counted, and /N is missing",
            (ours["loss"] + 1) * len(case.x),
        )
    else:
        without = np.array(ours["dx"])
        without[rows, labels] = 0
        yield "the label's column takes minus the number of violated margins", without
        once = np.array(ours["dx"])
        once[rows, labels] = -1 / len(case.x)
        yield "the label's column takes minus the number of violated margins", once


def _softmax(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    yield from _loss(what, case, ours)
    if what == "dx":
        p = np.array(ours["dx"])
        p[np.arange(len(p)), case.arrays["y"]] += 1 / len(p)
        yield "1 is not subtracted at the labels", p
        yield "1 is not subtracted at the labels, and /N is missing", p * len(p)


_OF: dict[str, Callable[[str, Case, Results], Iterator[Candidate]]] = {
    "affine": _affine,
    "relu": _relu,
    "affine_relu": _affine_relu,
    "batchnorm": _batchnorm,
    "svm_loss": _svm,
    "softmax_loss": _softmax,
}
