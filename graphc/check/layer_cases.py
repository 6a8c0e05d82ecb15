"""The inputs that a student's layer is tried on, and our own layers to compare it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc import layers
from graphc.ir.op import Array

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """Arrays by argument name, the dictionary of modes if there is one, and a cotangent."""

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
    """A layer of the course: our pair, the names of its gradients, and its cases."""

    forward: Callable[..., Any]
    backward: Callable[..., Any] | None
    gradients: tuple[str, ...]
    cases: Callable[[Rng], Iterator[Case]]


def _affine(rng: Rng) -> Iterator[Case]:
    for shape, units in (((5, 4), 3), ((1, 4), 3), ((2, 3, 4), 5), ((3, 3), 3)):
        width = int(np.prod(shape[1:]))
        yield _affine_case(rng.standard_normal, shape, width, units, "")

    def whole(shape: tuple[int, ...]) -> Array:
        return np.asarray(rng.integers(-4, 5, shape), np.float64)

    yield _affine_case(whole, (4, 3), 3, 2, "whole numbers")


def _affine_case(
    draw: Callable[[tuple[int, ...]], Array],
    shape: tuple[int, ...],
    width: int,
    units: int,
    note: str,
) -> Case:
    arrays = {"x": draw(shape), "w": draw((width, units)), "b": draw((units,))}
    return Case(arrays, draw((shape[0], units)), note=note)


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


SPECS = {
    "affine": Spec(layers.affine_forward, layers.affine_backward, ("dx", "dw", "db"), _affine),
    "relu": Spec(layers.relu_forward, layers.relu_backward, ("dx",), _relu),
    "affine_relu": Spec(
        layers.affine_relu_forward, layers.affine_relu_backward, ("dx", "dw", "db"), _affine
    ),
    "batchnorm": Spec(
        layers.batchnorm_forward, layers.batchnorm_backward, ("dx", "dgamma", "dbeta"), _batchnorm
    ),
    "dropout": Spec(layers.dropout_forward, layers.dropout_backward, ("dx",), _dropout),
    "svm_loss": Spec(layers.svm_loss, None, ("dx",), _loss),
    "softmax_loss": Spec(layers.softmax_loss, None, ("dx",), _loss),
}
