"""Right nets are accepted where rounding, ties and numbers that are not finite mislead."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.check.validation.plans import validate_plan


def narrowed() -> gc.Net:
    """A cast to float32, which rounds, with nothing around it."""
    net = gc.Net("narrowed", dtype="float64")
    x = net.input("x", (gc.N, 6))
    net.output("y", gc.cast(x, "float32"))
    net.output("z", gc.cast(gc.transpose(gc.tanh(x), (1, 0)), "float32"))
    return net


def ties() -> gc.Net:
    """A gradient of max over numbers that its kernel recomputes, in float32."""
    net = gc.Net("ties")
    x = net.input("x", (gc.N, 6))
    h = gc.tanh(x + gc.relu(gc.affine(x, 6, name="h")) * 0.7)
    h = h - gc.max(h, axis=1, keepdims=True)
    net.loss("loss", gc.mean(gc.tanh(h) * gc.exp(h)))
    return net


def constants() -> gc.Net:
    """A comparison of a number in an array with the same number as a scalar, in float32."""
    net = gc.Net("constants")
    x = net.input("x", (gc.N, 3)) * net.parameter("w", (3,), init="he")
    same = net.constant(np.array([0.07, 0.1, 0.3], np.float32)) == 0.07
    net.output("y", gc.where(same, x, x + 1.0))
    return net


def partly_infinite() -> gc.Net:
    """Some results that are not finite beside others, whose bound stays a number."""
    net = gc.Net("partly_infinite")
    h = gc.tanh(net.input("x", (gc.N, 6)) * 0.7)
    net.output("y", gc.log(gc.floor(h)) + gc.exp(h) * 0.3)
    return net


def without_rows() -> gc.Net:
    """Rows of an output that no input has."""
    net = gc.Net("without_rows")
    x = net.input("x", (1, 3))
    net.output("y", gc.broadcast_to(gc.tanh(x), (gc.N, 3)))
    return net


def cancelled() -> gc.Net:
    """A sum of differences from their mean: 0 but for rounding, as is its derivative."""
    net = gc.Net("cancelled")
    h = net.parameter("w", (1, 44), init="he") + 0 * net.input("x", (gc.N, 44))
    net.loss("loss", gc.sum(h - gc.mean(h, axis=1, keepdims=True)))
    return net


def pooled() -> gc.Net:
    """A gradient of pooling at more places than NumPy buffers."""
    net = gc.Net("pooled")
    h = gc.relu(gc.conv2d(net.input("x", (gc.N, 1, 96, 96)), 2, 1))
    net.loss("loss", gc.mean(gc.max_pool(h, 2)))
    return net


def recurrent(layer: str, trained: bool) -> gc.Net:
    """States of a loop in another order of axes, whose bytes hold other values before the end."""
    net = gc.Net("recurrent")
    states = net.output("states", getattr(gc, layer)(net.input("x", (gc.N, 5, 3)), 4)[0])
    scores = net.output("scores", gc.affine(states[:, -1], 3))
    if trained:
        net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    "net",
    [narrowed, ties, constants, partly_infinite, without_rows, cancelled, pooled],
    ids=lambda net: net.__name__,
)
@pytest.mark.filterwarnings("error")
def test_it_is_accepted(net: Callable[[], gc.Net], tmp_path: Path) -> None:
    plan = gc.compile(net(), batch=2, backend="numpy", validate=tmp_path)
    ran = validate_plan(plan)
    assert ran.count.values
    assert not ran.count.near


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_sum_whose_parts_cancel_is_accepted_in_any_order(dtype: str) -> None:
    """Added one after the other, the first half makes a number that the second takes away."""
    net = gc.Net("halves", dtype=dtype)
    sizes = np.random.default_rng(0).uniform(0.5, 1.5, (2, 1 << 13, 1))
    halves = net.constant((sizes * [[[1.0]], [[-1.0]]]).reshape(-1, 1).astype(dtype))
    scale = 2 + gc.tanh(gc.mean(net.input("x", (gc.N, 3))))
    net.output("sum", gc.sum(halves * scale, axis=0))
    assert validate_plan(gc.compile(net, batch=2, backend="native")).count.values


def overwritten() -> gc.Net:
    """A number that is negated where it lies, after another kernel has read it."""
    net = gc.Net("overwritten", dtype="float64")
    x, counts = net.input("x", (gc.N, 1, 60)), net.input("counts", (gc.N, 1, 60))
    h = gc.tanh(x)
    net.output("poisson", gc.poisson_loss(h, counts))
    net.loss("loss", gc.mean((-h) @ net.parameter("w", (60,), init=0.5)))
    return net


def equal() -> gc.Net:
    """The largest of numbers that are equal but for rounding, beside weights that are frozen."""
    net = gc.Net("equal", dtype="float64")
    x, y = net.input("x", (gc.N, 20, 4)), net.input("y", (gc.N,), dtype="int64")
    net.output("hits", gc.accuracy(gc.cosine_similarity(x, x, -1), y) + net.parameter("w", ()))
    return net


def underflowing() -> gc.Net:
    """A product of so many numbers that it is less than the least number of float32."""
    net = gc.Net("underflowing")
    small = gc.mean(gc.prod(net.parameter("w", (8, 3, 9), init=0.5)))
    net.output("small", small + 0.0 * gc.mean(net.input("x", (gc.N, 2))))
    return net


@pytest.mark.parametrize("net", [overwritten, equal, underflowing], ids=lambda net: net.__name__)
def test_it_is_accepted_thoroughly(net: Callable[[], gc.Net]) -> None:
    assert validate_plan(gc.compile(net(), batch=4, backend="native"), True).count.values


def test_a_mean_of_which_a_batch_in_another_order_has_no_weight_is_accepted() -> None:
    net = gc.Net("without_weight")
    scores = gc.affine(net.input("x", (gc.N, 3)), 3)
    net.loss("loss", gc.nll_loss(scores, net.input("y9", (gc.N,), dtype="int64"), ignore=0))
    plan = gc.compile(net, batch=3, optimizer=gc.SGD(lr=0.1), backend="numpy")
    assert validate_plan(plan, True).count.values


def test_a_long_sum_of_equal_terms_is_accepted() -> None:
    """Its roundings all have one sign: of 143 places of an image 119 have the bias alone."""
    net = gc.Net("equal_terms", dtype="float64")
    h = gc.conv_transpose2d(net.input("x16", (gc.N, 4, 7, 6)), 1, 1, name="convt15", stride=2)
    net.loss("loss", gc.mean(gc.acosh(gc.abs(h) + 1.5)))
    assert validate_plan(
        gc.compile(net, batch=26, optimizer=gc.Adam(), backend="numpy"), True
    ).count.values


def test_a_loop_of_one_step_with_lengths_is_accepted() -> None:
    net = gc.Net("of_one_step")
    x = net.input("x", (gc.N, 1, 3))
    net.output("last", gc.rnn(x, 4, lengths=gc.lengths(x))[1])
    assert validate_plan(gc.compile(net, batch=2, backend="numpy")).count.values


@pytest.mark.needs("c")
@pytest.mark.parametrize(
    ("layer", "trained"),
    [("rnn", False), *(pytest.param(x, True, marks=pytest.mark.slow) for x in ("gru", "lstm"))],
)
def test_a_loop_is_accepted_in_c(layer: str, trained: bool) -> None:
    optimizer = gc.SGD(lr=0.1) if trained else None
    plan = gc.compile(recurrent(layer, trained), batch=8, optimizer=optimizer, backend="c")
    assert validate_plan(plan).count.values


def test_a_gradient_of_a_value_may_be_asked_of_shards(tmp_path: Path) -> None:
    net = gc.Net("inner")
    h = gc.affine(net.input("x", (gc.N, 6)), 3, name="h")
    net.loss("loss", gc.mean(h * h))
    wrt = ["h.weight", "h"]
    gc.compile(
        net,
        batch=7,
        optimizer=gc.SGD(lr=0.1),
        wrt=wrt,
        shards=2,
        backend="numpy",
        validate=tmp_path,
    )
