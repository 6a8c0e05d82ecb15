"""Native programs, run by the interpreter in the worst orders of threads, equal NumPy's.

A missing barrier, or memory that two values share at one time, shows as a wrong number or a NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.declare.optim import Optimizer
from tests.backends.native.interpreted import Interpreted, prepared
from tests.backends.native.nets import NETS, OPTIMIZERS, assert_close, feeds_of

ORDERS = ((0, 1, 2), (2, 1, 0))
CAPACITY, ROWS = 40, 8
"""Enough rows to be shared; and fewer, which must be right all the same, and are faster."""
TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
SEED = 3


class Pair:
    """A net compiled for both backends; the programs of the native plan are interpreted."""

    def __init__(self, net: gc.Net, dtype: str, optimizer: Optimizer, capacity: int) -> None:
        self.net, self.tolerance = net, TOLERANCE[dtype]
        self.native: Plan = gc.compile(
            net, batch=capacity, optimizer=optimizer, backend="native", threads=2
        )
        plan = gc.compile(net, batch=capacity, optimizer=optimizer, backend="numpy")
        self.numpy = gc.Executor(plan, seed=SEED)

    def check(self, n: int, order: tuple[int, ...]) -> None:
        feeds = feeds_of(self.net, n)
        self._infer(n, order, feeds)
        self._gradients(n, order, feeds)
        self._step(n, order, feeds)

    def state(self) -> dict[str, Any]:
        return {name: np.array(array) for name, array in self.numpy.snapshot().items()}

    def _infer(self, n: int, order: tuple[int, ...], feeds: Mapping[str, Any]) -> None:
        state = prepared(self.native, self.state(), order)
        found = Interpreted(self.native.programs["infer"], n, state, order).run(feeds)
        assert_close(found, self.numpy.forward(feeds), self.tolerance, "inference")

    def _gradients(self, n: int, order: tuple[int, ...], feeds: Mapping[str, Any]) -> None:
        state = self.state()
        run = Interpreted(self.native.programs["grad"], n, state, order)
        outputs = run.run(feeds)
        assert_close(outputs, self.numpy.forward(feeds, train=True), self.tolerance, "training")
        assert_close(run.gradient(), self.numpy.backward(), self.tolerance, "gradients")
        assert_close(state, self.state(), self.tolerance, "state after forward")

    def _step(self, n: int, order: tuple[int, ...], feeds: Mapping[str, Any]) -> None:
        """As many steps as one update takes, and the update."""
        state = self.state()
        times = self.native.accumulate
        name = "accumulate" if times > 1 else "step"
        for _ in range(times):
            found = Interpreted(self.native.programs[name], n, state, order).run(feeds)
            self.numpy.step(feeds)
            wanted = {k: v for k, v in self.numpy.values.items() if k in found}
            assert_close(found, wanted, self.tolerance, "outputs of a step")
        if times > 1:
            Interpreted(self.native.programs["apply"], 1, state, order).run({})
        assert_close(state, self.state(), self.tolerance, "state after a step")


def dtype_of(number: int) -> str:
    return ("float32", "float64")[number % 2]


@pytest.mark.one_in(28)
@pytest.mark.parametrize("name", NETS)
def test_hand_made_nets(name: str) -> None:
    """With momentum, whose update can be part of a product, and one other optimizer."""
    other = list(OPTIMIZERS.values())[list(NETS).index(name) % len(OPTIMIZERS)]
    for dtype, optimizer in (("float64", OPTIMIZERS["momentum"]), ("float32", other)):
        pair = Pair(NETS[name](dtype), dtype, optimizer(), CAPACITY)
        for order in ORDERS:
            pair.check(ROWS, order)


@pytest.mark.one_in(10)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    pair = Pair(NETS["seed_layers"]("float64"), "float64", OPTIMIZERS[name](), CAPACITY)
    for order in ORDERS:
        pair.check(ROWS, order)


@pytest.mark.one_in(15)
@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", NETS)
def test_hand_made_nets_with_every_optimizer(name: str, optimizer: str) -> None:
    for dtype in TOLERANCE:
        pair = Pair(NETS[name](dtype), dtype, OPTIMIZERS[optimizer](), CAPACITY)
        for order in ORDERS:
            pair.check(CAPACITY, order)
