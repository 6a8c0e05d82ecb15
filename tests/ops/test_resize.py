"""Values of other sizes: by NumPy's own interpolation, and by PyTorch where it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.op import Array
from tests.extras import needs

X = np.random.default_rng(0).normal(size=(2, 3, 5, 7))
BACKENDS = ("numpy", "native")


def resized(backend: str = "numpy", **options: Any) -> Array:
    net = gc.Net("net", dtype="float64")
    net.output("out", gc.resize(net.input("x", (gc.N, 3, 5, 7)), **options))
    return gc.Executor(gc.compile(net, batch=2, backend=backend)).forward(x=X)["out"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("new", [1, 3, 7, 11, 14])
def test_linear_is_that_of_numpy(backend: str, new: int) -> None:
    at = (np.arange(new) + 0.5) * 7 / new - 0.5
    wanted = np.apply_along_axis(lambda row: np.interp(at, np.arange(7), row), -1, X)
    np.testing.assert_allclose(resized(backend, sizes=[new]), wanted, rtol=1e-12)


def test_corners_meet() -> None:
    found = resized(sizes=[9, 13], places="align_corners")
    np.testing.assert_allclose(found[:, :, ::8, ::12], X[:, :, ::4, ::6], rtol=1e-12)
    np.testing.assert_allclose(found[..., ::2, ::2], X, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearest_of_a_whole_scale_repeats(backend: str) -> None:
    found = resized(backend, scales=[2, 3], mode="nearest", places="asymmetric", rounding="floor")
    np.testing.assert_array_equal(found, X.repeat(2, 2).repeat(3, 3))


@pytest.mark.parametrize(
    ("rounding", "entries"),
    [
        ("floor", [0, 0, 1, 1, 2]),
        ("ceil", [0, 1, 1, 2, 2]),
        ("round_prefer_floor", [0, 0, 1, 1, 2]),
        ("round_prefer_ceil", [0, 1, 1, 2, 2]),
    ],
)
def test_halves_are_rounded_as_asked(rounding: Any, entries: list[int]) -> None:
    """New entries stand at 0, 0.5, 1, 1.5 and 2."""
    net = gc.Net("net", dtype="float64")
    x = net.constant(np.array([0.0, 1.0, 2.0]))
    out = gc.resize(x, [5], mode="nearest", places="align_corners", rounding=rounding)
    net.output("out", out)
    found = gc.Executor(gc.compile(net, batch=1, backend="numpy")).forward()["out"]
    np.testing.assert_array_equal(found, entries)


TORCH: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nearest": (
        {"mode": "nearest", "places": "asymmetric", "rounding": "floor"},
        {"mode": "nearest"},
    ),
    "nearest exact": (
        {"mode": "nearest", "rounding": "round_prefer_ceil"},
        {"mode": "nearest-exact"},
    ),
    "linear": ({}, {"mode": "bilinear"}),
    "linear, corners": ({"places": "align_corners"}, {"mode": "bilinear", "align_corners": True}),
    "cubic": ({"mode": "cubic"}, {"mode": "bicubic"}),
    "cubic, corners": (
        {"mode": "cubic", "places": "align_corners"},
        {"mode": "bicubic", "align_corners": True},
    ),
}


@pytest.mark.parametrize("name", TORCH)
@pytest.mark.parametrize("sizes", [[4, 11], [10, 14], [3, 2]])
def test_pytorch_agrees_also_on_gradients(name: str, sizes: list[int]) -> None:
    torch = needs("torch")
    ours, theirs = TORCH[name]
    net = gc.Net("net", dtype="float64")
    x = net.parameter("x", X.shape, init=X)
    out = gc.resize(x, sizes, **ours)
    net.output("out", out)
    weights = np.random.default_rng(1).normal(size=(2, 3, *sizes))
    net.loss("loss", gc.sum(out * net.constant(weights)))
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.1), backend="numpy"))
    there = torch.tensor(X, requires_grad=True)
    wanted = torch.nn.functional.interpolate(there, size=sizes, **theirs)
    (wanted * torch.tensor(weights)).sum().backward()
    np.testing.assert_allclose(ex.forward(train=True)["out"], wanted.detach(), atol=1e-12)
    np.testing.assert_allclose(ex.backward()["x"], there.grad, atol=1e-12)


def test_mistakes_are_reported() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 4))
    wrong: dict[str, Callable[[], object]] = {
        "mode 'best' is not one of nearest": lambda: gc.resize(x, [8], mode="best"),  # type: ignore[arg-type]
        "either sizes or scales": lambda: gc.resize(x),
        "do not give sizes of 1 or more for 1 axes": lambda: gc.resize(x, [0]),
        r"\[0.1\] do not give sizes": lambda: gc.resize(x, scales=[0.1]),
        "the batch dimension cannot be cut": lambda: gc.resize(x, [4, 8]),
        "axis 2 does not exist": lambda: gc.resize(x, [4], axes=[2]),
    }
    for message, call in wrong.items():
        with pytest.raises(GraphError, match=message):
            call()


@pytest.mark.parametrize("given", [{"sizes": 2}, {"sizes": 2.5}, {"sizes": "ab"}, {"scales": 2}])
def test_a_single_number_is_refused_with_what_to_write(given: dict[str, Any]) -> None:
    with pytest.raises(GraphError, match="is not a size or a factor for each axis") as caught:
        resized(**given)
    assert "scales=(2, 2)" in caught.value.hint
