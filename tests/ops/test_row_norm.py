"""layernorm and rmsnorm: values and gradients are PyTorch's, on both backends."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError

BACKENDS = ("numpy", "native")
X = np.array([[1.0, -2.0, 0.5, 4.0], [0.0, 3.0, -1.0, 2.0]])
GAMMA, BETA = np.array([1.0, 2.0, -1.0, 0.5]), np.array([0.0, 0.1, 0.2, 0.3])
COTANGENT = np.array([[1.0, 2.0, 3.0, 4.0], [0.5, -1.0, 2.0, 0.0]])

# PyTorch 2.13, float64: layer_norm and rms_norm of X, with eps 1e-5, and backward of COTANGENT.
LAYERNORM = {
    "y": [
        [0.05862097371316394, -2.596564790805541, 0.3758629211394918, 1.0327621714145492],
        [-0.6324542671264065, 2.629817068505626, 1.464908534252813, 0.6162271335632032],
    ],
    "x": [
        [0.012892556929230525, 1.1103745597436343, -1.9145488296089375, 0.7912817129360724],
        [0.8380020304328362, -0.6482658767852615, -0.7747562242491531, 0.5850200706015786],
    ],
    "norm.gamma": [
        -0.2576061598500393,
        -3.9614733250583543,
        -3.0574058319241013,
        5.862097371316394,
    ],
    "norm.beta": [1.5, 1.0, 5.0, 4.0],
}
RMSNORM = {
    "y": [
        [0.4338605072982035, -1.735442029192814, -0.21693025364910176, 0.867721014596407],
        [0.0, 3.2071303213376208, 0.5345217202229368, 0.5345217202229368],
    ],
    "x": [
        [0.4440689706069362, 1.7150251025753487, -1.2964772902402442, 0.9085548678313378],
        [0.2672608601114684, -0.6108832749981147, -1.2217634955951264, 0.3054401102985059],
    ],
    "norm.gamma": [
        0.4338605072982035,
        -3.3390071898616247,
        -0.41825267949856826,
        6.941768116771256,
    ],
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("layer", "expected"), [(gc.layernorm, LAYERNORM), (gc.rmsnorm, RMSNORM)], ids=["layer", "rms"]
)
def test_values_and_gradients(layer, expected, backend: str) -> None:  # type: ignore[no-untyped-def]
    net = gc.Net("norm")
    x, c = (net.input(name, (gc.N, 4), dtype="float64") for name in "xc")
    y = layer(x, name="norm")
    net.output("y", y)
    net.loss("total", gc.sum(y * c))
    wrt = [name for name in expected if name != "y"]
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend, wrt=wrt))
    ex.parameters["norm.gamma"] = GAMMA
    if "norm.beta" in expected:
        ex.parameters["norm.beta"] = BETA
    found = {"y": ex.forward({"x": X, "c": COTANGENT}, train=True)["y"], **ex.backward()}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_of_many_axes_and_rows_of_equal_numbers(backend: str) -> None:
    net = gc.Net("many")
    x = net.input("x", (gc.N, 2, 5))
    net.output("layer", gc.layernorm(x))
    net.output("rms", gc.rmsnorm(x))
    ex = gc.Executor(gc.compile(net, batch=3, backend=backend))
    rows = np.random.default_rng(0).standard_normal((3, 2, 5)).astype(np.float32)
    rows[1] = 4.0
    found = ex.forward(x=rows)
    spread = rows.std(axis=-1, keepdims=True) ** 2 + 1e-5
    wanted = (rows - rows.mean(axis=-1, keepdims=True)) / np.sqrt(spread)
    np.testing.assert_allclose(found["layer"], wanted, atol=1e-5)
    square = (rows**2).mean(axis=-1, keepdims=True) + 1e-5
    np.testing.assert_allclose(found["rms"], rows / np.sqrt(square), rtol=1e-5)


def test_what_is_refused() -> None:
    net = gc.Net("wrong")
    with pytest.raises(GraphError, match="layernorm: eps is 0, it must be above 0"):
        gc.layernorm(net.input("x", (gc.N, 3)), eps=0)
    with pytest.raises(GraphError, match=r"rmsnorm takes floats of shape \(N, ..., features\)"):
        gc.rmsnorm(net.input("flat", (gc.N,)))
