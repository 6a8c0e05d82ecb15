"""Weight decay as a number of the state: set between steps, by member, and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.declare.optim.optimizer import Update
from graphc.runtime.reference import initial_state
from passes.update import apply_graph
from tests.updates import parameters, update

ROWS = np.random.default_rng(7)
W = ROWS.standard_normal((3, 4))
X, Y = ROWS.standard_normal((8, 5)), ROWS.integers(0, 3, 8)
OPTIMIZERS: list[gc.optim.Optimizer] = [
    gc.SGD(0.1, weight_decay=0.5),
    gc.SGD(0.1, 0.9, weight_decay=0.5),
    gc.SGD(0.1, 0.9, nesterov=True, weight_decay=0.5),
    *(kind(weight_decay=0.5) for kind in (gc.Adam, gc.AdamW, gc.NAdam, gc.Adamax, gc.Lion)),
    *(kind(weight_decay=0.5) for kind in (gc.RMSprop, gc.Adagrad, gc.Adadelta)),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_it_is_set_between_updates(optimizer: gc.optim.Optimizer) -> None:
    graph = apply_graph(parameters({"w": W}), optimizer)
    state = initial_state(graph, seed=0)
    for t, decay in enumerate((0.5, 0.25, 0.0), 1):
        state["hyper.weight_decay"] = np.asarray(decay)
        g = ROWS.standard_normal(W.shape)
        wanted = optimizer.reference(Update("w", g, decay, float(state["hyper.lr"]), t, state))
        state = update(graph, state, {"w": g})
        for name, array in wanted.items():
            np.testing.assert_allclose(state[name], array, rtol=1e-9, atol=1e-12)


def plan_of(optimizer: gc.optim.Optimizer, backend: str | None = "numpy") -> gc.Plan:
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 5)), net.input("y", (gc.N,), dtype="int64")
    scores = net.output("scores", gc.affine(gc.relu(gc.affine(x, 4, name="body")), 3, name="head"))
    net.loss("loss", gc.softmax_loss(scores, y))
    return gc.compile(net, batch=8, optimizer=optimizer, backend=backend)


@pytest.mark.parametrize("backend", ["numpy", None])
@pytest.mark.parametrize("kind", [gc.SGD, gc.AdamW])
def test_members_have_the_bits_of_plans_that_declare_it(kind: Any, backend: str | None) -> None:
    rates, decays = [0.1, 0.02, 0.1], [0.3, 0.01, 0.0]
    plan = plan_of(kind(lr=0.1, weight_decay=0.3), backend)
    population = gc.Population(plan, members=3, hyper={"lr": rates, "weight_decay": decays})
    for _ in range(3):
        population.step(x=X, y=Y)
    for i, (lr, decay) in enumerate(zip(rates, decays, strict=True)):
        ex = gc.Executor(plan_of(kind(lr=lr, weight_decay=decay), backend), seed=i)
        for _ in range(3):
            ex.step(x=X, y=Y)
        for name, array in ex.state.items():
            assert population.state[name][i].tobytes() == array.tobytes(), (i, name)


def test_groups_have_their_own() -> None:
    groups = (gc.Group("head.*", weight_decay=0.1), gc.Group("body.bias", weight_decay=0.0))
    ex = gc.Executor(plan_of(gc.SGD(0.5, weight_decay=0.2, groups=groups)), seed=0)
    assert dict(ex.hyper) == pytest.approx(
        {"lr": 0.5, "weight_decay": 0.2, "weight_decay.head.*": 0.1}
    )
    ex.hyper["weight_decay"], ex.hyper["weight_decay.head.*"] = 0.0, 0.5
    before = ex.snapshot()
    ex.forward(x=X, y=Y, train=True)
    gradients = ex.backward()
    ex.update()
    for name, g in gradients.items():
        decay = 0.5 if name.startswith("head") else 0.0
        wanted = before[name] - 0.5 * (g + decay * before[name])
        np.testing.assert_allclose(ex.parameters[name], wanted, rtol=1e-5, atol=1e-6)


def test_files_keep_it(tmp_path: Path) -> None:
    ex = gc.Executor(plan_of(gc.Adam(weight_decay=0.5)), seed=0)
    ex.hyper["weight_decay"] = 0.25
    gc.save(tmp_path / "net.gc", ex)
    found = gc.load(tmp_path / "net.gc")
    assert found.hyper["weight_decay"] == 0.25
    assert found.step(x=X, y=Y) == ex.step(x=X, y=Y)
    np.testing.assert_array_equal(found.parameters.flat(), ex.parameters.flat())


def test_what_is_not_declared_cannot_be_set() -> None:
    ex = gc.Executor(plan_of(gc.SGD(0.1)), seed=0)
    with pytest.raises(gc.StateError, match="no hyper-parameter 'weight_decay'") as caught:
        ex.hyper["weight_decay"] = 0.1
    assert "declare one above 0, such as weight_decay=1e-4" in str(caught.value)
    with pytest.raises(gc.StateError, match="'weight_decay' is nan"):
        gc.Executor(plan_of(gc.AdamW())).hyper["weight_decay"] = float("nan")


@pytest.mark.parametrize(("name", "wrong"), [("lr", -1), ("weight_decay", -1), ("clip_norm", 0)])
def test_what_an_optimizer_refuses_cannot_be_set(name: str, wrong: float) -> None:
    with pytest.raises(gc.GraphError, match=f"{name} is {wrong}"):
        gc.AdamW(**{name: wrong})  # type: ignore[arg-type]
    plan = plan_of(gc.AdamW(clip_norm=1.0))
    ex, population = gc.Executor(plan), gc.Population(plan, members=2)
    before = ex.hyper[name]
    with pytest.raises(gc.StateError, match=f"'{name}' is {wrong}"):
        ex.hyper[name] = wrong
    with pytest.raises(gc.StateError, match=f"'{name}' is {wrong}"):
        population.hyper[name] = [1.0, wrong]
    assert ex.hyper[name] == before and (population.hyper[name] == before).all()
