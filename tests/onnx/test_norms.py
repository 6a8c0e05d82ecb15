"""Norms whose attributes are nowhere the default: in other runtimes, and read back."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load, to_proto
from tests.onnx.runtimes import by_both

EPS = 0.37
"""About as large as the variances and mean squares, so that results depend much on it."""
MEAN = "batchnorm_1.running_mean"


def net_of_norms() -> gc.Net:
    net = gc.Net("norms")
    x = net.input("x", (gc.N, 4, 3, 5))
    net.output("layer", gc.layernorm(x, eps=EPS))
    net.output("rms", gc.rmsnorm(x, eps=EPS))
    net.output("groups", gc.groupnorm(x, 2, eps=EPS))
    net.output("channels", gc.groupnorm(x, 4, eps=EPS))
    net.output("instance", gc.instancenorm(x, eps=EPS))
    net.output("batch", gc.batchnorm(x, eps=EPS, running_decay=0.7))
    net.output("frozen", gc.batchnorm(x, eps=EPS, running_decay=0.7, frozen=True))
    net.output("cosine", gc.cosine_similarity(x, x[:, :, :, ::-1], eps=1.5))
    return net


def normalized(x: Array, axes: tuple[int, ...]) -> Array:
    centred = x - x.mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axes, keepdims=True) + EPS))


def by_hand(x: Array, train: bool) -> dict[str, Array]:
    size = np.maximum(np.sqrt((x**2).sum(-1)), 1.5)
    still = x / np.sqrt(1 + EPS)  # by running statistics that are the first ones
    return {
        "layer": normalized(x, (3,)),
        "rms": x / np.sqrt((x**2).mean(-1, keepdims=True) + EPS),
        "groups": normalized(x.reshape(-1, 2, 30), (2,)).reshape(x.shape),
        "channels": normalized(x, (2, 3)),
        "instance": normalized(x, (2, 3)),
        "batch": normalized(x, (0, 2, 3)) if train else still,
        "frozen": still,
        "cosine": (x * x[..., ::-1]).sum(-1) / size**2,
    }


@pytest.mark.parametrize("train", [False, True])
def test_no_attribute_is_lost(train: bool) -> None:
    net = net_of_norms()
    proto = to_proto(net, train=train)
    x = np.random.default_rng(0).normal(size=(3, 4, 3, 5)).astype(np.float32)
    wanted = by_hand(x.astype(np.float64), train)
    back = gc.Executor(gc.compile(load(proto), batch=3, backend="numpy"))
    results = [("graphc", back.forward(x=x, train=train)), *by_both(proto, {"x": x})]
    for who, found in results:
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, 1e-4, 1e-5, err_msg=f"{who}: {name}")
        if train:
            mean = found.get(f"{MEAN}.next", back.state[MEAN])
            np.testing.assert_allclose(mean, 0.3 * x.mean((0, 2, 3)), 1e-4, 1e-6, err_msg=who)
