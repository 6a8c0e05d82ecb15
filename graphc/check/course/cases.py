"""The inputs for `check_layer`, and the layers of the course to compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from math import prod
from typing import Any

import numpy as np

from graphc import layers
from graphc.ir.op import Array

Rng = np.random.Generator
Results = Mapping[str, Any]
Candidate = tuple[str, Any]
"""A mistake, and the result that it gives."""


@dataclass(frozen=True)
class Case:
    """One input of a layer: arrays by argument name, a cotangent, and the parameter dictionary."""

    arrays: Mapping[str, Array]
    dout: Array
    param: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    douts: tuple[Array, ...] = ()
    """The cotangents of further outputs."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Arguments between the arrays and the parameter dictionary."""

    @property
    def x(self) -> Array:
        """The layer's input."""
        return self.arrays["x"]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in self.arrays.items())
        given = {**self.more, **self.param}
        plain = [f", {k} {v!r}" for k, v in given.items() if isinstance(v, (int, str))]
        return f"{shapes}{''.join(plain)}{', ' if self.note else ''}{self.note}"


Nearest = Callable[[Array, "Case", Array], Array]
"""From a student's gradient, the case and graphc's gradient to the right one nearest to theirs."""


@dataclass(frozen=True)
class Spec:
    """A layer of the course: its functions, the names of its gradients and outputs, and inputs."""

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    gradients: tuple[str, ...]
    cases: Callable[[Rng], Iterator[Case]]
    outputs: tuple[str, ...] = ("out",)
    nearest: Nearest | None = None
    """For dx at a kink, where any subgradient is right."""

    @property
    def takes_param(self) -> bool:
        """Return whether the forward function takes a parameter dictionary."""
        return [*signature(self.forward).parameters][-1].endswith("_param")

    def results(self, outputs: tuple[Any, ...], param: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs and the running statistics by name."""
        names = [name for name in ("running_mean", "running_var") if name in param]
        return dict(zip(self.outputs, outputs, strict=True)) | {n: param[n] for n in names}


def results_of(spec: Spec, case: Case) -> dict[str, Any]:
    """Return all results of graphc's layer by name."""
    param = deepcopy(dict(case.param))
    *outputs, cache = spec.forward(
        *case.arrays.values(), *case.more.values(), *([param] if spec.takes_param else [])
    )
    if spec.backward is None:
        return {"loss": outputs[0], "dx": cache}
    found = spec.backward(case.dout, *case.douts, cache)
    gradients = found if isinstance(found, tuple) else (found,)
    named = dict(zip(spec.gradients, gradients, strict=True))
    return spec.results(tuple(outputs), param) | named


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
    yield _batchnorm_case(rng, rng.standard_normal((6, 3)) * 2 + 1, train)
    yield _batchnorm_case(rng, rng.standard_normal((3, 3)), train | {"momentum": 0.7})
    yield _batchnorm_case(rng, rng.standard_normal((5, 4)), train | {"eps": 0.1}, "eps 0.1")
    whole = rng.integers(-4, 5, (7, 2)).astype(np.float64)
    yield _batchnorm_case(rng, whole, train, "whole numbers")
    yield _batchnorm_case(rng, rng.standard_normal((1, 3)), train)
    yield _batchnorm_case(rng, rng.standard_normal((4, 3)), {"mode": "test"})


def _batchnorm_case(rng: Rng, x: Array, param: Mapping[str, Any], note: str = "") -> Case:
    shape = x.shape[1:2]
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
    x = rng.standard_normal((4, 3)) + 1000
    yield Case({"x": x, "y": _labels(rng, x.shape)}, one, note="scores near a thousand")


def _labels(rng: Rng, shape: tuple[int, ...]) -> Array:
    return np.asarray(rng.integers(0, shape[1], shape[0]))


def _layernorm(rng: Rng) -> Iterator[Case]:
    for shape, param in (((4, 5), {}), ((3, 6), {"eps": 0.1}), ((1, 4), {}), ((6, 3), {})):
        yield _scaled(rng, rng.standard_normal(shape) * 2 + 1, shape[1:], param)


def _scaled(
    rng: Rng, x: Array, shape: tuple[int, ...], param: Mapping[str, Any], **more: Any
) -> Case:
    """Return a case of a normalisation with gamma and beta of that shape."""
    arrays = {"x": x, "gamma": rng.uniform(0.5, 2, shape), "beta": rng.standard_normal(shape)}
    note = "eps 0.1" if "eps" in param else ""
    return Case(arrays, rng.standard_normal(x.shape), param, note, more=more)


# ------------------------------------------------------------------ inputs: images


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
        yield _batchnorm_case(rng, x, param, "eps 0.1" if "eps" in param else "")


def _groupnorm(rng: Rng) -> Iterator[Case]:
    for shape, groups, param in (
        ((2, 6, 3, 4), 2, {}),
        ((3, 6, 2, 2), 3, {"eps": 0.1}),
        ((1, 4, 3, 2), 1, {}),
        ((2, 4, 2, 3), 4, {}),
    ):
        x = rng.standard_normal(shape) * 2 + 1
        yield _scaled(rng, x, (1, shape[1], 1, 1), param, G=groups)


# ------------------------------------------------------------------ inputs: sequences


def _recurrent(
    gates: int, steps: tuple[int, ...], states: tuple[str, ...], rng: Rng
) -> Iterator[Case]:
    """Yield cases of one step, or of sequences of so many `steps`."""
    for k, (rows, features, width) in enumerate(((3, 4, 5), (2, 3, 3), (1, 2, 4))):
        length = steps[k : k + 1]
        columns = gates * width
        shapes = {"x": (rows, *length, features), **dict.fromkeys(states, (rows, width))}
        shapes |= {"Wx": (features, columns), "Wh": (width, columns), "b": (columns,)}
        arrays = {name: rng.standard_normal(shape) * 0.7 for name, shape in shapes.items()}
        douts = [rng.standard_normal((rows, *length, width)) for _ in states]
        yield Case(arrays, douts[0], douts=tuple(douts[1:]))


def _words(rng: Rng) -> Iterator[Case]:
    for rows, steps, words, size in ((3, 4, 5, 3), (1, 2, 6, 2), (2, 3, 2, 4)):
        arrays = {
            "x": rng.integers(0, words, (rows, steps)),
            "W": rng.standard_normal((words, size)),
        }
        yield Case(arrays, rng.standard_normal((rows, steps, size)))


def _temporal_affine(rng: Rng) -> Iterator[Case]:
    for rows, steps, size, units in ((3, 4, 5, 2), (2, 3, 4, 4), (1, 2, 3, 4), (2, 1, 3, 2)):
        shapes = {"x": (rows, steps, size), "w": (size, units), "b": (units,)}
        arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
        yield Case(arrays, rng.standard_normal((rows, steps, units)))


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


# ------------------------------------------------------------------ subgradients


def _nearest_relu(theirs: Array, case: Case, ours: Array) -> Array:
    """Return the gradient of relu with theirs at 0, if that lies between 0 and dout."""
    between = np.clip(theirs, np.minimum(case.dout, 0), np.maximum(case.dout, 0))
    return np.where(case.x == 0, between, ours)


def _nearest_svm(theirs: Array, case: Case, ours: Array) -> Array:
    """Return the gradient of the hinge loss with theirs where a margin is met exactly."""
    rows, y = np.arange(len(case.x)), case.arrays["y"]
    margins = case.x - case.x[rows, y][:, None] + 1
    margins[rows, y] = -1
    slope = np.where(margins == 0, np.clip(theirs * len(rows), 0, 1), margins > 0)
    slope[rows, y] = -slope.sum(1)
    return np.asarray(slope / len(rows))


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


# ------------------------------------------------------------------ comparison


def close(theirs: Array, ours: Array) -> Array:
    """Return a mask of the entries where two arrays of one shape agree up to rounding."""
    scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
    with np.errstate(invalid="ignore"):
        near = np.abs(theirs - ours) <= 1e-9 * scale + 1e-6 * np.abs(ours)
    return np.asarray((theirs == ours) | (near & np.isfinite(ours)))


def matches(theirs: Array, candidate: Array) -> bool:
    """Return whether an array is the candidate, up to rounding; NaN equals NaN."""
    if theirs.shape != candidate.shape:
        return False
    same = close(theirs, candidate) | (np.isnan(theirs) & np.isnan(candidate))
    return bool(same.all())


def first_match(theirs: Array, mistakes: Iterable[Candidate]) -> str:
    """Return the first of the mistakes whose result equals `theirs`, or ""."""
    return next((text for text, result in mistakes if matches(theirs, np.asarray(result))), "")


def numbers(value: Any) -> Array | None:
    """Return the value as an array of float64, or None if it is not an array of numbers."""
    try:
        array = np.asarray(value)
        return np.asarray(array, np.float64) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None


# ------------------------------------------------------------------ the layers

_AFFINE = ("dx", "dw", "db")
_NORM = ("dx", "dgamma", "dbeta")
_RNN = ("dWx", "dWh", "db")


def _pair(name: str, suffix: str = "") -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return the functions of a layer in `graphc.layers`."""
    return getattr(layers, f"{name}_forward{suffix}"), getattr(layers, f"{name}_backward{suffix}")


SPECS = {
    "affine": Spec(*_pair("affine"), _AFFINE, _affine),
    "relu": Spec(*_pair("relu"), ("dx",), _relu, nearest=_nearest_relu),
    "affine_relu": Spec(*_pair("affine_relu"), _AFFINE, _affine_relu),
    "batchnorm": Spec(*_pair("batchnorm"), _NORM, _batchnorm),
    "layernorm": Spec(*_pair("layernorm"), _NORM, _layernorm),
    "dropout": Spec(*_pair("dropout"), ("dx",), _dropout),
    "svm_loss": Spec(layers.svm_loss, None, ("dx",), _loss, nearest=_nearest_svm),
    "softmax_loss": Spec(layers.softmax_loss, None, ("dx",), _loss),
    "conv": Spec(*_pair("conv", "_naive"), _AFFINE, _conv),
    "max_pool": Spec(*_pair("max_pool", "_naive"), ("dx",), _max_pool, nearest=_nearest_pool),
    "spatial_batchnorm": Spec(*_pair("spatial_batchnorm"), _NORM, _spatial_batchnorm),
    "spatial_groupnorm": Spec(*_pair("spatial_groupnorm"), _NORM, _groupnorm),
    "rnn_step": Spec(
        *_pair("rnn_step"),
        ("dx", "dprev_h", *_RNN),
        partial(_recurrent, 1, (), ("prev_h",)),
        ("next_h",),
    ),
    "rnn": Spec(
        *_pair("rnn"), ("dx", "dh0", *_RNN), partial(_recurrent, 1, (4, 3, 1), ("h0",)), ("h",)
    ),
    "lstm_step": Spec(
        *_pair("lstm_step"),
        ("dx", "dprev_h", "dprev_c", *_RNN),
        partial(_recurrent, 4, (), ("prev_h", "prev_c")),
        ("next_h", "next_c"),
    ),
    "lstm": Spec(
        *_pair("lstm"), ("dx", "dh0", *_RNN), partial(_recurrent, 4, (4, 3, 1), ("h0",)), ("h",)
    ),
    "word_embedding": Spec(*_pair("word_embedding"), ("dW",), _words),
    "temporal_affine": Spec(*_pair("temporal_affine"), _AFFINE, _temporal_affine),
    "temporal_softmax_loss": Spec(layers.temporal_softmax_loss, None, ("dx",), _temporal_loss),
}
"""The layers by the names that `check_layer` takes."""
