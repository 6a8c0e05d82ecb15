"""grad_check passes right nets and names the worst entry, its line, and both numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from graphc.base.errors import FeedError, GraphError
from graphc.check.central_differences import compare, in_float64, indices, relative_error
from graphc.check.grad_check import grad_check
from graphc.declare.net import Net
from graphc.ir.build import Builder, Value, apply
from graphc.ir.op import Array, Cotangents
from graphc.ir.tensor_type import N
from graphc.ops.autodiff import grad
from graphc.ops.dropout import dropout
from graphc.ops.elementwise import Unary
from graphc.ops.functions import tanh
from graphc.ops.index import one_hot
from graphc.ops.linalg import affine
from graphc.ops.loops.layer import scan
from graphc.ops.losses.classes import softmax_loss, svm_loss
from graphc.ops.norm import batchnorm
from graphc.ops.reduce import mean
from graphc.ops.select import relu
from graphc.ops.shape import stop_gradient
from graphc.ops.sums import sum_
from graphc.runtime.reference import initial_state

RNG = np.random.default_rng(0)
FEEDS = {"x": RNG.standard_normal((5, 4)), "y": np.array([0, 1, 2, 0, 1])}


@dataclass(frozen=True)
class Wrong(Unary):
    """x ** 2 with the gradient of x."""

    name = "wrong_square"

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(ins[0] ** 2)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (dout,)


def seed_net(dtype: str) -> Net:
    net = Net("seed", dtype=dtype)
    x, y = net.input("x", (N, 4)), net.input("y", (N,), dtype="int64")
    h = dropout(relu(batchnorm(affine(x, 20))), keep_prob=0.5)
    scores = affine(h, 3, name="scores")
    net.loss("softmax", softmax_loss(scores, y))
    net.loss("svm", svm_loss(scores, y))
    net.loss("reg", 0.1 * sum_(net["scores.weight"] * net["scores.weight"]))
    return net


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_all_seed_layers(dtype: str) -> None:
    report = grad_check(seed_net(dtype), FEEDS)
    assert report.ok, str(report)
    assert [item.name for item in report.checked] == [
        "x",
        "affine_1.weight",
        "affine_1.bias",
        "batchnorm_1.gamma",
        "batchnorm_1.beta",
        "scores.weight",
        "scores.bias",
    ]
    assert str(report).startswith(
        "grad_check 'seed': ok, 7 gradients agree with central differences in float64, h = 1e-05"
    )
    assert "50 of 80 entries" in str(report)


def test_the_worst_offender_is_named_with_its_line() -> None:
    net = Net("bad", dtype="float64")
    x = net.input("x", (N, 2))
    w = net.parameter("w", (2,), init=np.array([2.0, 3.0]))
    net.loss("loss", sum_(apply(Wrong(), x * w)))
    report = grad_check(net, {"x": np.array([[1.0, 2.0]])}, wrt=[w])
    assert not report.ok
    lines = str(report).splitlines()
    assert lines[0] == (
        "grad_check 'bad': 1 of 1 gradients disagree with central differences in float64, h = 1e-05"
    )
    assert lines[1].startswith("worst: parameter 'w' at [1]: 2 by the rules, 24")
    assert lines[2].startswith("  declared at test_grad_check.py:")
    assert 'w = net.parameter("w", (2,), init=np.array([2.0, 3.0]))' in lines[2]
    assert lines[3].startswith("the gradient rule of wrong_square 'wrong_square_1' is wrong: ")
    assert 'net.loss("loss", sum_(apply(Wrong(), x * w)))' in lines[4]
    assert report.worst.name == "w"
    assert report.worst.worst.numeric == pytest.approx(24)


def test_only_what_is_asked_for() -> None:
    net = seed_net("float32")
    assert [c.name for c in grad_check(net, FEEDS, wrt=["x"]).checked] == ["x"]
    report = grad_check(net, FEEDS, wrt=[net["scores.bias"]])
    assert [c.name for c in report.checked] == ["scores.bias"]
    with pytest.raises(GraphError, match="'y' is not a float parameter or input"):
        grad_check(net, FEEDS, wrt=["y"])


def test_what_no_loss_depends_on() -> None:
    net = seed_net("float32")
    net.parameter("spare", (3,))
    report = grad_check(net, FEEDS)
    assert report.ok and report.unreached == ("spare",)
    assert str(report).endswith("no loss depends on spare")
    lonely = Net("lonely")
    lonely.loss("loss", mean(stop_gradient(lonely.input("x", (N,)))))
    with pytest.raises(GraphError, match="no loss of net 'lonely' depends on x"):
        grad_check(lonely, {"x": np.ones(3)})


def test_a_net_without_a_loss() -> None:
    net = Net("empty")
    net.input("x", (N, 2))
    with pytest.raises(GraphError, match="net 'empty' has no loss"):
        grad_check(net, {"x": np.ones((1, 2))})
    with pytest.raises(GraphError, match="grad_check takes a net, not int"):
        grad_check(3, {})  # type: ignore[arg-type]


def test_feeds_are_checked() -> None:
    with pytest.raises(FeedError):
        grad_check(seed_net("float32"), {"x": FEEDS["x"]})
    with pytest.raises(FeedError):
        grad_check(seed_net("float32"), {**FEEDS, "y": np.array([0, 1, 2, 3, 0])})


def test_stop_gradient_and_penalties() -> None:
    net = Net("mixed")
    x = net.input("x", (N, 3))
    scores = affine(x, 2, name="a")
    net.loss("stopped", sum_(scores * stop_gradient(scores)))
    slope = grad(sum_(scores * scores * scores), x)
    assert isinstance(slope, Value)
    net.loss("penalty", sum_(slope * slope))
    report = grad_check(net, {"x": RNG.standard_normal((2, 3))})
    assert report.ok, str(report)


@pytest.mark.parametrize("alone", [False, True])
def test_stop_gradient_in_steps_of_loops(alone: bool) -> None:
    """It is constant for differences in a loop within a loop; x may have no gradient at all."""
    net = Net("looped", dtype="float64")
    x, h0 = net.input("x", (N, 3, 2, 2)), net.input("h0", (N, 2))

    def inner(x: Value, h: Value) -> tuple[Value, Value]:
        stopped = stop_gradient(tanh(affine(x, 2, name="a")))
        h = tanh(stopped + h if alone else x * stopped + h)
        return h, h

    outputs, last = scan(lambda x, h: scan(inner, x, h), x, h0)
    net.loss("loss", sum_(outputs * outputs) + sum_(last))
    feeds = {"x": RNG.standard_normal((2, 3, 2, 2)), "h0": RNG.standard_normal((2, 2))}
    report = grad_check(net, feeds)
    assert report.ok, str(report)


def test_a_kink_is_not_a_mistake() -> None:
    net = Net("kink", dtype="float64")
    net.loss("loss", sum_(relu(net.input("x", (N,)))))
    assert grad_check(net, {"x": np.array([3e-6, -2e-6, 1.0])}).ok


def test_the_state_can_be_given() -> None:
    net = seed_net("float32")
    state = initial_state(net.graph(), 5)
    seen = grad_check(net, FEEDS, state=state, wrt=["scores.bias"]).checked[0].entries
    same = grad_check(net, FEEDS, seed=5, wrt=["scores.bias"]).checked[0].entries
    np.testing.assert_allclose([e.ours for e in seen], [e.ours for e in same], rtol=1e-4, atol=1e-6)


def test_float64_reaches_every_value() -> None:
    net = Net("wide")
    y = net.input("y", (N,), dtype="int64")
    scores = affine(net.input("x", (N, 4)), 3) * one_hot(y, 3) + net.constant(np.float32(0.5))
    net.loss("loss", mean(scores))
    dtypes = {node.type.dtype for node in in_float64(net.graph())}
    assert dtypes == {"float64", "int64"}


def test_the_measure() -> None:
    assert relative_error(1.0, 1.0) == 0
    assert relative_error(2.0, 1.0) == pytest.approx(1 / 3)
    assert relative_error(5e-8, -5e-8) == pytest.approx(1e-7)
    assert relative_error(1.0, float("nan")) == float("inf")
    assert relative_error(1.0, 1.0 + 1e-9, noise=1e-8) == 0


def test_differences_restore_the_array() -> None:
    x = np.array([1.0, 2.0])
    entry = compare(lambda: float((x**3).sum()), x, (1,), 12.0, 1e-5, 1e-6)
    assert entry.error < 1e-9
    np.testing.assert_array_equal(x, [1.0, 2.0])


def test_samples_are_the_same_every_time() -> None:
    first: Any = list(indices((20, 20), "w", 50))
    assert len(set(first)) == 50
    assert first == list(indices((20, 20), "w", 50)) != list(indices((20, 20), "v", 50))
    assert list(indices((2, 2), "w", 50)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert list(indices((), "w", 50)) == [()]
