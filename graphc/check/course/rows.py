"""The course's affine layers, relu and normalisations: inputs, and usual mistakes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import numpy as np

from graphc import layers
from graphc.check.course.compare import Candidate
from graphc.check.course.formulas import Formulas, table
from graphc.check.course.spec import (
    AFFINE,
    NORM,
    Case,
    Mistake,
    Results,
    Rng,
    Spec,
    by_result,
    pair,
)
from graphc.ir.op import Array

# ------------------------------------------------------------------ inputs


def _affine(rng: Rng) -> Iterator[Case]:
    for shape, units in (((5, 4), 3), ((1, 4), 3), ((2, 3, 4), 5), ((3, 3), 3), ((4, 3), 2)):
        whole = shape == (4, 3)
        draw = partial(rng.integers, -4, 5) if whole else rng.standard_normal
        sizes = (shape, (prod(shape[1:]), units), (units,), (shape[0], units))
        x, w, b, dout = (np.asarray(draw(size), np.float64) for size in sizes)
        yield Case({"x": x, "w": w, "b": b}, dout, note="whole numbers" if whole else "")


def _affine_relu(rng: Rng) -> Iterator[Case]:
    for case in _affine(rng):  # whole numbers and a half: no relu is at its kink
        yield replace(case, arrays={**case.arrays, "b": case.arrays["b"] + 0.5})


def _relu(rng: Rng) -> Iterator[Case]:
    for shape in ((4, 5), (1, 3), (2, 3, 4)):
        yield Case({"x": rng.standard_normal(shape)}, rng.standard_normal(shape))
    x = rng.integers(-1, 2, (5, 6)).astype(np.float64)
    yield Case({"x": x}, rng.standard_normal(x.shape), note="whole numbers")


def _batchnorm(rng: Rng) -> Iterator[Case]:
    train: dict[str, Any] = {"mode": "train"}
    yield batchnorm_case(rng, rng.standard_normal((6, 3)) * 2 + 1, train)
    yield batchnorm_case(rng, rng.standard_normal((3, 3)), train | {"momentum": 0.7})
    yield batchnorm_case(rng, rng.standard_normal((5, 4)), train | {"eps": 0.1}, "eps 0.1")
    whole = rng.integers(-4, 5, (7, 2)).astype(np.float64)
    yield batchnorm_case(rng, whole, train, "whole numbers")
    yield batchnorm_case(rng, rng.standard_normal((1, 3)), train)
    yield batchnorm_case(rng, rng.standard_normal((4, 3)), {"mode": "test"})


def batchnorm_case(rng: Rng, x: Array, param: Mapping[str, Any], note: str = "") -> Case:
    """Return a case of rows or images that are normalised by feature or by channel."""
    shape = x.shape[1:2]
    running = {
        "running_mean": rng.standard_normal(shape),
        "running_var": rng.uniform(0.5, 2.0, shape),
    }
    arrays = {"x": x, "gamma": rng.uniform(0.5, 2, shape), "beta": rng.standard_normal(shape)}
    dout, train = rng.standard_normal(x.shape), param["mode"] == "train"
    return Case(arrays, dout, {**param, **running}, note, has_gradients=train)


def _layernorm(rng: Rng) -> Iterator[Case]:
    for shape, param in (((4, 5), {}), ((3, 6), {"eps": 0.1}), ((1, 4), {}), ((6, 3), {})):
        yield scaled(rng, rng.standard_normal(shape) * 2 + 1, shape[1:], param)


def scaled(
    rng: Rng, x: Array, shape: tuple[int, ...], param: Mapping[str, Any], **more: Any
) -> Case:
    """Return a case of a normalisation with gamma and beta of that shape."""
    arrays = {"x": x, "gamma": rng.uniform(0.5, 2, shape), "beta": rng.standard_normal(shape)}
    note = "eps 0.1" if "eps" in param else ""
    return Case(arrays, rng.standard_normal(x.shape), param, note, more=more)


def _nearest_relu(theirs: Array, case: Case, ours: Array) -> Array:
    """Return the gradient of relu with theirs at 0, if that lies between 0 and dout."""
    between = np.clip(theirs, np.minimum(case.dout, 0), np.maximum(case.dout, 0))
    return np.where(case.x == 0, between, ours)


# ------------------------------------------------------------------ affine and relu


def affine_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    """Yield mistakes in an affine layer of rows, or of the last axis of a sequence."""
    dout, w = case.dout, case.arrays["w"]
    by_step, rows = dout.ndim > 2, dout.reshape(-1, dout.shape[-1])
    if what == "out":
        yield "the bias is not added", ours["out"] - case.arrays["b"]
        if w.shape[0] == w.shape[1]:
            flat = case.x.reshape(-1, w.shape[0])
            text = "the weight is transposed; out is x @ w"
            yield text, (flat @ w.T + case.arrays["b"]).reshape(dout.shape)
    if what == "dx":
        flat = ours["dx"].reshape((len(rows) if by_step else len(case.x)), -1)
        yield "dx keeps the flattened shape; reshape it to x.shape", flat
        if w.shape[0] == w.shape[1]:
            text = "the weight is not transposed; dx is dout @ w.T"
            yield text, (rows @ w).reshape(case.x.shape)
    if what == "db":
        yield from wrong_axis("db", rows)
        if by_step:
            text = "each step overwrites db; add to it with +="
            yield from ((text, dout[:, t].sum(0)) for t in (0, -1))
            text = "the bias gradient is over the wrong axes; db sums dout over rows and steps"
            yield from ((text, dout.sum(axis)) for axis in (0, 1))


def wrong_axis(what: str, dout: Array) -> Iterator[Candidate]:
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
    yield f"each row overwrites {what}; add to it with +=", dout[-1]


def _affine_relu_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    before, cache = layers.affine_forward(*case.arrays.values())
    if what == "out":
        yield "the relu is left out", before
    else:
        positive, at = np.maximum(case.dout, 0), ("dx", "dw", "db").index(what)
        text = "the relu's mask is left out of the backward pass"
        yield text, layers.affine_backward(case.dout, cache)[at]
        text = "the relu's mask is made from dout; make it from the affine output"
        yield text, layers.affine_backward(positive, cache)[at]
    yield from affine_mistakes(what, replace(case, dout=case.dout * (before > 0)), ours)


def _relu_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, dout = case.x, case.dout
    if what == "dx":
        yield "the mask x > 0 is left out", dout
        yield "the mask is made from dout; make it from x", np.maximum(case.dout, 0)
        for mask in (x > 0, x >= 0):
            yield "the mask is inverted; it is x > 0", dout * ~mask
            yield "dout is left out; the chain rule multiplies by it", mask.astype(float)
            yield "the mask keeps x itself; it is 1 where x > 0", dout * x * mask
    else:
        yield "it is the absolute value", np.abs(x)
        yield "it is the part below 0", np.minimum(x, 0)


# ------------------------------------------------------------------ normalisations

_UNBIASED = "unbiased variance (divided by N - 1) where the biased one (divided by N) is meant"
Mean = Callable[[Array], Array]
"""The mean of an array over some axes, in the array's own shape."""

_NORM = Formulas("""
mean = average(x)
centred = x - mean
var = average(centred**2)
std = sqrt(var + eps)
xhat = centred / std
out = gamma * xhat + beta
dxhat = dout * gamma
by_mean = mean_back(dxhat)
by_var = xhat * mean_back(dxhat * xhat)
dx = (dxhat - by_mean - by_var) / std
dgamma = total(dout * xhat)
dbeta = total(dout)
""")
_NORM_MISTAKES = table("""
std = sqrt(var) + eps | eps is added to the standard deviation; add it to the variance
std = sqrt(var) | eps is left out
std = sqrt(var + 1e-5) | eps is always 1e-5, not the one in the dictionary
std = var + eps | divided by the variance; take its square root
xhat = x / std | the mean is not subtracted
out = xhat | gamma and beta are left out
out = gamma * xhat | beta is left out
out = xhat + beta | gamma is left out
out = beta * xhat + gamma | gamma and beta are swapped
dx = dxhat / std | the mean and the variance are treated as constants; they depend on x too
dx = (dxhat - by_mean) / std | the path through the variance is missing
dx = (dxhat - by_var) / std | the path through the mean is missing
dxhat = dout | gamma is left out of dx
dx = dxhat - by_mean - by_var | dx is not divided by the standard deviation
dx = (dxhat - by_mean - by_var) / std * count | dx is not divided by how many numbers the mean is of
dx = (dxhat - by_mean - by_var) / std**3 | dx is divided by the variance, not by the deviation
dx = (dxhat - by_mean + by_var) / std | a sign in dx is wrong: both means are subtracted
dx = (dxhat + by_mean + by_var) / std | the signs in dx are wrong: both means are subtracted
dx = (dxhat + by_mean - by_var) / std | the sign of the mean in dx is wrong: it is subtracted
dgamma = total(dout * x) | dgamma sums dout * x; it takes the normalised x
dgamma = total(dout * centred) | dgamma takes x - mean; divide by the standard deviation
dgamma = total(dout) | dgamma is without xhat: it sums dout * xhat, not dout
dbeta = total(dout * xhat) | dbeta sums dout * xhat; it sums dout
""")


def mean_over(axes: tuple[int, ...], layout: tuple[int, ...]) -> Mean:
    """Return the mean over axes of an array in a layout."""

    def mean(array: Array) -> Array:
        found = array.reshape(layout).mean(axes, keepdims=True)
        return np.broadcast_to(found, layout).reshape(array.shape)

    return mean


def _norm(case: Case, mean: Mean, sums: tuple[int, ...]) -> dict[str, Any]:
    """Return what `_NORM` reads; `sums` are the axes over which dgamma and dbeta are summed."""
    x, gamma, beta = case.arrays.values()
    shape, channels, one = gamma.shape, (-1,) + (1,) * (x.ndim - 2), np.zeros_like(x)
    one.flat[0] = 1

    def total(array: Array) -> Array:
        return np.asarray(array.sum(sums).reshape(shape))

    given: dict[str, Any] = {"x": x, "dout": case.dout}
    given |= {"gamma": gamma.reshape(channels), "beta": beta.reshape(channels)}
    eps, count = float(case.param.get("eps", 1e-5)), round(1 / mean(one).flat[0])
    return {**given, "eps": eps, "count": count, "average": mean, "mean_back": mean, "total": total}


def _norm_mistakes(
    case: Case, ours: Results, given: Mapping[str, Any], others: Mapping[str, Mean]
) -> Iterator[Mistake]:
    """Yield mistakes in a normalisation by its own statistics; `others` are wrong means."""
    unbiased = "var = average(centred**2) * over"
    for over in _over(given["count"]):
        for through in ("", "; by_var = xhat * mean_back(dxhat * xhat) * over"):
            yield _UNBIASED, _NORM.results({**given, "over": over}, unbiased + through)
    yield from ((text, _NORM.results(given, lines)) for text, lines in _NORM_MISTAKES.items())
    for text, mean in others.items():
        yield text, _NORM.results({**given, "average": mean, "mean_back": mean})
        yield text, _NORM.results({**given, "average": mean})
        wrong_back = _NORM.results({**given, "mean_back": mean})
        yield f"{text}; forward has it right", {"dx": wrong_back["dx"]}
    right = _NORM.results(given)
    for what, terms in (("dgamma", case.dout * right["xhat"]), ("dbeta", case.dout)):
        yield from ((text, {what: wrong}) for text, wrong in _sum_mistakes(what, terms, ours[what]))


def _sum_mistakes(what: str, terms: Array, right: Array) -> Iterator[Candidate]:
    """Yield mistakes in the sum of dgamma or dbeta."""
    if terms.ndim == 2:
        yield from wrong_axis(what, terms)
    else:
        text = f"{what} is over the wrong axes; it sums over rows and pixels, axes 0, 2 and 3"
        for axes in ((0,), (2, 3), (0, 2), (1, 2, 3), (0, 1)):
            yield text, terms.sum(axes)
            yield text, terms.sum(axes, keepdims=True)
        shaped = right.ravel() if right.ndim > 1 else right.reshape(1, -1, 1, 1)
        yield f"{what} has not the shape of gamma", shaped
        yield f"{what} is a mean; it is the sum", right * right.size / terms.size


def batchnorm_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield mistakes in a batch normalisation of rows or images."""
    x = case.x
    rows: tuple[int, ...] = (0, 2, 3) if x.ndim == 4 else (0,)
    given = _norm(case, mean_over(rows, x.shape), rows)
    flat = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    for what in ("running_mean", "running_var"):
        yield from ((text, {what: wrong}) for text, wrong in _running(what, case, flat))
    yield from _other_statistics(case, given)
    if case.param["mode"] == "test":
        return
    whose = "channel, over axes 0, 2 and 3" if x.ndim == 4 else "feature, over axis 0"
    places = {"row": (1,), "pixel": (0,), "image's channel": (2, 3), "image": (1, 2, 3)}
    others = {
        f"the statistics are those of each {name}; take those of each {whose}": axes
        for name, axes in (places if x.ndim == 4 else {"row": (1,)}).items()
    }
    others[f"the statistics are one of everything; take one for each {whose}"] = (*range(x.ndim),)
    means = {text: mean_over(axes, x.shape) for text, axes in others.items()}
    yield from _norm_mistakes(case, ours, given, means)
    if x.ndim == 4:
        yield from _not_transposed(case)


def _not_transposed(case: Case) -> Iterator[Mistake]:
    """Yield an image that is reshaped to (-1, C) while its channels are still in axis 1."""
    x, gamma, beta = case.arrays.values()
    out, cache = layers.batchnorm_forward(x.reshape(-1, x.shape[1]), gamma, beta, {**case.param})
    dx, dgamma, dbeta = layers.batchnorm_backward(case.dout.reshape(out.shape), cache)
    found = {"out": out.reshape(x.shape), "dx": dx.reshape(x.shape)}
    text = "x is reshaped to (-1, C) with its channels in axis 1; transpose it before"
    yield text, {**found, "dgamma": dgamma, "dbeta": dbeta}


def _over(count: int) -> tuple[float, ...]:
    """Return the unbiased variance over the biased one; of one number it may be left alone."""
    return (count / (count - 1),) if count > 1 else (np.nan, 1.0)


def _running(what: str, case: Case, rows: Array) -> Iterator[Candidate]:
    """Yield mistakes in running statistics."""
    keep, old = float(case.param.get("momentum", 0.9)), case.param[what]
    batch = rows.mean(0) if what == "running_mean" else rows.var(0)

    def mixed(new: Array) -> Array:
        return np.asarray(keep * old + (1 - keep) * new)

    if what == "running_var":
        for over in _over(len(rows)):
            yield _UNBIASED, mixed(batch * over)
        yield "the standard deviation is averaged, not the variance", mixed(np.sqrt(batch))
        eps = float(case.param.get("eps", 1e-5))
        yield "eps is added to the running variance; add it where it is used", mixed(batch + eps)
    if case.param["mode"] == "test":
        yield f"{what} is updated in test mode", mixed(batch)
    other = "momentum is the share of the old value that is kept; it is used the other way round"
    yield other, (1 - keep) * old + keep * batch
    yield f"{what} is not updated, or not stored back in bn_param", old
    yield f"{what} is the batch's own; mix it with the old one", batch


def _other_statistics(case: Case, given: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield the output with the statistics of the other mode, and mistakes in test mode."""
    mode, channels = case.param["mode"], given["gamma"].shape
    names = ("running_mean", "running_var")
    running = [case.param[name].reshape(channels) for name in names]
    kept = {**given, "kept_mean": running[0], "kept_var": running[1]}
    stored = "mean = kept_mean; var = kept_var"
    if mode == "train":
        found = _NORM.results(kept, stored)
        yield "the running statistics are used in train mode", {"out": found["out"]}
        return
    yield "the batch statistics are used in test mode", {"out": _NORM.results(given)["out"]}
    for text, mistake in _NORM_MISTAKES.items():
        yield text, {"out": _NORM.results(kept, f"{stored}; {mistake}")["out"]}


def _layernorm_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    text = "the statistics are {}; take those of each row, over axis 1"
    others = {"those of each feature, as in batchnorm": (0,), "one of everything": (0, 1)}
    means = {text.format(k): mean_over(axes, case.x.shape) for k, axes in others.items()}
    given = _norm(case, mean_over((1,), case.x.shape), (0,))
    yield from _norm_mistakes(case, ours, given, means)


def groupnorm_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    """Yield mistakes in a normalisation of images by groups of channels."""
    groups, (n, c, *space) = case.more["G"], case.x.shape
    layout, other = (n, groups, c // groups, *space), (n, c // groups, groups, *space)
    text = "the statistics are those of {}; take those of each image's groups of channels"
    means = {
        "G is taken for the size of a group; it is the number of groups": ((2, 3, 4), other),
        text.format("each image, as in layernorm"): ((1, 2, 3), case.x.shape),
        text.format("each channel, as in instancenorm"): ((2, 3), case.x.shape),
        text.format("each group in all images"): ((0, 2, 3, 4), layout),
        "a group is every G-th channel; it is contiguous channels": ((1, 3, 4), other),
    }
    wrong = {text: mean_over(*where) for text, where in means.items()}
    given = _norm(case, mean_over((2, 3, 4), layout), (0, 2, 3))
    yield from _norm_mistakes(case, ours, given, wrong)


SPECS = {
    "affine": Spec(*pair("affine"), AFFINE, _affine, by_result(affine_mistakes), flattens=True),
    "relu": Spec(
        *pair("relu"),
        ("dx",),
        _relu,
        by_result(_relu_mistakes),
        nearest=_nearest_relu,
        flattens=True,
    ),
    "affine_relu": Spec(
        *pair("affine_relu"), AFFINE, _affine_relu, by_result(_affine_relu_mistakes), flattens=True
    ),
    "batchnorm": Spec(*pair("batchnorm"), NORM, _batchnorm, batchnorm_mistakes),
    "layernorm": Spec(*pair("layernorm"), NORM, _layernorm, _layernorm_mistakes),
}
"""Affine layers, relu and normalisations of rows."""
