"""The results of usual mistakes in the course's layers of rows, images and scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc import layers
from graphc.check.layer_cases import Candidate, Case, Results
from graphc.ir.op import Array

Mistake = tuple[str, Results]
"""A mistake, and the results that it changes."""
Mistakes = Callable[[Case, Results], Iterator[Mistake]]
"""The usual mistakes in a layer, given the case and the right results."""
OfResult = Callable[[str, Case, Results], Iterator[Candidate]]
"""The usual mistakes in a result of a layer, given its name, the case and the right results."""


def by_result(rule: OfResult) -> Mistakes:
    """Return the mistakes in all results of a layer, by a rule for each."""

    def mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
        for what in ours:
            for text, result in rule(what, case, ours):
                yield text, {what: result}

    return mistakes


def of_result(what: str, mistakes: Iterable[Mistake]) -> Iterator[Candidate]:
    """Yield of mistakes that change several results what they do to one of them."""
    for text, results in mistakes:
        if what in results:
            yield text, results[what]


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
    if what in ("dx", "dw", "db"):
        yield f"{what} is divided by N; the loss has done that already", ours[what] / len(dout)


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
        for text, changed in (
            ("the relu's mask is left out of the backward pass", case.dout),
            ("the relu's mask is made from dout; make it from the affine output", _positive(case)),
        ):
            wrong = layers.affine_backward(changed, cache)
            yield text, wrong[("dx", "dw", "db").index(what)]
    yield from affine_mistakes(what, replace(case, dout=case.dout * (before > 0)), ours)


def _positive(case: Case) -> Array:
    return np.maximum(case.dout, 0)


def _relu_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, dout = case.x, case.dout
    if what == "dx":
        yield "the mask x > 0 is left out", dout
        yield "the mask is made from dout; make it from x", _positive(case)
        for mask in (x > 0, x >= 0):
            yield "the mask is turned round; it is x > 0", dout * ~mask
            yield "dout is left out; the chain rule multiplies by it", mask.astype(float)
            yield "the mask keeps x itself; it is 1 where x > 0", dout * x * mask
    else:
        yield "it is the absolute value", np.abs(x)
        yield "it is the part below 0", np.minimum(x, 0)


# ------------------------------------------------------------------ normalisations

_UNBIASED = "unbiased variance (divided by N - 1) where the biased one (divided by N) is meant"
Mean = Callable[[Array], Array]
"""The mean of an array over some axes, in the array's own shape."""


def mean_over(axes: tuple[int, ...], layout: tuple[int, ...]) -> Mean:
    """Return the mean over axes of an array in a layout."""

    def mean(array: Array) -> Array:
        found = array.reshape(layout).mean(axes, keepdims=True)
        return np.broadcast_to(found, layout).reshape(array.shape)

    return mean


@dataclass(frozen=True)
class _Norm:
    """A normalisation of one case; gamma and beta broadcast over x."""

    x: Array
    gamma: Array
    beta: Array
    dout: Array
    eps: float
    mean: Mean
    """The mean over the axes of the statistics."""
    others: Mapping[str, Mean]
    """Means over wrong axes, by what there is to say."""
    sums: tuple[int, ...]
    """The axes over which dgamma and dbeta are summed."""
    param: str
    """The name of the parameter dictionary."""
    shape: tuple[int, ...]
    """The shape of dgamma and dbeta."""

    def statistics(self) -> tuple[Array, Array]:
        """Return the mean and the variance."""
        mean = self.mean(self.x)
        return mean, self.mean((self.x - mean) ** 2)

    @property
    def count(self) -> float:
        """How many numbers a mean is of."""
        one = np.zeros_like(self.x)
        one.flat[0] = 1
        return float(1 / self.mean(one).flat[0])

    def total(self, array: Array) -> Array:
        """Return the sum of an array over rows and pixels, in the shape of dgamma."""
        return np.asarray(array.sum(self.sums).reshape(self.shape))

    def results(
        self, mean: Array, std: Array, *, over: float = 1.0, sums: Mean | None = None
    ) -> dict[str, Array]:
        """Return all results with such statistics; the last term of dx is multiplied by `over`."""
        xhat, dxhat, average = (self.x - mean) / std, self.dout * self.gamma, sums or self.mean
        slope = dxhat - average(dxhat) - over * xhat * average(dxhat * xhat)
        out, dgamma = self.gamma * xhat + self.beta, self.total(self.dout * xhat)
        return {"out": out, "dx": slope / std, "dgamma": dgamma}


def _norm_mistakes(what: str, case: Case, norm: _Norm) -> Iterator[Candidate]:
    """Yield mistakes in a normalisation by its own statistics."""
    mean, var = norm.statistics()
    yield from of_result(what, _of_statistics(norm, mean, var))
    std = np.sqrt(var + norm.eps)
    xhat = (norm.x - mean) / std
    if what == "out":
        yield from _unscaled(norm, xhat)
    elif what == "dx":
        yield from _dx_mistakes(norm, xhat, std)
    elif what == "dgamma":
        yield "dgamma sums dout * x; it takes the normalised x", norm.total(norm.dout * norm.x)
        centred = norm.total(norm.dout * (norm.x - mean))
        yield "dgamma takes x - mean; divide that by the standard deviation", centred
        yield "dgamma is without xhat: it sums dout * xhat, not dout", norm.total(norm.dout)
        yield from _sum_mistakes(what, norm, norm.dout * xhat)
    elif what == "dbeta":
        yield "dbeta sums dout * xhat; it sums dout", norm.total(norm.dout * xhat)
        yield from _sum_mistakes(what, norm, norm.dout)


def _of_statistics(norm: _Norm, mean: Array, var: Array) -> Iterator[Mistake]:
    """Yield what wrong statistics do to all results."""
    count = norm.count
    for over in (count / (count - 1),) if count > 1 else (np.nan, 1.0):  # of one number, or none
        wide = np.sqrt(var * over + norm.eps)
        yield _UNBIASED, norm.results(mean, wide, over=over)
        yield _UNBIASED, norm.results(mean, wide)
    added = "eps is added to the standard deviation; add it to the variance"
    yield added, norm.results(mean, np.sqrt(var) + norm.eps)
    yield "eps is left out", norm.results(mean, np.sqrt(var))
    fixed = f"eps is always 1e-5, not the one in {norm.param}"
    yield fixed, norm.results(mean, np.sqrt(var + 1e-5))
    yield "divided by the variance; take its square root", norm.results(mean, var + norm.eps)
    std = np.sqrt(var + norm.eps)
    yield "the mean is not subtracted", {"out": norm.gamma * norm.x / std + norm.beta}
    for text, average in norm.others.items():
        other = replace(norm, mean=average)
        middle, spread = other.statistics()
        yield text, other.results(middle, np.sqrt(spread + norm.eps))
        yield f"{text}; forward has it right", {"dx": norm.results(mean, std, sums=average)["dx"]}


def _unscaled(norm: _Norm, xhat: Array) -> Iterator[Candidate]:
    yield "gamma and beta are left out", xhat
    yield "beta is left out", norm.gamma * xhat
    yield "gamma is left out", xhat + norm.beta
    yield "gamma and beta are swapped", norm.beta * xhat + norm.gamma


def _dx_mistakes(norm: _Norm, xhat: Array, std: Array) -> Iterator[Candidate]:
    dxhat = norm.dout * norm.gamma
    through_mean, through_var = norm.mean(dxhat), xhat * norm.mean(dxhat * xhat)
    fixed = "the mean and the variance are treated as constants; they depend on x too"
    yield fixed, dxhat / std
    yield "the path through the variance is missing", (dxhat - through_mean) / std
    yield "the path through the mean is missing", (dxhat - through_var) / std
    plain = norm.dout - norm.mean(norm.dout) - xhat * norm.mean(norm.dout * xhat)
    yield "gamma is left out of dx", plain / std
    whole = dxhat - through_mean - through_var
    yield "dx is not divided by the standard deviation", whole
    yield "dx is not divided by how many numbers the mean is of", whole / std * norm.count
    yield "dx is divided by the variance; divide it by the standard deviation", whole / std**2
    plus = "a sign in dx is wrong: both means are subtracted"
    yield plus, (dxhat - through_mean + through_var) / std
    yield plus, (dxhat + through_mean - through_var) / std
    yield plus, (dxhat + through_mean + through_var) / std


def _sum_mistakes(what: str, norm: _Norm, terms: Array) -> Iterator[Candidate]:
    """Yield mistakes in the sum of dgamma or dbeta."""
    if terms.ndim == 2:
        yield from wrong_axis(what, terms)
    else:
        text = f"{what} is over the wrong axes; it sums over rows and pixels, axes 0, 2 and 3"
        for axes in ((0,), (2, 3), (0, 2), (1, 2, 3), (0, 1)):
            yield text, terms.sum(axes)
            yield text, terms.sum(axes, keepdims=True)
        right = norm.total(terms)
        shaped = right.ravel() if right.ndim > 1 else right.reshape(1, -1, 1, 1)
        yield f"{what} has not the shape of gamma", shaped
        count = norm.x.size // right.size
        yield f"{what} is a mean; it is the sum", right / count
    yield f"{what} is divided by N; the loss has done that already", norm.total(terms) / len(terms)


def _batchnorm_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    norm = _batchnorm(case)
    rows = np.moveaxis(case.x, 1, -1).reshape(-1, case.x.shape[1])
    if what.startswith("running"):
        yield from _running(what, case, rows)
        return
    if what == "out":
        yield from _other_statistics(case, norm)
    if case.param["mode"] == "test":
        return
    yield from _norm_mistakes(what, case, norm)
    if case.x.ndim == 4:
        yield from of_result(what, _not_transposed(case))


def _batchnorm(case: Case) -> _Norm:
    """Return batch normalisation of rows or images."""
    x, gamma, beta = case.arrays.values()
    channels = (-1,) + (1,) * (x.ndim - 2)
    rows: tuple[int, ...] = (0, 2, 3) if x.ndim == 4 else (0,)
    whose = "channel, over axes 0, 2 and 3" if x.ndim == 4 else "feature, over axis 0"
    text = f"the statistics are those of each {{}}; take those of each {whose}"
    others = {"row": (1,), "pixel": (0,), "image's channel": (2, 3), "image": (1, 2, 3)}
    if x.ndim == 2:
        others = {"row": (1,)}
    means = {text.format(name): mean_over(axes, x.shape) for name, axes in others.items()}
    means["the statistics are one of everything; take one for each " + whose] = mean_over(
        tuple(range(x.ndim)), x.shape
    )
    return _Norm(
        x,
        gamma.reshape(channels),
        beta.reshape(channels),
        case.dout,
        float(case.param.get("eps", 1e-5)),
        mean_over(rows, x.shape),
        means,
        rows,
        "bn_param",
        gamma.shape,
    )


def _not_transposed(case: Case) -> Iterator[Mistake]:
    """Yield an image that is reshaped to (-1, C) while its channels are still in axis 1."""
    x, gamma, beta = case.arrays.values()
    out, cache = layers.batchnorm_forward(x.reshape(-1, x.shape[1]), gamma, beta, {**case.param})
    dx, dgamma, dbeta = layers.batchnorm_backward(case.dout.reshape(out.shape), cache)
    found = {"out": out.reshape(x.shape), "dx": dx.reshape(x.shape)}
    text = "x is reshaped to (-1, C) with its channels in axis 1; transpose it before"
    yield text, {**found, "dgamma": dgamma, "dbeta": dbeta}


def _running(what: str, case: Case, rows: Array) -> Iterator[Candidate]:
    """Yield mistakes in running statistics."""
    keep, old = float(case.param.get("momentum", 0.9)), case.param[what]
    batch = rows.mean(0) if what == "running_mean" else rows.var(0)

    def mixed(new: Array) -> Array:
        return np.asarray(keep * old + (1 - keep) * new)

    if what == "running_var":
        for over in (len(rows) / (len(rows) - 1),) if len(rows) > 1 else (np.nan, 1.0):
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


def _other_statistics(case: Case, norm: _Norm) -> Iterator[Candidate]:
    """Yield the output with the statistics of the other mode, and mistakes in test mode."""
    mode, channels = case.param["mode"], norm.gamma.shape
    running = [case.param[name].reshape(channels) for name in ("running_mean", "running_var")]
    used, (mean, var) = ("running", running) if mode == "train" else ("batch", norm.statistics())
    text = f"the {used} statistics are used in {mode} mode"
    yield text, norm.results(mean, np.sqrt(var + norm.eps))["out"]
    if mode == "test":
        mean, var = running
        yield "eps is left out", norm.results(mean, np.sqrt(var))["out"]
        added = "eps is added to the standard deviation; add it to the variance"
        yield added, norm.results(mean, np.sqrt(var) + norm.eps)["out"]
        squared = "divided by the variance; take its square root"
        yield squared, norm.results(mean, var + norm.eps)["out"]
        yield from _unscaled(norm, (norm.x - mean) / np.sqrt(var + norm.eps))


def _layernorm_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, gamma, beta = case.arrays.values()
    rows = "take those of each row, over axis 1"
    others = {
        f"the statistics are those of each feature, as in batchnorm; {rows}": (0,),
        f"the statistics are one of everything; {rows}": (0, 1),
    }
    means = {text: mean_over(axes, x.shape) for text, axes in others.items()}
    eps = float(case.param.get("eps", 1e-5))
    mean = mean_over((1,), x.shape)
    norm = _Norm(x, gamma, beta, case.dout, eps, mean, means, (0,), "ln_param", gamma.shape)
    yield from _norm_mistakes(what, case, norm)


def _groupnorm_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    x, gamma, beta = case.arrays.values()
    groups, (n, c, *space) = case.more["G"], x.shape
    size = c // groups
    layout = (n, groups, size, *space)
    text = "the statistics are those of {}; take those of each image's groups of channels"
    of_size = "G is taken for the size of a group; it is the number of groups"
    means = {
        of_size: mean_over((2, 3, 4), (n, size, groups, *space)),
        text.format("each image, as in layernorm"): mean_over((1, 2, 3), x.shape),
        text.format("each channel, as in instancenorm"): mean_over((2, 3), x.shape),
        text.format("each group in all images"): mean_over((0, 2, 3, 4), layout),
    }
    if 1 < groups < c:
        means["a group is every G-th channel; it is contiguous channels"] = mean_over(
            (1, 3, 4), (n, size, groups, *space)
        )
    eps = float(case.param.get("eps", 1e-5))
    mean, sums = mean_over((2, 3, 4), layout), (0, 2, 3)
    norm = _Norm(x, gamma, beta, case.dout, eps, mean, means, sums, "gn_param", gamma.shape)
    yield from _norm_mistakes(what, case, norm)


# ------------------------------------------------------------------ losses


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


# ------------------------------------------------------------------ images


def windows(out: Array, size: tuple[int, int], stride: int) -> Iterator[tuple[int, int, Any]]:
    """Yield the place of each window of images, and the index of its pixels."""
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            down, across = (
                slice(k * stride, k * stride + n) for k, n in zip((i, j), size, strict=True)
            )
            yield i, j, (slice(None), slice(None), down, across)


def _conv_results(case: Case, arrays: Mapping[str, Array], pad: int, stride: int) -> Results:
    """Return the results of a convolution of other arrays, settings, and a dout that fits."""
    x, w, b = arrays.values()
    out, cache = layers.conv_forward_naive(x, w, b, {"stride": stride, "pad": pad})
    height, width = case.dout.shape[2:]
    dout = np.zeros_like(out)
    fits = out.shape[2] >= height and out.shape[3] >= width
    if not fits:
        return {"out": out}
    dout[:, :, :height, :width] = case.dout
    found = dict(zip(("dx", "dw", "db"), layers.conv_backward_naive(dout, cache), strict=True))
    return {"out": out, **found}


def _conv_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    x, b, dout = case.x, case.arrays["b"], case.dout
    stride, pad = case.param["stride"], case.param["pad"]
    yield from _conv_changes(case, stride, pad)
    yield "the bias is not added", {"out": ours["out"] - b[:, None, None]}
    height, width = x.shape[2:]
    around = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    whole = _conv_results(case, {**case.arrays, "x": around}, 0, stride)["dx"]
    yield "dx has the padding around it; cut it off", {"dx": whole}
    cut = whole[:, :, :height, :width]
    yield "the padding is cut off at one end only; dx begins at pixel pad", {"dx": cut}
    text = "db is over the wrong axes; it sums dout over axes 0, 2 and 3"
    for axes in ((0,), (0, 1), (0, 2), (1, 2, 3), (2, 3), (0, 1, 2, 3)):
        yield text, {"db": dout.sum(axes)}
    yield "db is a mean; it is the sum", {"db": dout.mean((0, 2, 3))}
    yield "each window overwrites db; add to it with +=", {"db": dout[-1, :, -1, -1]}
    yield from _last_window(case, stride, pad)
    for name in ("dx", "dw", "db"):
        text = f"{name} is divided by N; the loss has done that already"
        yield text, {name: ours[name] / len(x)}


def _conv_changes(case: Case, stride: int, pad: int) -> Iterator[Mistake]:
    """Yield convolutions with another setting, or other filters."""
    x, w, _ = case.arrays.values()
    if stride > 1:
        dense = _conv_results(case, case.arrays, pad, 1)
        yield "the stride is ignored", dense
        height, width = case.dout.shape[2:]
        yield "the stride is ignored", {"out": dense["out"][:, :, :height, :width]}
    if pad and x.shape[2] >= w.shape[2] and x.shape[3] >= w.shape[3]:
        yield "the padding is left out", _conv_results(case, case.arrays, 0, stride)
    flip = "the filters are flipped; the course's convolution does not flip them"
    flipped = _conv_results(case, {**case.arrays, "w": w[:, :, ::-1, ::-1]}, pad, stride)
    yield flip, {name: flipped[name] for name in ("out", "dx")}
    yield flip, {"dw": flipped["dw"][:, :, ::-1, ::-1]}
    if w.shape[2] == w.shape[3]:
        text = "the filters are transposed: height is axis 2, width axis 3"
        turned = _conv_results(case, {**case.arrays, "w": w.transpose(0, 1, 3, 2)}, pad, stride)
        yield text, {name: turned[name] for name in ("out", "dx")}
    if pad and min(x.shape[2:]) > pad:
        pads = ((0, 0), (0, 0), (pad, pad), (pad, pad))
        for around in (
            np.pad(x, pads, "edge"),
            np.pad(x, pads, "reflect"),
            np.pad(x, pads, "wrap"),
        ):
            other = _conv_results(case, {**case.arrays, "x": around}, 0, stride)
            yield "the padding is not zeros", {"out": other["out"], "dw": other["dw"]}


def _last_window(case: Case, stride: int, pad: int) -> Iterator[Mistake]:
    """Yield gradients in which a window overwrites those before it."""
    x, w, _ = case.arrays.values()
    around = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    one, of_all = np.zeros_like(around), np.zeros_like(around)
    dw_of_one, dw_of_all = np.zeros_like(w), np.zeros_like(w)
    for i, j, index in windows(case.dout, w.shape[2:], stride):
        dout = case.dout[:, :, i, j]
        one[index] = dout[:, -1, None, None, None] * w[-1]
        of_all[index] = np.einsum("nf,fchw->nchw", dout, w)
        dw_of_one = dout[-1, :, None, None, None] * around[index][-1]
        dw_of_all = np.einsum("nf,nchw->fchw", dout, around[index])
    text = "each window overwrites {}; add to it with +="
    inner = np.s_[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]]
    for dx, dw in ((one, dw_of_one), (of_all, dw_of_all)):
        yield text.format("dx"), {"dx": dx[inner]}
        yield text.format("dw"), {"dw": dw}


def _pool_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    pool, out = case.param, ours["out"]
    size, stride = (pool["pool_height"], pool["pool_width"]), pool["stride"]
    yield from _pool_changes(case, size, stride)
    yield from _pool_gradients(case, out, size, stride)
    mean, least = np.zeros_like(out), np.zeros_like(out)
    for i, j, index in windows(out, size, stride):
        mean[:, :, i, j] = case.x[index].mean((2, 3))
        least[:, :, i, j] = case.x[index].min((2, 3))
    yield "it is the mean of each window", {"out": mean}
    yield "it is the sum of each window", {"out": mean * size[0] * size[1]}
    yield "it is the smallest number of each window", {"out": least}
    yield "the maximum starts at 0; a window may be below it", {"out": np.maximum(out, 0)}


def _pool_changes(case: Case, size: tuple[int, int], stride: int) -> Iterator[Mistake]:
    """Yield pools with other settings."""
    (height, width), shape = size, case.dout.shape
    changes = [
        ("the stride is ignored", height, width, 1),
        ("the stride is taken for the size of the window", stride, stride, stride),
        ("pool_height and pool_width are swapped", width, height, stride),
        ("pool_height is used for both sides of the window", height, height, stride),
        ("pool_width is used for both sides of the window", width, width, stride),
        ("the windows do not overlap: the size is taken for the stride", height, width, height),
    ]
    for text, down, across, step in changes:
        if (down, across, step) == (height, width, stride) or max(down, across) > min(
            case.x.shape[2:]
        ):
            continue
        pool = {"pool_height": down, "pool_width": across, "stride": step}
        out, cache = layers.max_pool_forward_naive(case.x, pool)
        yield text, {"out": out}
        if out.shape[2] >= shape[2] and out.shape[3] >= shape[3]:
            dout = np.zeros_like(out)
            dout[:, :, : shape[2], : shape[3]] = case.dout
            dx = layers.max_pool_backward_naive(dout, cache)
            yield text, {"out": out[:, :, : shape[2], : shape[3]], "dx": dx}


def _pool_gradients(
    case: Case, out: Array, size: tuple[int, int], stride: int
) -> Iterator[Mistake]:
    """Yield gradients that go to other places of the windows than the largest one."""
    texts = (
        "each of several equal maxima takes all of the gradient; one of them takes it",
        "the gradient is spread over the whole window; only the largest number takes it",
        "all of the window takes the gradient; only the largest number takes it",
        "each window overwrites dx; add to it with +=",
        "each window overwrites dx; add to it with +=",
        "dout is left out; the chain rule multiplies by it",
    )
    found = [np.zeros_like(case.x) for _ in texts]
    for i, j, index in windows(out, size, stride):
        place = case.dout[:, :, i, j, None, None]
        hit = case.x[index] == out[:, :, i, j, None, None]
        first = _first(hit)
        found[0][index] += place * hit
        found[1][index] += place / (size[0] * size[1])
        found[2][index] += place
        found[3][index] = np.where(first, place, found[3][index])
        found[4][index] = place * first
        found[5][index] += first
    yield from ((text, {"dx": dx}) for text, dx in zip(texts, found, strict=True))


def _first(hit: Array) -> Array:
    """Return the first true place of each window (N, C, h, w)."""
    flat = hit.reshape(*hit.shape[:2], -1)
    places = np.arange(flat.shape[2]) == flat.argmax(2)[..., None]
    return np.asarray((places & flat).reshape(hit.shape))


def _no_mistakes(what: str, case: Case, ours: Results) -> Iterator[Candidate]:
    yield from ()  # dropout is random: check_layer tests its mask instead


MISTAKES: dict[str, Mistakes] = {
    "affine": by_result(affine_mistakes),
    "relu": by_result(_relu_mistakes),
    "affine_relu": by_result(_affine_relu_mistakes),
    "batchnorm": by_result(_batchnorm_mistakes),
    "layernorm": by_result(_layernorm_mistakes),
    "dropout": by_result(_no_mistakes),
    "svm_loss": by_result(_svm_mistakes),
    "softmax_loss": by_result(_softmax_mistakes),
    "conv": _conv_mistakes,
    "max_pool": _pool_mistakes,
    "spatial_batchnorm": by_result(_batchnorm_mistakes),
    "spatial_groupnorm": by_result(_groupnorm_mistakes),
    "temporal_affine": by_result(affine_mistakes),
}
"""The mistakes of layers of rows, images and scores."""
