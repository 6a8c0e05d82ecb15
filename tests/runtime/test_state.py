"""Parameters, hyper-parameters and state: read, set, shared."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.state import LARGE, advise_large_pages
from tests.extras import lacks
from tests.together import together

Array = np.ndarray[Any, Any]
SGD = gc.SGD(lr=0.1, momentum=0.9)


def network() -> gc.Net:
    net = gc.Net("state")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.affine(x, 4, name="a"), name="bn"))
    net.output("scores", gc.affine(h, 2, name="b"))
    net.loss("loss", gc.softmax_loss(net["b"], y))
    return net


def executor(seed: int = 0, **options: Any) -> gc.Executor:
    return gc.Executor(gc.compile(network(), batch=4, optimizer=SGD, **options), seed=seed)


FEED = {"x": np.random.default_rng(0).standard_normal((4, 3)), "y": np.array([0, 1, 1, 0])}


def test_reading_a_parameter_gives_a_copy_that_cannot_be_written() -> None:
    ex = executor()
    weight = ex.parameters["a.weight"]
    assert weight.shape == (3, 4)
    with pytest.raises(ValueError, match="read-only"):
        weight[...] = 0
    ex.step(FEED)
    assert not np.array_equal(weight, ex.parameters["a.weight"])


def test_a_parameter_that_is_set_is_the_one_that_runs() -> None:
    ex = executor()
    ex.parameters["b.weight"] = np.zeros((4, 2))
    ex.parameters["b.bias"] = [1, 2]
    assert np.array_equal(ex.forward(x=FEED["x"])["scores"], np.tile(np.float32([1, 2]), (4, 1)))


def test_parameters_are_a_mapping_in_declared_order() -> None:
    names = ["a.weight", "a.bias", "bn.gamma", "bn.beta", "b.weight", "b.bias"]
    assert list(executor().parameters) == names
    assert len(executor().parameters) == 6


def test_flat_and_load_flat_are_inverse() -> None:
    ex, other = executor(), executor(seed=1)
    vector = ex.parameters.flat()
    want = [ex.parameters[name].reshape(-1) for name in ex.parameters]
    assert np.array_equal(vector, np.concatenate(want))
    other.parameters.load_flat(vector)
    assert np.array_equal(other.parameters.flat(), vector)
    with pytest.raises(gc.StateError, match="has shape"):
        other.parameters.load_flat(vector[1:])
    assert np.array_equal(other.parameters.flat(), vector)


def test_copy_from_moves_towards_another_net() -> None:
    ex, target = executor(), executor(seed=1)
    before, source = dict(target.parameters), dict(ex.parameters)
    target.parameters.copy_from(ex.parameters, mix=0.25, names="a.*")
    for name in before:
        want = before[name]
        if name.startswith("a."):
            want = 0.75 * before[name] + 0.25 * source[name]
        np.testing.assert_allclose(target.parameters[name], want, rtol=1e-6)
    target.parameters.copy_from(ex.parameters)
    assert np.array_equal(target.parameters.flat(), ex.parameters.flat())
    with pytest.raises(gc.StateError, match=r"no parameter matches c\.\*"):
        target.parameters.copy_from(ex.parameters, names=["c.*"])


def test_seeds_decide_initial_values_and_masks() -> None:
    same, other = executor(seed=0).parameters.flat(), executor(seed=1).parameters.flat()
    assert np.array_equal(executor(seed=0).parameters.flat(), same)
    assert not np.array_equal(same, other)


def test_a_new_rate_holds_from_the_next_step_on() -> None:
    ex, still = executor(), executor()
    for e in (ex, still):
        e.step(FEED)
    ex.hyper["lr"] = 0.0
    frozen = ex.parameters.flat()
    ex.step(FEED)
    assert np.array_equal(ex.parameters.flat(), frozen)
    ex.hyper["lr"] = 0.1
    still.step(FEED)
    assert dict(ex.hyper) == {"lr": pytest.approx(0.1)}
    # the velocity went on meanwhile
    velocity = ex.state["b.bias.velocity"]
    assert np.array_equal(velocity, still.state["b.bias.velocity"])


def test_state_is_saved_and_assigned() -> None:
    ex = executor()
    ex.step(FEED)
    saved = dict(ex.state)
    losses = [ex.step(FEED) for _ in range(3)]
    ex.state = saved
    assert [ex.step(FEED) for _ in range(3)] == losses


def test_values_that_do_not_fit_change_nothing() -> None:
    ex = executor()
    before = {name: ex.state[name].tobytes() for name in ex.state}
    good = np.ones((3, 4))
    for bad in ({"a.weight": good, "a.bias": np.ones(5)}, {"a.weight": good, "c": 1}):
        with pytest.raises(gc.StateError):
            ex.state = bad
    with pytest.raises(gc.StateError):
        ex.parameters["a.bias"] = np.ones(4, complex)
    with pytest.raises(gc.StateError):
        ex.hyper["lr"] = float("nan")
    assert before == {name: ex.state[name].tobytes() for name in ex.state}


def test_two_plans_train_one_state() -> None:
    """Two optimizers take turns on the parameters; each has its own slots."""
    ex = executor()
    plan = gc.compile(network(), batch=2, optimizer=gc.Adam(name="adam"))
    adam = gc.Executor(plan, state=ex.state)
    assert adam.state is ex.state
    ex.step(FEED)
    between = ex.parameters.flat()
    small = {name: array[:2] for name, array in FEED.items()}
    adam.step(small)
    assert not np.array_equal(ex.parameters.flat(), between)
    assert np.array_equal(ex.parameters.flat(), adam.parameters.flat())
    assert int(ex.state["updates"]) == int(ex.state["updates:adam"]) == 1
    assert {"a.weight.velocity", "a.weight.mean:adam"} <= ex.state.keys()


def test_a_shared_state_that_broke_is_broken_for_all() -> None:
    ex = executor()
    other = gc.Executor(ex.plan, state=ex.state)
    saved = dict(ex.state)
    ex.step(FEED)
    bound = ex._binder.bound(ex.plan.programs["step"], 4)
    object.__setattr__(bound, "only_call", None)  # else the run would not look at its calls
    bound.calls.append(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        ex.step(FEED)
    del bound.calls[-1]
    with pytest.raises(gc.StateError, match="failed half-way"):
        other.step(FEED)
    with pytest.raises(gc.StateError, match="replaced as a whole"):
        other.state = {"a.bias": np.zeros(4)}
    other.state = saved
    assert ex.step(FEED) == gc.Executor(ex.plan).step(FEED)


@together("nbytes", [0, 1, 4096, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE])
@pytest.mark.parametrize("offset", [0, 1, 64])
def test_advice_of_large_pages_changes_no_byte(nbytes: int, offset: int) -> None:
    block = np.full(nbytes + offset, 7, np.uint8)[offset:]
    advise_large_pages(block)
    assert (block == 7).all()


def test_systems_but_linux_are_not_asked_for_large_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr("ctypes.CDLL", None)
    advise_large_pages(np.zeros(2 * LARGE, np.uint8))


@pytest.mark.needs("Linux")
def test_linux_follows_the_advice_of_large_pages() -> None:
    block = np.zeros(8 * LARGE, np.uint8)
    advise_large_pages(block)
    middle, inside = block.ctypes.data + block.nbytes // 2, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            start, end = (int(part, 16) for part in first.split("-"))
            inside = start <= middle < end
        elif inside and first == "VmFlags:":
            assert "hg" in line.split()
            return
    lacks("this system tells nothing of its memory")
