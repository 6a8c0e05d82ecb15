"""Convolution and max-pool against the numbers that CS231n's notebook prints."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array

CONV = [
    [
        [[-0.08759809, -0.10987781], [-0.18387192, -0.2109216]],
        [[0.21027089, 0.21661097], [0.22847626, 0.23004637]],
        [[0.50813986, 0.54309974], [0.64082444, 0.67101435]],
    ],
    [
        [[-0.98053589, -1.03143541], [-1.19128892, -1.24695841]],
        [[0.69108355, 0.66880383], [0.59480972, 0.56776003]],
        [[2.36270298, 2.36904306], [2.38090835, 2.38247847]],
    ],
]
POOL = [
    [
        [[-0.26315789, -0.24842105], [-0.20421053, -0.18947368]],
        [[-0.14526316, -0.13052632], [-0.08631579, -0.07157895]],
        [[-0.02736842, -0.01263158], [0.03157895, 0.04631579]],
    ],
    [
        [[0.09052632, 0.10526316], [0.14947368, 0.16421053]],
        [[0.20842105, 0.22315789], [0.26736842, 0.28210526]],
        [[0.32631579, 0.34105263], [0.38526316, 0.4]],
    ],
]


def spaced(low: float, high: float, *shape: int) -> Array:
    return np.linspace(low, high, num=int(np.prod(shape))).reshape(shape)


def value(net: gc.Net, y: gc.Value, x: Array, backend: str) -> Any:
    net.output("y", y)
    return gc.Executor(gc.compile(net, batch=2, backend=backend)).forward(x=x)["y"]


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_convolution(backend: str) -> None:
    net = gc.Net("course", dtype="float64")
    x = net.input("x", (gc.N, 3, 4, 4))
    w = net.constant(spaced(-0.2, 0.3, 3, 3, 4, 4))
    b = net.constant(spaced(-0.1, 0.2, 3))
    y = gc.conv(x, w, b, stride=2, padding=1)
    found = value(net, y, spaced(-0.1, 0.5, 2, 3, 4, 4), backend)
    np.testing.assert_allclose(found, CONV, atol=6e-9)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_max_pool(backend: str) -> None:
    net = gc.Net("course", dtype="float64")
    y = gc.max_pool(net.input("x", (gc.N, 3, 4, 4)), 2)
    found = value(net, y, spaced(-0.3, 0.4, 2, 3, 4, 4), backend)
    np.testing.assert_allclose(found, POOL, atol=6e-9)
