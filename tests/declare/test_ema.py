"""Exponential moving averages of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.extras import needs

BACKENDS = ("numpy", "native")


def net() -> gc.Net:
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 16)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 16, name="one")))
    scores = gc.affine(h, 3, name="two")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def feeds(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((6, 16)).astype(np.float32), "y": rng.integers(0, 3, 6)}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "optimizer",
    [gc.SGD(0.1, 0.9, ema=0.8), gc.AdamW(0.01, ema=0.8), gc.SGD(0.1, ema=0.8, accumulate=2)],
    ids=["momentum", "adamw", "accumulated"],
)
def test_averages_follow_the_weights(optimizer: gc.optim.Optimizer, backend: str) -> None:
    """As torch.optim.swa_utils averages: the first is a copy."""
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=optimizer, backend=backend), seed=1)
    averages: dict[str, Any] = {}
    for seed in range(6):
        before = int(ex.state["updates"])
        ex.step(feeds(seed))
        if ex.state["updates"] > before:
            for name, w in ex.parameters.items():
                averages[name] = 0.8 * averages[name] + 0.2 * w if name in averages else w
    assert ex.state["ema_updates"] == ex.state["updates"]
    for name, average in averages.items():
        np.testing.assert_allclose(ex.state[f"{name}.ema"], average, rtol=2e-5, atol=1e-6)


def test_torch_averages_the_same() -> None:
    torch = needs("torch")
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=gc.SGD(0.1, ema=0.9)), seed=1)
    holder = torch.nn.Linear(16, 16, bias=False)
    average = torch.optim.swa_utils.AveragedModel(
        holder, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for seed in range(5):
        ex.step(feeds(seed))
        with torch.no_grad():
            holder.weight.copy_(torch.tensor(ex.parameters["one.weight"].copy()))
        average.update_parameters(holder)
    theirs = average.module.weight.detach().numpy()
    np.testing.assert_allclose(ex.state["one.weight.ema"], theirs, rtol=1e-5, atol=1e-7)


def test_the_average_is_part_of_the_product_that_computes_the_gradient() -> None:
    plan = gc.compile(net(), batch=6, optimizer=gc.SGD(0.1, ema=0.9), backend="native")
    text = str(plan.programs["step"])
    gemm = text[: text.index("two.weight.ema.next =")].rpartition("gemm")[2]
    assert "product = " in gemm
    assert "two.weight.next = " in gemm


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_executor_of_the_averages(tmp_path: Path, backend: str) -> None:
    plan = gc.compile(net(), batch=6, optimizer=gc.SGD(0.5, ema=0.5), backend=backend)
    ex = gc.Executor(plan, seed=2)
    first = ex.averaged()
    for name, w in ex.parameters.items():
        np.testing.assert_array_equal(first.parameters[name], w)
    for seed in range(4):
        ex.step(feeds(seed))
    kept = ex.snapshot()
    twin = ex.averaged()
    for name in ex.parameters:
        np.testing.assert_array_equal(twin.parameters[name], kept[f"{name}.ema"])
    x = feeds(9)["x"]
    assert not np.allclose(twin.predict(x), ex.predict(x))
    again = gc.load(gc.save(tmp_path / "averaged.gc", twin))
    np.testing.assert_array_equal(again.predict(x), twin.predict(x))
    np.testing.assert_allclose(gc.freeze(twin, batch=6).predict(x), twin.predict(x), rtol=1e-4)
    twin.step(feeds(5))
    for name, array in ex.snapshot().items():
        np.testing.assert_array_equal(array, kept[name])  # the twin has a state of its own


def test_averages_begin_where_they_are_switched_on(tmp_path: Path) -> None:
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=gc.SGD(0.1)), seed=3)
    for seed in range(3):
        ex.step(feeds(seed))
    again = gc.load(gc.save(tmp_path / "plain.gc", ex), optimizer=gc.SGD(0.1, ema=0.99))
    assert again.state["updates"] == 3
    again.step(feeds(3))
    for name, w in again.parameters.items():
        np.testing.assert_array_equal(again.state[f"{name}.ema"], w)


def test_what_is_frozen_is_its_own_average() -> None:
    optimizer = gc.SGD(0.1, ema=0.9, groups=[gc.Group("one.*", frozen=True)])
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=optimizer), seed=3)
    ex.step(feeds(0))
    assert "one.weight.ema" not in ex.state
    averaged = ex.averaged().parameters["one.weight"]
    np.testing.assert_array_equal(averaged, ex.parameters["one.weight"])


def test_without_averages_there_is_an_error() -> None:
    ex = gc.Executor(gc.compile(net(), batch=6, optimizer=gc.SGD(0.1)))
    with pytest.raises(gc.StateError, match="the optimizer keeps no averages") as caught:
        ex.averaged()
    assert "ema=0.999" in caught.value.hint
