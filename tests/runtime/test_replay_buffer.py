"""Replay buffers: which rows they keep, how they draw, and steps on what was drawn."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.plan import Plan


@pytest.fixture(scope="module")
def plan() -> Plan:
    net = gc.Net("critic")
    state, action = net.input("state", (gc.N, 2)), net.input("action", (gc.N,), dtype="int64")
    worth = gc.pick(gc.affine(state, 3), action)
    reward = net.input("reward", (gc.N,))
    net.loss("loss", gc.mse_loss(worth * net.input("scale", ()), reward))
    return gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1), backend="numpy")


def rows(first: int, count: int) -> dict[str, Any]:
    number = np.arange(first, first + count)
    return {"state": np.stack([number, -number], 1), "action": number % 3, "reward": number}


def held(buffer: gc.ReplayBuffer) -> list[float]:
    return sorted(buffer.arrays["reward"][: len(buffer)])


def test_the_oldest_rows_are_replaced(plan: Plan) -> None:
    buffer = gc.ReplayBuffer(plan, 5)
    assert len(buffer) == 0
    for first, count, kept in [
        (0, 3, [0, 1, 2]),
        (3, 4, [2, 3, 4, 5, 6]),
        (7, 1, [3, 4, 5, 6, 7]),
        (8, 12, [15, 16, 17, 18, 19]),
    ]:
        buffer.add(rows(first, count))
        assert held(buffer) == kept
    buffer.add(state=[20, -20], action=2, reward=20.0)
    assert held(buffer) == [16, 17, 18, 19, 20]
    arrays = buffer.arrays
    np.testing.assert_array_equal(arrays["state"][:, 0], arrays["reward"])
    np.testing.assert_array_equal(arrays["action"], arrays["reward"] % 3)
    assert [x.dtype.name for x in arrays.values()] == ["float32", "int64", "float32"]
    assert buffer.nbytes == 5 * (2 * 4 + 8 + 4)
    with pytest.raises(ValueError, match="read-only"):
        arrays["reward"][0] = 1


def test_each_row_that_was_added_is_as_likely(plan: Plan) -> None:
    buffer = gc.ReplayBuffer(plan, 1000)
    buffer.add(rows(0, 10))
    counts = np.bincount(buffer.draw(20_000), minlength=10)
    assert len(counts) == 10
    assert ((counts - 2000) ** 2 / 2000).sum() < 27.9  # it is larger for one seed of a thousand


def test_the_same_seed_draws_the_same_rows_also_after_pickling(plan: Plan) -> None:
    buffers = [gc.ReplayBuffer(plan, 100, seed=seed) for seed in (1, 1, 2)]
    for buffer in buffers:
        buffer.add(rows(0, 50))
    one, same, other = (buffer.draw(40) for buffer in buffers)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    again = pickle.loads(pickle.dumps(buffers[0]))
    assert held(again) == held(buffers[0])
    np.testing.assert_array_equal(again.draw(40), buffers[1].draw(40))


def test_a_step_on_a_sample_is_one_on_its_rows(plan: Plan) -> None:
    first, second = (gc.Executor(plan, seed=0) for _ in range(2))
    sampled, drawn = (gc.ReplayBuffer(plan, 20, seed=3) for _ in range(2))
    for buffer in (sampled, drawn):
        buffer.add(rows(0, 30))
    for _ in range(3):
        loss = first.step(sampled.sample(8), scale=0.5)
        chosen = drawn.draw(8)
        feeds = {name: array[chosen] for name, array in drawn.arrays.items()}
        assert second.step(feeds, scale=0.5) == loss


def test_mistakes_are_told_and_nothing_is_added(plan: Plan) -> None:
    buffer = gc.ReplayBuffer(plan, 5)
    with pytest.raises(gc.FeedError, match="the replay buffer has no rows"):
        buffer.draw(3)
    for change, told in [
        ({"reward": [1.0, 2.0]}, "'state' has 1 rows, 'reward' has 2"),
        ({"action": 3}, "action"),
        ({"state": np.zeros((1, 3))}, "'state'"),
        ({"other": 1.0}, "'other'"),
    ]:
        with pytest.raises(gc.FeedError, match=told):
            buffer.add({**rows(0, 1), **change})
    assert len(buffer) == 0
    with pytest.raises(gc.StateError, match="ReplayBuffer takes a plan, not int"):
        gc.ReplayBuffer(3, 5)  # type: ignore[arg-type]
    with pytest.raises(gc.GraphError, match="capacity is 0"):
        gc.ReplayBuffer(plan, 0)
