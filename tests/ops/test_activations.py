"""Activations: values and slopes are PyTorch's, on both backends; far out nothing overflows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError

X = (-25.0, -3.5, -1.0, -0.5, 0.0, 0.5, 1.0, 3.5, 25.0)
# fmt: off
EXPECTED = {
    "leaky_relu": (
        (-0.25, -0.035, -0.01, -0.005, 0.0, 0.5, 1.0, 3.5, 25.0),
        (0.01, 0.01, 0.01, 0.01, 0.01, 1.0, 1.0, 1.0, 1.0),
    ),
    "elu": (
        (-0.999999999986, -0.969802616578, -0.632120558829, -0.393469340287, 0.0, 0.5, 1.0, 3.5,
         25.0),
        (1.3887943865e-11, 0.0301973834223, 0.367879441171, 0.606530659713, 1.0, 1.0, 1.0, 1.0,
         1.0),
    ),
    "selu": (
        (-1.75809934082, -1.70500934096, -1.11133073781, -0.691758187803, 0.0, 0.525350493678,
         1.05070098736, 3.67745345574, 26.2675246839),
        (2.44163849547e-11, 0.0530899998901, 0.646768603035, 1.06634115304, 1.75809934085,
         1.05070098736, 1.05070098736, 1.05070098736, 1.05070098736),
    ),
    "gelu": (
        (-0.0, -0.000814201776624, -0.158655253931, -0.154268769363, 0.0, 0.345731230637,
         0.841344746069, 3.49918579822, 25.0),
        (-1.9134824341e-135, -0.00282176035362, -0.0833154705877, 0.132504875344, 0.5,
         0.867495124656, 1.08331547059, 1.00282176035, 1.0),
    ),
    "gelu tanh": (
        (-0.0, -0.000616197655374, -0.158808009392, -0.154285990175, 0.0, 0.345714009825,
         0.841191990608, 3.49938380234, 25.0),
        (0.0, -0.00242264376012, -0.0829640838458, 0.132630096465, 0.5, 0.867369903535,
         1.08296408385, 1.00242264376, 1.0),
    ),
    "silu": (
        (-3.47198596619e-10, -0.10259280763, -0.26894142137, -0.188770334399, 0.0, 0.311229665601,
         0.73105857863, 3.39740719237, 24.9999999997),
        (-3.3331065275e-10, -0.0702733528277, 0.0723294881285, 0.260038812697, 0.5,
         0.739961187303, 0.927670511871, 1.07027335283, 1.00000000033),
    ),
    "mish": (
        (-3.47198596622e-10, -0.104095754486, -0.303401461374, -0.220743774652, 0.0,
         0.375245211305, 0.865098388267, 3.49399071512, 25.0),
        (-3.33310652754e-10, -0.0727604134433, 0.0592167558774, 0.289510677914, 0.6,
         0.886424375358, 1.0490362201, 1.009939325, 1.0),
    ),
    "softsign": (
        (-0.961538461538, -0.777777777778, -0.5, -0.333333333333, 0.0, 0.333333333333, 0.5,
         0.777777777778, 0.961538461538),
        (0.00147928994083, 0.0493827160494, 0.25, 0.444444444444, 1.0, 0.444444444444, 0.25,
         0.0493827160494, 0.00147928994083),
    ),
    "hard_sigmoid": (
        (0.0, 0.0, 0.333333333333, 0.416666666667, 0.5, 0.583333333333, 0.666666666667, 1.0, 1.0),
        (0.0, 0.0, 0.166666666667, 0.166666666667, 0.166666666667, 0.166666666667, 0.166666666667,
         0.0, 0.0),
    ),
    "hard_swish": (
        (-0.0, -0.0, -0.333333333333, -0.208333333333, 0.0, 0.291666666667, 0.666666666667, 3.5,
         25.0),
        (0.0, 0.0, 0.166666666667, 0.333333333333, 0.5, 0.666666666667, 0.833333333333, 1.0, 1.0),
    ),
    "softplus": (
        (1.38879438649e-11, 0.0297504182726, 0.313261687518, 0.47407698418, 0.69314718056,
         0.97407698418, 1.31326168752, 3.52975041827, 25.0),
        (1.38879438648e-11, 0.0293122307514, 0.26894142137, 0.377540668798, 0.5, 0.622459331202,
         0.73105857863, 0.970687769249, 1.0),
    ),
    "erf": (
        (-1.0, -0.999999256902, -0.84270079295, -0.520499877813, 0.0, 0.520499877813,
         0.84270079295, 0.999999256902, 1.0),
        (4.15340106364e-272, 5.39942677738e-06, 0.415107497421, 0.878782578935, 1.1283791671,
         0.878782578935, 0.415107497421, 5.39942677738e-06, 4.15340106364e-272),
    ),
    "prelu": (
        (-6.25, -0.875, -0.25, -0.125, 0.0, 0.5, 1.0, 3.5, 25.0),
        (0.25, 0.25, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0),
    ),
}
"""By name, the values at X and the slopes there: PyTorch 2.13's, in float64."""
# fmt: on

FUNCTIONS: dict[str, Callable[[gc.Value], gc.Value]] = {
    "leaky_relu": gc.leaky_relu,
    "elu": gc.elu,
    "selu": gc.selu,
    "gelu": gc.gelu,
    "gelu tanh": lambda x: gc.gelu(x, "tanh"),
    "silu": gc.silu,
    "mish": gc.mish,
    "softsign": gc.softsign,
    "hard_sigmoid": gc.hard_sigmoid,
    "hard_swish": gc.hard_swish,
    "softplus": gc.softplus,
    "erf": gc.erf,
    "prelu": gc.prelu,
}
BACKENDS = ("numpy", "native")


def executor(name: str, dtype: str, backend: str) -> gc.Executor:
    """The function of each element, and a loss whose gradient is its slope."""
    net = gc.Net("activation")
    x = net.input("x", (gc.N, 1), dtype=dtype)
    y = FUNCTIONS[name](x)
    net.output("y", y)
    net.loss("total", gc.sum(y))
    plan = gc.compile(net, batch=len(X), backend=backend, wrt=["x"])
    return gc.Executor(plan, seed=0)


@pytest.mark.one_in(7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXPECTED)
def test_values_and_slopes(name: str, dtype: str, backend: str) -> None:
    ex = executor(name, dtype, backend)
    feeds = {"x": np.array(X, dtype)[:, None]}
    found = ex.forward(feeds, train=True)["y"][:, 0]
    slopes = ex.backward()["x"][:, 0]
    values, expected = EXPECTED[name]
    close = {"float32": 2e-6, "float64": 2e-11}[dtype]
    np.testing.assert_allclose(found, values, rtol=close, atol=close)
    np.testing.assert_allclose(slopes, expected, rtol=close, atol=close)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", EXPECTED)
def test_far_out(name: str, backend: str) -> None:
    """No overflow on the side that is not taken reaches value or slope; NaN stays NaN."""
    ex = executor(name, "float32", backend)
    feeds = {"x": np.array([[-1e4], [1e4], [np.nan]], np.float32)}
    found = ex.forward(feeds, train=True)["y"][:, 0]
    slopes = ex.backward()["x"][:, 0]
    assert np.isfinite(found[:2]).all() and np.isfinite(slopes[:2]).all()
    assert np.isnan(found[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_slopes_of_prelu_are_trained(backend: str) -> None:
    net = gc.Net("prelu")
    x = net.input("x", (gc.N, 3))
    net.loss("loss", gc.mean((gc.prelu(x, start=0.0, name="p") - 0.5 * x) ** 2))
    ex = gc.Executor(gc.compile(net, batch=32, optimizer=gc.SGD(lr=0.5), backend=backend), seed=0)
    rows = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    for _ in range(200):
        ex.step(x=rows)
    np.testing.assert_allclose(ex.parameters["p.slope"], 0.5, rtol=1e-3)


def test_what_is_refused() -> None:
    net = gc.Net("wrong")
    labels = net.input("labels", (gc.N,), dtype="int64")
    with pytest.raises(GraphError, match="x is int64, gelu takes floats"):
        gc.gelu(labels)
    with pytest.raises(GraphError, match="form 'exact' is not one of erf, tanh"):
        gc.gelu(net.input("x", (gc.N, 2)), "exact")  # type: ignore[arg-type]
    with pytest.raises(GraphError, match=r"prelu takes floats of shape \(N, features"):
        gc.prelu(net.input("flat", (gc.N,)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["elu", "selu"])
def test_small_numbers_below_zero_keep_their_digits(name: str, backend: str) -> None:
    x = -np.logspace(-30, 1, 500, dtype=np.float32)[:, None]
    net = gc.Net("small")
    net.output("y", FUNCTIONS[name](net.input("x", (gc.N, 1))))
    y = gc.Executor(gc.compile(net, batch=len(x), backend=backend)).predict(x)
    alpha = {"elu": 1.0, "selu": 1.6732632423543772 * 1.0507009873554805}[name]
    np.testing.assert_allclose(y, alpha * np.expm1(x.astype(float)), rtol=1e-6)
