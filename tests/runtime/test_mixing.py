"""Parameters moved towards another's, to the bit of own * (1 - mix) + other * mix."""

from __future__ import annotations

import gc as garbage
import threading
from fnmatch import fnmatchcase

import numpy as np
import pytest

import graphc as gc


def plan(dtype: str = "float32", width: int = 7) -> gc.Plan:
    net = gc.Net("mixed", dtype=dtype)
    x, y = net.input("x", (gc.N, 5)), net.input("y", (gc.N, 3))
    h = gc.relu(gc.affine(x, width, name="body"))
    net.loss("loss", gc.mse_loss(gc.affine(h, 3, name="head"), y))
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    return gc.compile(net, batch=4, optimizer=optimizer, backend="numpy")


def stepped(some: gc.Plan, seed: int) -> gc.Executor:
    """One whose biases are not all zero."""
    ex = gc.Executor(some, seed=seed)
    rng = np.random.default_rng(seed)
    dtype = ex.parameters["body.weight"].dtype
    ex.step(x=rng.standard_normal((4, 5)).astype(dtype), y=np.ones((4, 3), dtype))
    return ex


def moved(own: np.ndarray, other: np.ndarray, mix: float) -> np.ndarray:
    weight = own.dtype.type
    return own * weight(1 - mix) + other * weight(mix)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mix", [0.0, 0.005, 0.3, 0.999, -2.5, float("nan")])
def test_each_number_is_what_numpy_gives(dtype: str, mix: float) -> None:
    some = plan(dtype)
    target, learner = stepped(some, 1), stepped(some, 2)
    for _ in range(3):
        expected = {
            name: moved(target.parameters[name], learner.parameters[name], mix)
            for name in target.parameters
        }
        before = {name: array for name, array in target.state.items() if name not in expected}
        target.parameters.copy_from(learner.parameters, mix=mix)
        for name, array in expected.items():
            assert np.array_equal(target.parameters[name], array, equal_nan=True)
        assert all(np.array_equal(target.state[name], before[name]) for name in before)
        learner.step(x=np.ones((4, 5), dtype), y=np.zeros((4, 3), dtype))


@pytest.mark.parametrize("names", ["body.*", ["head.*"], ("*.weight", "head.bias"), "*"])
def test_some_of_the_parameters(names: str | list[str]) -> None:
    some = plan()
    target, learner = stepped(some, 1), stepped(some, 2)
    patterns = [names] if isinstance(names, str) else names
    for _ in range(2):
        expected = {name: target.parameters[name] for name in target.parameters}
        for name, own in expected.items():
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                expected[name] = moved(own, learner.parameters[name], 0.25)
        target.parameters.copy_from(learner.parameters, mix=0.25, names=names)
        for name, array in expected.items():
            assert np.array_equal(target.parameters[name], array)


def test_names_that_match_nothing_are_refused() -> None:
    some = plan()
    target, learner = stepped(some, 1), stepped(some, 2)
    with pytest.raises(gc.StateError, match=r"no parameter matches tail\.\*"):
        target.parameters.copy_from(learner.parameters, mix=0.5, names="tail.*")
    with pytest.raises(gc.StateError, match="has shape"):
        target.parameters.copy_from(gc.Executor(plan(width=8)).parameters, mix=0.5, names="b*")


def test_numbers_of_another_dtype() -> None:
    target, wide = stepped(plan(), 1), stepped(plan("float64"), 2)
    rounded = {n: np.asarray(wide.parameters[n], np.float32) for n in wide.parameters}
    expected = {n: moved(target.parameters[n], rounded[n], 0.5) for n in rounded}
    target.parameters.copy_from(rounded, mix=0.5)
    assert all(np.array_equal(target.parameters[name], expected[name]) for name in expected)
    expected = {n: moved(target.parameters[n], wide.parameters[n], 0.5) for n in rounded}
    target.parameters.copy_from(wide.parameters, mix=0.5)
    for name, array in expected.items():
        assert np.array_equal(target.parameters[name], array.astype(np.float32))


def test_all_of_it_is_a_copy() -> None:
    some = plan()
    target, learner = stepped(some, 1), stepped(some, 2)
    target.parameters["body.bias"] = np.full(7, np.nan)
    target.parameters.copy_from(learner.parameters, mix=1.0)
    assert target.parameters.flat().tobytes() == learner.parameters.flat().tobytes()


@pytest.mark.slow
def test_one_learner_after_another() -> None:
    some = plan()
    target = stepped(some, 0)
    for seed in range(1, 6):
        learner = stepped(some, seed)
        expected = moved(target.parameters.flat(), learner.parameters.flat(), 0.5)
        target.parameters.copy_from(learner.parameters, mix=0.5)
        assert np.array_equal(target.parameters.flat(), expected)
        del learner
        garbage.collect()


def test_a_learner_is_not_kept_alive() -> None:
    import weakref

    some = plan()
    target, learner = stepped(some, 1), stepped(some, 2)
    target.parameters.copy_from(learner.parameters, mix=0.5)
    memory = weakref.ref(learner._state.arrays["body.weight"])
    del learner
    garbage.collect()
    assert memory() is None


def test_towards_itself() -> None:
    ex = stepped(plan(), 1)
    expected = moved(ex.parameters.flat(), ex.parameters.flat(), 0.25)
    ex.parameters.copy_from(ex.parameters, mix=0.25)
    assert np.array_equal(ex.parameters.flat(), expected)


def test_towards_each_other_in_two_threads() -> None:
    some = plan()
    one, two = stepped(some, 1), stepped(some, 2)

    def pull(own: gc.Executor, other: gc.Executor) -> None:
        for _ in range(2000):
            own.parameters.copy_from(other.parameters, mix=0.1)

    pairs = [(one, two), (two, one)]
    threads = [threading.Thread(target=pull, args=pair, daemon=True) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    np.testing.assert_allclose(one.parameters.flat(), two.parameters.flat(), atol=1e-5)
