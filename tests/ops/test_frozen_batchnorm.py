"""batchnorm(frozen=True): running statistics in training, as constants."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc

EPS = 1e-3


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("places", [(), (2, 2)], ids=["rows", "images"])
def test_training_normalises_by_what_was_gathered(places: tuple[int, ...], backend: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3, *places)) * 2 + 1
    push = rng.standard_normal(x.shape)
    net = gc.Net("frozen", dtype="float64")
    value = net.input("x", (gc.N, 3, *places))
    out = net.output("out", gc.batchnorm(value, eps=EPS, frozen=True, name="bn"))
    net.loss("loss", gc.sum(out * net.input("push", (gc.N, 3, *places))))
    plan = gc.compile(
        net, batch=6, optimizer=gc.SGD(0.1), backend=backend, wrt=["x", "bn.gamma", "bn.beta"]
    )
    ex = gc.Executor(plan)
    mean, var = rng.standard_normal(3), rng.uniform(0.5, 2.0, 3)
    gamma, beta = rng.uniform(0.5, 2.0, 3), rng.standard_normal(3)
    ex.state = {
        "bn.running_mean": mean,
        "bn.running_var": var,
        "bn.gamma": gamma,
        "bn.beta": beta,
    }

    def spread(vector: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return vector.reshape(3, *(1 for _ in places))

    xhat = (x - spread(mean)) / np.sqrt(spread(var) + EPS)
    rows = (0, *range(2, x.ndim))
    found = ex.forward(x=x, push=push, train=True)
    np.testing.assert_allclose(found["out"], xhat * spread(gamma) + spread(beta), rtol=1e-12)
    slopes = ex.backward()
    np.testing.assert_allclose(slopes["x"], push * spread(gamma / np.sqrt(var + EPS)), rtol=1e-12)
    np.testing.assert_allclose(slopes["bn.gamma"], (push * xhat).sum(axis=rows), rtol=1e-11)
    np.testing.assert_allclose(slopes["bn.beta"], push.sum(axis=rows), rtol=1e-11)
    np.testing.assert_allclose(ex.forward(x=x)["out"], found["out"], rtol=1e-12)
    ex.step(x=x, push=push)
    np.testing.assert_array_equal(ex.state["bn.running_mean"], mean)
    np.testing.assert_array_equal(ex.state["bn.running_var"], var)
    wanted = gamma - 0.1 * slopes["bn.gamma"]
    np.testing.assert_allclose(ex.parameters["bn.gamma"], wanted, rtol=1e-11)
