"""Targets that follow others, and states that the net itself updates, in training alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.mistakes.harness import first_line

Array = Any
CRITIC, ACTOR = gc.SGD(0.1, name="critic"), gc.SGD(0.05, name="actor")
RULES = gc.UpdateRule("td", "critic/*", CRITIC), gc.UpdateRule("policy", "actor/*", ACTOR)


def net(rate: float = 0.25) -> gc.Net:
    """The actor's loss reads the target, so that a rule comes after the critic's with it."""
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 3))
    values = {}
    for name in ("critic", "target"):
        with net.block(name):
            values[name] = gc.affine(x, 1, name="value")
    with net.block("actor"):
        move = gc.affine(x, 1, name="move")
    net.output("move", move)
    net.loss("td", gc.mean((values["critic"] - 0.5 * values["target"] - 1) ** 2))
    net.loss("policy", gc.mean((move - values["target"]) ** 2))
    gc.track(net, "target/*", of="critic/*", rate=rate)
    return net


def plan(**options: Any) -> gc.Plan:
    return gc.compile(net(), batch=4, **{"backend": "numpy", "updates": RULES, **options})


def rows(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((4, 3))


WEIGHTS = ("critic/value.weight", "target/value.weight", "actor/move.weight")


def weights(ex: gc.Executor) -> list[Array]:
    return [ex.parameters[name] for name in WEIGHTS]


def test_a_target_starts_as_its_source() -> None:
    critic, target, actor = weights(gc.Executor(plan(), seed=3))
    np.testing.assert_array_equal(target, critic)
    assert np.abs(actor - critic).min() > 0


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_targets_move_at_the_end_of_a_step(backend: str) -> None:
    ex = gc.Executor(plan(backend=backend), seed=3)
    for seed in range(3):
        x, (w, t, v) = rows(seed), weights(ex)
        ex.step(x=x)
        biases = ex.parameters["critic/value.bias"], ex.parameters["target/value.bias"]
        new = w if seed else w - 0.1 * 2 / 4 * x.T @ (x @ w - 0.5 * x @ t - 1)
        critic, target, actor = weights(ex)
        if seed == 0:  # later steps have biases as well
            np.testing.assert_allclose(critic, new)
            np.testing.assert_allclose(biases[1], 0.25 * biases[0])
            old = v - 0.05 * 2 / 4 * x.T @ (x @ v - x @ t)  # by the target from before the step
            np.testing.assert_allclose(actor, old)
        np.testing.assert_allclose(target, 0.75 * t + 0.25 * critic, rtol=1e-12)


def test_backward_and_update_move_targets_too() -> None:
    ex, one = gc.Executor(plan(), seed=3), gc.Executor(plan(), seed=3)
    before = weights(ex)
    ex.forward(x=rows(0), train=True)
    np.testing.assert_array_equal(weights(ex), before)
    ex.backward()
    ex.update()
    one.step(x=rows(0))
    np.testing.assert_array_equal(weights(ex), weights(one))


@pytest.mark.parametrize("options", [{"accumulate": 2}, {}])
def test_one_optimizer_trains_all_but_targets(options: Any) -> None:
    ex = gc.Executor(plan(updates=None, optimizer=gc.Adam(0.1, **options)), seed=3)
    assert [n for n in ex.state if n.startswith("target") and n.count(".") > 1] == []
    for _ in range(options.get("accumulate", 1)):
        before = weights(ex)
        np.testing.assert_array_equal(before[1], before[0])
        ex.step(x=rows(1))
    critic, target, _ = weights(ex)
    np.testing.assert_allclose(target, 0.75 * before[1] + 0.25 * critic, rtol=1e-12)


def test_shards_move_targets_once() -> None:
    options = {"updates": None, "optimizer": gc.SGD(0.1)}
    one = gc.Executor(plan(**options), seed=3)
    two = gc.Executor(plan(**options, shards=2), seed=3)
    for seed in range(2):
        one.step(x=rows(seed))
        two.step(x=rows(seed))
    np.testing.assert_allclose(weights(one), weights(two), rtol=1e-12)


def test_a_plan_moves_targets_whose_source_it_trains() -> None:
    ex = gc.Executor(plan(), seed=3)
    ex.step(x=rows(0))
    actor = gc.Executor(plan(updates=RULES[1]), state=ex.state)
    _, before, _ = weights(ex)
    actor.step(x=rows(1))
    np.testing.assert_array_equal(weights(ex)[1], before)


def test_validated_saved_and_loaded(tmp_path: Path) -> None:
    ex = gc.Executor(plan(validate=True), seed=3)
    ex.step(x=rows(0))
    gc.save(tmp_path / "m.gc", ex)
    again = gc.load(tmp_path / "m.gc")
    assert [ex.step(x=rows(i)) for i in (1, 2)] == [again.step(x=rows(i)) for i in (1, 2)]
    np.testing.assert_array_equal(weights(ex), weights(again))
    fresh = gc.Executor(again.plan, seed=4)
    np.testing.assert_array_equal(*weights(fresh)[:2])


def counting() -> gc.Net:
    net = gc.Net("net")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N, 1))
    mean, steps = net.state("mean", (3,)), net.state("steps", (), 7, dtype="int64")
    fixed, half = net.state("fixed", (3,), np.arange(3)), net.state("half", 3, np.float32(0.5))
    net.update(mean, 0.5 * mean + 0.5 * gc.mean(x, axis=0))
    net.update(steps, steps + 1)
    out = net.output("out", gc.affine(x - mean + fixed * half, 1))
    net.loss("loss", gc.mse_loss(out, y))
    return net


def test_a_net_updates_states_in_training_alone() -> None:
    made = gc.compile(counting(), batch=4, optimizer=gc.SGD(0.1), backend="numpy")
    ex = gc.Executor(made)
    x = rows(0).astype(np.float32)
    assert made.programs["infer"].graph.updates == {}
    ex.forward(x=x)
    assert [int(ex.state["steps"]), *ex.state["mean"]] == [7, 0, 0, 0]
    ex.step(x=x, y=np.ones((4, 1), np.float32))
    np.testing.assert_allclose(ex.state["mean"], 0.5 * x.mean(axis=0), rtol=1e-6)
    ex.forward(x=x, y=np.ones((4, 1), np.float32), train=True)
    assert int(ex.state["steps"]) == 9
    np.testing.assert_array_equal(ex.state["fixed"], [0, 1, 2])
    np.testing.assert_array_equal(ex.state["half"], [0.5] * 3)


def test_copies_under_other_names() -> None:
    ex, other = gc.Executor(plan(), seed=3), gc.Executor(plan(), seed=4)
    names = {"target/*": "critic/*"}
    ex.parameters["critic/value.weight"] = np.ones((3, 1))
    ex.parameters.copy_from(ex.parameters, names=names)
    np.testing.assert_array_equal(ex.parameters["target/value.weight"], np.ones((3, 1)))
    before = ex.parameters["actor/move.weight"]
    ex.parameters.copy_from(other.parameters, 0.5, {"actor/move.*": "critic/value.*"})
    mixed = 0.5 * before + 0.5 * other.parameters["critic/value.weight"]
    np.testing.assert_array_equal(ex.parameters["actor/move.weight"], mixed)
    ex.parameters.copy_from({"w": np.zeros((3, 1))}, names={"actor/move.weight": "w"})
    assert not ex.parameters["actor/move.weight"].any()
    with pytest.raises(gc.StateError, match="no parameter 'value' to set 'target/value"):
        ex.parameters.copy_from(other.parameters, names={"target/value.bias": "value"})
    with pytest.raises(gc.StateError, match="no parameter matches old/"):
        ex.parameters.copy_from(other.parameters, names={"old/*": "critic/*"})


def twice() -> None:
    gc.track(net(), "target/*", of="critic/*", rate=0.1)


def tracked(targets: Any, of: Any) -> None:
    gc.track(net(), targets, of=of, rate=0.1)


def updated(state: str, value: str) -> None:
    made = net()
    made.update(made[state], made[value])


MISTAKES: list[tuple[Callable[[], object], str]] = [
    (lambda: net(rate=0), "track: rate is 0, it must be above 0 and at most 1"),
    (lambda: gc.track(net(), "old/*", of="critic/*", rate=0.1), "no parameter matches 'old/"),
    (
        lambda: gc.track(net(), "actor/*", of="critic/*", rate=0.1),
        "there is no 'critic/move.weight'",
    ),
    (lambda: gc.track(net(), "actor/*", of="critic", rate=0.1), "do not go together"),
    (twice, "'target/value.weight' is updated by the net already"),
    (lambda: tracked("critic/*", "critic/*"), "'critic/value.weight' would follow itself"),
    (lambda: tracked("target/*", ACTOR), "takes a net, and names or patterns of parameters"),
    (lambda: updated("actor/move", "actor/move"), "is neither a state nor a parameter"),
    (lambda: updated("target/value.bias", "target/value.bias"), "is updated already"),
    (lambda: updated("actor/move.bias", "actor/move.weight"), "and its next value float64"),
    (lambda: net().update(net()["x"], 3), "not a value of net 'net'"),  # type: ignore[arg-type]
    (lambda: gc.Net().state("s", (gc.N,)), "state 's': its shape has the batch dimension"),
    (lambda: gc.Net().state("s", (2,), np.ones(3)), "the array given as initial value has shape"),
    (
        lambda: plan(updates=[RULES[0], gc.UpdateRule("policy", "target/value.bias", ACTOR)]),
        "'target/value.bias' is updated by the net itself, so no optimizer trains it",
    ),
]


def test_a_source_of_another_shape_leaves_the_net_as_it_is() -> None:
    made = gc.Net()
    for name, units in (("first", 4), ("second", 5)):
        with made.block(name):
            gc.affine(made.input("x", (gc.N, units)), 3)
    before = made.graph()
    with pytest.raises(gc.GraphError) as caught:
        gc.track(made, "second/*", of="first/*", rate=0.1)
    assert "source is float32[4, 3], it must be float32[5, 3]" in first_line(caught.value, __file__)
    assert str(made.graph()) == str(before)
    assert made.graph().updates == before.updates


@pytest.mark.parametrize(("make", "sentence"), MISTAKES)
def test_mistakes(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        make()
    assert sentence in first_line(caught.value, __file__)
