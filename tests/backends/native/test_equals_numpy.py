"""A plan of the native backend gives the numbers of the numpy backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.declare.optim import Optimizer
from tests.backends.native.nets import NETS, OPTIMIZERS, assert_close, feeds_of
from tests.backends.native.test_ops_native import chosen
from tests.ops.example import Example
from tests.ops.test_contract import OP_EXAMPLES, by_op, close
from tests.tools.generate import CLASSES

pytestmark = pytest.mark.needs("native")

TOLERANCE = {"float32": 2e-3, "float64": 1e-9}
"""For nets: their numbers grow and shrink on the way.  Ops are held to rounding."""
CAPACITY = 40
SEED = 5


def pair(net: gc.Net, optimizer: Optimizer | None, batch: int) -> tuple[gc.Executor, gc.Executor]:
    """The net on the native backend, and on numpy."""
    plans = (
        gc.compile(net, batch=batch, optimizer=optimizer, backend=backend)
        for backend in ("native", "numpy")
    )
    first, second = (gc.Executor(plan, seed=SEED) for plan in plans)
    return first, second


def assert_equal_steps(
    net: gc.Net, optimizer: Optimizer, rows: Sequence[int], tolerance: float
) -> None:
    """Steps on these numbers of rows, their outputs, and the state that they leave."""
    native, plain = pair(net, optimizer, max(rows))
    for number, n in enumerate(rows):
        feeds = feeds_of(net, n, seed=number)
        assert_close(native.step(feeds), plain.step(feeds), tolerance, f"loss of step {number}")
        assert_close(native.values, plain.values, tolerance, f"values of step {number}")
    assert_close(native.snapshot(), plain.snapshot(), tolerance, "state after the steps")


def assert_equal_runs(net: gc.Net, rows: Sequence[int], tolerance: float) -> None:
    """Inference, training forward, gradients, and gradients by cotangents."""
    native, plain = pair(net, None, max(rows))
    for n in rows:
        feeds = feeds_of(net, n)
        assert_close(native.forward(feeds), plain.forward(feeds), tolerance, f"inference of {n}")
        unlabelled = {name: array for name, array in feeds.items() if name != "y"}
        wanted = plain.forward(unlabelled)
        assert_close(native.forward(unlabelled), wanted, tolerance, f"without labels, of {n}")
        outputs = native.forward(feeds, train=True)
        assert_close(outputs, plain.forward(feeds, train=True), tolerance, f"forward of {n}")
        assert_close(native.backward(), plain.backward(), tolerance, f"gradients of {n}")
        dscores = np.linspace(-1, 1, n * CLASSES).reshape(n, CLASSES)
        for ex in (native, plain):
            ex.forward(feeds, train=True)
        found, wanted = native.backward(scores=dscores), plain.backward(scores=dscores)
        assert_close(found, wanted, tolerance, f"gradients by cotangents of {n}")
        assert_close(native.snapshot(), plain.snapshot(), tolerance, f"state after {n}")


def dtype_of(number: int) -> str:
    return ("float32", "float64")[number % 2]


@pytest.mark.one_in(28)
@pytest.mark.parametrize("name", NETS)
def test_steps_of_hand_made_nets(name: str) -> None:
    number = list(NETS).index(name)
    dtype = dtype_of(number)
    optimizer = list(OPTIMIZERS.values())[number % len(OPTIMIZERS)]
    assert_equal_steps(NETS[name](dtype), optimizer(), (CAPACITY, 1, 33, 17), TOLERANCE[dtype])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_steps_of_lion(dtype: str) -> None:
    """It takes the signs of gradients, which are far from 0 here."""
    net = gc.Net("lion", dtype=dtype)
    x = net.input("x", (gc.N, 8))
    h = gc.tanh(gc.affine(x, 40, init=gc.Normal(0.4)))
    net.loss("loss", gc.mse_loss(gc.affine(h, 4), net.input("t", (gc.N, 4))))
    lion = gc.Lion(lr=0.01, weight_decay=0.1)
    assert_equal_steps(net, lion, (CAPACITY, 1, 33, 17), TOLERANCE[dtype])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seed_layers", "gated"])
def test_runs_of_hand_made_nets(name: str) -> None:
    assert_equal_runs(NETS[name]("float64"), (CAPACITY, 3), TOLERANCE["float64"])


@pytest.mark.one_in(9)
@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_all_runs_of_hand_made_nets(name: str, dtype: str) -> None:
    assert_equal_runs(NETS[name](dtype), (CAPACITY, 1, 33), TOLERANCE[dtype])
    for optimizer in OPTIMIZERS.values():
        assert_equal_steps(NETS[name](dtype), optimizer(), (CAPACITY, 1, 33), TOLERANCE[dtype])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_batch(dtype: str) -> None:
    capacity = 35
    net = NETS["seed_layers"](dtype)
    native, plain = pair(net, gc.SGD(lr=0.05, momentum=0.9), capacity)
    for n in range(1, capacity + 1):
        feeds = feeds_of(net, n, seed=n)
        assert_close(native.step(feeds), plain.step(feeds), TOLERANCE[dtype], f"step of {n}")
        wanted = plain.forward(feeds)
        assert_close(native.forward(feeds), wanted, TOLERANCE[dtype], f"inference of {n}")
    assert_close(native.snapshot(), plain.snapshot(), TOLERANCE[dtype], "state")


def test_one_step_in_double_precision_agrees_to_rounding() -> None:
    net = NETS["seed_layers"]("float64")
    assert_equal_steps(net, gc.SGD(lr=0.05, momentum=0.9), (CAPACITY,), 1e-12)


def test_predict_and_evaluate() -> None:
    net = NETS["seed_layers"]("float64")
    native, plain = pair(net, gc.Adam(), 16)
    feeds = feeds_of(net, 45)
    assert_close(native.predict(feeds["x"]), plain.predict(feeds["x"]), 1e-12, "predict")
    found, wanted = native.evaluate(**feeds), plain.evaluate(**feeds)
    assert_close(found, wanted, 1e-12, "evaluate")


def test_any_inputs_missing() -> None:
    """What the others determine is computed, from memory that joined values share."""
    net = gc.Net("two", dtype="float64")
    x, z = net.input("x", (gc.N, 8)), net.input("z", (gc.N, 6))
    a, b = gc.relu(gc.affine(x, 33)), gc.tanh(gc.affine(z, 33))
    both = gc.concat([a, b], axis=1)
    net.output("a", gc.softmax(a) * gc.mean(a, 0, keepdims=True))
    net.output("b", b[:, 2:9])
    net.output("mean", gc.mean(b))
    net.output("both", both)
    net.output("cut", both[:, 20:50] * 2.0)
    native, plain = pair(net, None, CAPACITY)
    for n in (CAPACITY, 3):
        feeds = feeds_of(net, n)
        for names in ("x", "z", "xz", "x", "z"):
            given = {name: feeds[name] for name in names}
            assert_close(native.forward(given), plain.forward(given), 1e-12, f"{names} of {n}")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["weights_reshaped", "static_matrices"])
def test_frozen_and_updated_by_hand(name: str) -> None:
    net = NETS[name]("float64")
    executors = pair(net, gc.SGD(lr=0.1, momentum=0.9), 8)
    feeds = feeds_of(net, 8)
    for ex in executors:
        ex.forward(feeds, train=True)
        gradients = ex.backward()
        ex.update()
        ex.update({wrt: array * 0.5 for wrt, array in gradients.items()})
    native, plain = (gc.freeze(ex, batch=3).predict(feeds["x"]) for ex in executors)
    assert_close(native, plain, 1e-12, "predictions")


# ---------------------------------------------------------------------- ops

OPS = by_op(OP_EXAMPLES)


def alone(examples: Sequence[Example]) -> gc.Net:
    """A net whose outputs are the op, of inputs of its own, once for each example."""
    net = gc.Net("op", dtype="float32")
    for number, example in enumerate(examples):
        types = enumerate(example.types)
        values = [net.input(f"in{number}_{i}", t.shape, dtype=t.dtype) for i, t in types]
        net.output(f"out{number}", gc.apply(example.op, *values))
    return net


TOGETHER = ("send", "receive")
"""A pass makes these in pairs: see tests/runtime/distributed."""


@pytest.mark.one_in(20)
@pytest.mark.parametrize("name", [name for name in OPS if name not in TOGETHER])
def test_every_op_alone(name: str) -> None:
    examples = chosen(OPS[name])
    native, plain = pair(alone(examples), None, 5)
    for n in (5, 1):
        feeds: dict[str, Any] = {}
        for number, example in enumerate(examples):
            operands = enumerate(example.operands(n))
            feeds |= {f"in{number}_{i}": array for i, array in operands}
        found, wanted = native.forward(feeds), plain.forward(feeds)
        for number, example in enumerate(examples):
            out = f"out{number}"
            assert found[out].dtype == wanted[out].dtype
            assert close(found[out], wanted[out]), f"{example} of {n}"


@pytest.mark.parametrize("width", [19, 70])
def test_windows_beside_each_other(width: int) -> None:
    """Convolutions that differ in one attribute, padding and slices: gradients by all operands."""
    net = gc.Net("windows", dtype="float64")
    x = net.input("x", (gc.N, 4, 6, width)) + net.parameter("shift", (4, 6, width))
    for number, attributes in enumerate(
        (
            {"padding": 2, "dilation": 2},
            {"padding": 2},
            {"padding": (1, 2), "stride": (2, 3)},
            {"padding": 1, "groups": 2},
            {"padding": 2, "groups": 2},
            {"stride": 2, "groups": 2},
        )
    ):
        net.loss(f"loss{number}", gc.mean(gc.tanh(gc.conv2d(x, 4, 3, **attributes))))
    net.loss("cut", gc.mean(gc.pad(x[..., 3:-2], [(0, 0), (0, 0), (1, 0), (5, 2)]) ** 3))
    native, plain = pair(net, None, 3)
    feeds = {"x": np.random.default_rng(0).normal(size=(3, 4, 6, width))}
    for ex in (native, plain):
        ex.forward(feeds, train=True)
    assert_close(native.backward(), plain.backward(), 1e-9, "gradients")
