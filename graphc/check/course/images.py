"""The course's layers of images: inputs, and usual mistakes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from graphc import layers
from graphc.check.course.rows import batchnorm_case, batchnorm_mistakes, groupnorm_mistakes, scaled
from graphc.check.course.spec import AFFINE, NORM, Case, Mistake, Results, Rng, Spec, apart, pair
from graphc.ir.op import Array

# ------------------------------------------------------------------ inputs


def _conv(rng: Rng) -> Iterator[Case]:
    for x, w, stride, pad in (
        ((2, 3, 5, 6), (4, 3, 3, 3), 1, 1),
        ((3, 2, 5, 7), (2, 2, 3, 3), 2, 1),
        ((2, 3, 6, 7), (3, 3, 2, 3), 2, 0),
        ((1, 1, 4, 4), (1, 1, 4, 4), 2, 2),
    ):
        spans = zip(x[2:], w[2:], strict=True)
        down, across = ((size + 2 * pad - k) // stride + 1 for size, k in spans)
        arrays = {"x": x, "w": w, "b": w[:1]}
        drawn = {name: rng.standard_normal(shape) for name, shape in arrays.items()}
        dout = rng.standard_normal((x[0], w[0], down, across))
        yield Case(drawn, dout, {"stride": stride, "pad": pad})


def _max_pool(rng: Rng) -> Iterator[Case]:
    for shape, height, width, stride in (
        ((2, 3, 4, 6), 2, 2, 2),
        ((2, 2, 5, 7), 3, 2, 1),
        ((1, 2, 7, 5), 3, 3, 2),
        ((2, 2, 6, 4), 2, 2, 2),
    ):
        ties = shape == (2, 2, 6, 4)
        x = rng.integers(-2, 1, shape) * 1.0 if ties else rng.standard_normal(shape) - 1
        size = ((shape[2] - height) // stride + 1, (shape[3] - width) // stride + 1)
        param = {"pool_height": height, "pool_width": width, "stride": stride}
        dout = rng.standard_normal((*shape[:2], *size))
        yield Case({"x": x}, dout, param, "whole numbers" if ties else "")


def _spatial_batchnorm(rng: Rng) -> Iterator[Case]:
    for shape, param in (
        ((2, 3, 4, 5), {"mode": "train"}),
        ((3, 2, 2, 4), {"mode": "train", "momentum": 0.7, "eps": 0.1}),
        ((1, 3, 3, 2), {"mode": "train"}),
        ((2, 3, 4, 5), {"mode": "test"}),
    ):
        x = rng.standard_normal(shape) * 2 + 1
        yield batchnorm_case(rng, x, param, "eps 0.1" if "eps" in param else "")


def _groupnorm(rng: Rng) -> Iterator[Case]:
    for shape, groups, param in (
        ((2, 6, 3, 4), 2, {}),
        ((3, 6, 2, 2), 3, {"eps": 0.1}),
        ((1, 4, 3, 2), 1, {}),
        ((2, 4, 2, 3), 4, {}),
    ):
        x = rng.standard_normal(shape) * 2 + 1
        yield scaled(rng, x, (1, shape[1], 1, 1), param, G=groups)


def _nearest_pool(theirs: Array, case: Case, ours: Array) -> Array:
    """Return the gradient of a pool without overlaps, shared by equal maxima as theirs is."""
    height, width = (case.param[name] for name in ("pool_height", "pool_width"))
    n, c, down, across = case.dout.shape
    if not height == width == case.param["stride"] or case.x.shape[2:] != (
        down * height,
        across * width,
    ):
        return ours

    def tiles(array: Array) -> Array:
        split = array.reshape(n, c, down, height, across, width)
        return split.transpose(0, 1, 2, 4, 3, 5).reshape(*case.dout.shape, -1)

    x, shares = tiles(case.x), tiles(theirs) / case.dout[..., None]
    hit = x == x.max(-1, keepdims=True)
    fits = np.isclose((shares * hit).sum(-1), 1) & ((shares >= 0) & (shares <= 1) | ~hit).all(-1)
    right = np.where(fits[..., None], np.where(hit, shares, 0) * case.dout[..., None], tiles(ours))
    places = right.reshape(n, c, down, across, height, width).transpose(0, 1, 2, 4, 3, 5)
    return np.asarray(places.reshape(case.x.shape))


def windows(out: Array, size: tuple[int, int], stride: int) -> Iterator[tuple[int, int, Any]]:
    """Yield the place of each window of images, and the index of its pixels."""
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            down, across = i * stride, j * stride
            yield i, j, np.s_[:, :, down : down + size[0], across : across + size[1]]


def _padded(x: Array, pad: int, mode: Literal["constant", "edge", "reflect"] = "constant") -> Array:
    """Return images with pixels around them."""
    return np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)), mode)


def _corner(case: Case, out: Array) -> Array | None:
    """Return the case's dout in the corner of a gradient of `out`, or None if it does not fit."""
    height, width = case.dout.shape[2:]
    if out.shape[2] < height or out.shape[3] < width:
        return None
    dout = np.zeros_like(out)
    dout[:, :, :height, :width] = case.dout
    return dout


def _conv_results(case: Case, arrays: Mapping[str, Array], pad: int, stride: int) -> Results:
    """Return the results of a convolution of other arrays, settings, and a dout that fits."""
    x, w, b = arrays.values()
    out, cache = layers.conv_forward_naive(x, w, b, {"stride": stride, "pad": pad})
    dout = _corner(case, out)
    if dout is None:
        return {"out": out}
    found = dict(zip(("dx", "dw", "db"), layers.conv_backward_naive(dout, cache), strict=True))
    return {"out": out, **found}


def _conv_mistakes(case: Case, ours: Results) -> Iterator[Mistake]:
    x, b, dout = case.x, case.arrays["b"], case.dout
    stride, pad = case.param["stride"], case.param["pad"]
    yield from _conv_changes(case, stride, pad)
    yield "the bias is not added", {"out": ours["out"] - b[:, None, None]}
    height, width = x.shape[2:]
    whole = _conv_results(case, {**case.arrays, "x": _padded(x, pad)}, 0, stride)["dx"]
    yield "dx has the padding around it; cut it off", {"dx": whole}
    cut = whole[:, :, :height, :width]
    yield "the padding is cut off at one end only; dx begins at pixel pad", {"dx": cut}
    text = "db is over the wrong axes; it sums dout over axes 0, 2 and 3"
    for axes in ((0,), (0, 1), (0, 2), (1, 2, 3), (2, 3), (0, 1, 2, 3)):
        yield text, {"db": dout.sum(axes)}
    yield "db is a mean; it is the sum", {"db": dout.mean((0, 2, 3))}
    yield "each window overwrites db; add to it with +=", {"db": dout[-1, :, -1, -1]}
    yield from _last_window(case, stride, pad)


def _conv_changes(case: Case, stride: int, pad: int) -> Iterator[Mistake]:
    """Yield convolutions with another setting, or other filters."""
    x, w, _ = case.arrays.values()
    dense = _conv_results(case, case.arrays, pad, 1)
    height, width = case.dout.shape[2:]
    yield "the stride is ignored", dense
    yield "the stride is ignored", {"out": dense["out"][:, :, :height, :width]}
    if x.shape[2] >= w.shape[2] and x.shape[3] >= w.shape[3]:
        yield "the padding is left out", _conv_results(case, case.arrays, 0, stride)
    flip = "the filters are flipped; the course's convolution does not flip them"
    flipped = _conv_results(case, {**case.arrays, "w": w[:, :, ::-1, ::-1]}, pad, stride)
    yield flip, {name: flipped[name] for name in ("out", "dx")}
    yield flip, {"dw": flipped["dw"][:, :, ::-1, ::-1]}
    if w.shape[2] == w.shape[3]:
        text = "the filters are transposed: height is axis 2, width axis 3"
        other = _conv_results(case, {**case.arrays, "w": w.transpose(0, 1, 3, 2)}, pad, stride)
        yield text, {name: other[name] for name in ("out", "dx")}
    if pad and min(x.shape[2:]) > pad:
        for around in (_padded(x, pad, "edge"), _padded(x, pad, "reflect")):
            other = _conv_results(case, {**case.arrays, "x": around}, 0, stride)
            yield "the padding is not zeros", {"out": other["out"], "dw": other["dw"]}


def _last_window(case: Case, stride: int, pad: int) -> Iterator[Mistake]:
    """Yield gradients in which a window overwrites those before it."""
    x, w, _ = case.arrays.values()
    around = _padded(x, pad)
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
        if max(down, across) > min(case.x.shape[2:]):
            continue
        pool = {"pool_height": down, "pool_width": across, "stride": step}
        out, cache = layers.max_pool_forward_naive(case.x, pool)
        yield text, {"out": out}
        dout = _corner(case, out)
        if dout is not None:
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


SPECS = {
    "conv": Spec(*pair("conv", "_naive"), AFFINE, _conv, apart(_conv_mistakes)),
    "max_pool": Spec(
        *pair("max_pool", "_naive"),
        ("dx",),
        _max_pool,
        apart(_pool_mistakes),
        nearest=_nearest_pool,
    ),
    "spatial_batchnorm": Spec(
        *pair("spatial_batchnorm"), NORM, _spatial_batchnorm, batchnorm_mistakes
    ),
    "spatial_groupnorm": Spec(*pair("spatial_groupnorm"), NORM, _groupnorm, groupnorm_mistakes),
}
"""Convolution, max pool, and normalisations of images."""
