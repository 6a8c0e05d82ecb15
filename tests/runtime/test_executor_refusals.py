"""What an executor refuses: calls out of order, a broken state, a second thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.tensor_type import TensorType
from tests.extras import EACH_BACKEND
from tests.runtime.test_executor import SGD, Array, assert_same, batch, classifier, copied, executor


def raises_state_error(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(gc.StateError) as caught:
        call()
    assert caught.value.sentence == sentence


def test_backward_needs_the_values_of_a_training_forward() -> None:
    ex = executor()
    nothing = "backward: there is no forward pass to go back through"
    raises_state_error(ex.backward, nothing)
    ex.forward(batch())
    raises_state_error(ex.backward, nothing)
    for other_run in (lambda: ex.forward(batch()), lambda: ex.step(batch())):
        ex.forward(batch(), train=True)
        ex.backward()
        other_run()
        raises_state_error(ex.backward, nothing)


def test_update_needs_gradients() -> None:
    ex = executor()
    nothing = "update: there are no gradients"
    raises_state_error(ex.update, nothing)
    ex.forward(batch(), train=True)
    raises_state_error(ex.update, nothing)
    ex.backward()
    ex.update()
    raises_state_error(ex.update, nothing)


class Explodes(gc.Op):
    """A user's op that fails when it is told to."""

    armed = False

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        if Explodes.armed:
            raise RuntimeError("boom")
        return ins[0]

    def grad(self, b: Any, ins: Any, out: Any, dout: Any) -> Any:
        return [gc.apply(Explodes(), dout)]


def test_a_step_that_fails_half_way_needs_a_new_state(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gc.Net()
    x = net.input("x", (gc.N, 3))
    net.output("out", gc.affine(gc.apply(Explodes(), gc.batchnorm(gc.affine(x, 4))), 2))
    net.loss("loss", gc.mean(net["affine_2"]))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=SGD))
    feed = np.ones((4, 3))
    ex.step(x=feed)
    good = copied(ex.state)
    monkeypatch.setattr(Explodes, "armed", True)
    with pytest.raises(RuntimeError, match="boom"):
        ex.step(x=feed)
    monkeypatch.setattr(Explodes, "armed", False)
    broken = "an earlier step failed half-way, so the state cannot be trusted"
    raises_state_error(lambda: ex.step(x=feed), broken)
    raises_state_error(lambda: ex.forward(x=feed), broken)
    raises_state_error(lambda: gc.freeze(ex, batch=1), broken)
    ex.state = good
    again = gc.Executor(ex.plan)
    again.state = good
    assert ex.step(x=feed) == again.step(x=feed)


def test_a_state_that_is_refused_leaves_the_forward_pass() -> None:
    ex, twin = executor(), executor()
    for each in (ex, twin):
        each.forward(batch(), train=True)
    with pytest.raises(gc.StateError):
        ex.state = {"no such": 1}
    assert_same(ex.backward(), twin.backward(), 0)


def test_inference_that_fails_breaks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    net = gc.Net()
    net.output("out", gc.apply(Explodes(), net.input("x", (gc.N, 3))))
    ex = gc.Executor(gc.compile(net, batch=4))
    monkeypatch.setattr(Explodes, "armed", True)
    with pytest.raises(RuntimeError, match="boom"):
        ex.forward(x=np.ones((4, 3)))
    monkeypatch.setattr(Explodes, "armed", False)
    assert ex.forward(x=np.ones((4, 3)))["out"].sum() == 12


class Returns(gc.Op):
    """A user's op whose reference rule returns what a test gives it."""

    value: Any = None
    """An exception is raised."""

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value  # type: ignore[no-any-return]


def odd(value: Any, backend: str, monkeypatch: pytest.MonkeyPatch) -> gc.Executor:
    monkeypatch.setattr(Returns, "value", value)
    net = gc.Net()
    net.output("out", gc.apply(Returns(), net.input("x", (gc.N, 3)), name="odd"))
    return gc.Executor(gc.compile(net, batch=4, backend=backend))


@pytest.mark.parametrize("name", EACH_BACKEND)
@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (None, "returns NoneType, not an array of float32"),
        (np.zeros((4, 1), "float32"), "gives float32[4, 1], its infer rule says float32[4, 3]"),
        (np.zeros((4, 3), "complex64"), "gives complex64[4, 3], its infer rule says float32"),
    ],
)
def test_a_reference_of_another_type_is_named(
    value: Any, fault: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ex = odd(value, name, monkeypatch)
    with pytest.raises(gc.RuleError) as caught:
        ex.forward(x=np.ones((4, 3)))
    assert str(caught.value).startswith(f"returns 'odd': its reference rule {fault}")


@pytest.mark.parametrize("name", EACH_BACKEND)
def test_an_exception_of_a_reference_names_the_node(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ex = odd(KeyError("k"), name, monkeypatch)
    with pytest.raises(KeyError) as caught:
        ex.forward(x=np.ones((4, 3)))
    assert caught.value.__notes__ == ["in the reference rule of returns 'odd'"]


# ---------------------------------------------------------------- threads


class Waits(gc.Op):
    """A user's op that stays inside until it is let go."""

    entered = threading.Event()
    leave = threading.Event()

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        self.entered.set()
        assert self.leave.wait(20)
        return ins[0]


def test_a_second_thread_is_refused() -> None:
    net = gc.Net()
    net.output("out", gc.apply(Waits(), net.input("x", (gc.N,))))
    ex = gc.Executor(gc.compile(net, batch=1))
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(ex.forward, x=np.ones(1))
        assert Waits.entered.wait(20)
        sentence = "this executor is running in another thread"
        raises_state_error(lambda: ex.forward(x=np.ones(1)), sentence)
        Waits.leave.set()
        assert first.result()["out"] == 1
    assert ex.forward(x=np.ones(1))["out"] == 1


def test_executors_of_one_plan_in_threads_equal_serial_ones() -> None:
    plan = gc.compile(classifier(), batch=8, optimizer=SGD)

    def train(seed: int) -> dict[str, Array]:
        ex = gc.Executor(plan, seed=seed)
        for i in range(30):
            ex.step(batch(1 + i % 8, seed + i))
        return copied(ex.state)

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(train, range(8)))
    for seed, state in enumerate(together):
        assert_same(state, train(seed), 0)


def test_values_outlive_backward_and_update() -> None:
    net = gc.Net("wide")
    x, y = net.input("x", (gc.N, 16)), net.input("y", (gc.N,), dtype="int64")
    h = x
    for _ in range(3):
        h = gc.relu(gc.affine(h, 16))
    net.output("h", h)
    net.output("scores", gc.affine(h, 16, name="scores"))
    net.loss("loss", gc.softmax_loss(net["scores"], y))
    ex = gc.Executor(gc.compile(net, batch=8, optimizer=gc.SGD(lr=0.1)))
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(8, 16)), "y": rng.integers(0, 16, 8)}
    outputs = ex.forward(feeds, train=True)
    ex.backward()
    for name, array in outputs.items():
        np.testing.assert_array_equal(ex.values[name], array)
    ex.update()
    for name, array in outputs.items():
        np.testing.assert_array_equal(ex.values[name], array)


def test_a_run_inside_a_run_of_the_same_executor_is_refused() -> None:
    net = gc.Net("net")
    net.output("y", gc.apply(Calls(), net.input("x", (gc.N, 2))))
    ex = gc.Executor(gc.compile(net, batch=2, backend="numpy"))
    Calls.inside = lambda: ex.forward(x=np.ones((2, 2)))
    raises_state_error(
        lambda: ex.forward(x=np.ones((2, 2))), "this executor is running in another thread"
    )


class Calls(gc.Op):
    """A user's op that does something while it runs."""

    inside: Any = None

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        Calls.inside()
        return ins[0]
