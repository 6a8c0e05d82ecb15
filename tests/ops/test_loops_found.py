"""Loops that were wrong once, each against a Python loop in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc

BACKENDS = ("numpy", "native")
PLAIN = gc.passes.without("cse", "split_scans")
RNG = np.random.default_rng(0)
X, A, B = RNG.normal(size=(2, 3, 4)), RNG.normal(size=(2, 4)), RNG.normal(size=(2, 4))

Step = Callable[..., tuple[Any, Any]]


def values(step: Step, plain: Step) -> None:
    """Compare outputs and last values of both, with and without the passes that change loops."""
    net = gc.Net("found", dtype="float64")
    x, a, b = net.input("x", (gc.N, 3, 4)), net.input("a", (gc.N, 4)), net.input("b", (gc.N, 4))
    outputs, lasts = gc.scan(step, x, (a, b))
    for i, value in enumerate((*outputs, *lasts)):
        net.output(f"y{i}", value)
    collected, after = [], (A, B)
    for t in range(3):
        made, after = plain(X[:, t], *after)
        collected.append(made)
    wanted = [*(np.stack(each, 1) for each in zip(*collected, strict=True)), *after]
    for backend in BACKENDS:
        for passes in (gc.passes.DEFAULT, PLAIN):
            plan = gc.compile(net, batch=2, backend=backend, passes=passes)
            assert plan.verify().ok
            found = gc.Executor(plan, seed=0).forward(x=X, a=A, b=B)
            for i, array in enumerate(wanted):
                np.testing.assert_allclose(found[f"y{i}"], array, rtol=1e-12, atol=1e-14)


def test_a_carried_value_that_no_step_reads() -> None:
    values(lambda x, a, b: ((x,), (x, b)), lambda x, a, b: ((x,), (x, b)))


def test_carried_values_that_change_places() -> None:
    values(lambda x, a, b: ((a + x,), (b, a)), lambda x, a, b: ((a + x,), (b, a)))


def test_one_value_is_the_next_of_both_and_both_outputs() -> None:
    def step(x: gc.Value, a: gc.Value, b: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(x + a - b)
        return (h, h), (h, h)

    def plain(x: Any, a: Any, b: Any) -> tuple[Any, Any]:
        h = np.tanh(x + a - b)
        return (h, h), (h, h)

    values(step, plain)


def test_the_next_value_is_another_shape_of_one() -> None:
    def step(x: gc.Value, a: gc.Value, b: gc.Value) -> tuple[Any, Any]:
        h = gc.reshape(gc.reshape(x * a, (gc.N, 2, 2)), (gc.N, 4))
        return (gc.transpose(gc.reshape(h, (gc.N, 2, 2)), (0, 2, 1)),), (h, a)

    def plain(x: Any, a: Any, b: Any) -> tuple[Any, Any]:
        h = x * a
        return (h.reshape(2, 2, 2).transpose(0, 2, 1),), (h, a)

    values(step, plain)


def test_an_op_without_a_kernel_runs_in_a_loop() -> None:
    values(
        lambda x, a, b: ((gc.sort(x + a, 1),), (gc.sort(a, 1) + b, b)),
        lambda x, a, b: ((np.sort(x + a, 1),), (np.sort(a, 1) + b, b)),
    )


@pytest.mark.parametrize("reads", [False, True])
def test_a_loop_in_a_step_over_a_sequence_from_around(reads: bool) -> None:
    """The step of it returns values of the step around it, and computes with them if it reads."""
    net = gc.Net("found", dtype="float64")
    x = net.input("x", (gc.N, 3, 4))

    def step(one: gc.Value) -> tuple[gc.Value, Any]:
        (sums, same), _ = gc.scan(lambda v: ((v * one if reads else v * 2, one), ()), x)
        return one + sums[:, 1] + same[:, 2], ()

    y, _ = gc.scan(step, x)
    net.output("y", y)
    found = gc.Executor(gc.compile(net, batch=2, backend="numpy")).forward(x=X)["y"]
    np.testing.assert_allclose(found, 2 * X + X[:, 1:2] * (X if reads else 2), rtol=1e-12)


def test_a_loop_in_a_step_that_reads_the_last_value_of_another_loop() -> None:
    """The name of the inner loop leaves those of the outer one's results free."""

    def double(x: gc.Value, a: gc.Value) -> tuple[gc.Value, gc.Value]:
        return a, a + x

    net = gc.Net("found", dtype="float64")
    x, a = net.input("x", (gc.N, 3, 4)), net.input("a", (gc.N, 4))
    _, last = gc.scan(double, x, a)

    def step(x: gc.Value, a: gc.Value) -> tuple[gc.Value, gc.Value]:
        _, inner = gc.scan(double, gc.stack([x + last, x], axis=1), a)
        return a, inner

    net.output("y", gc.scan(step, x, a)[1])
    found = gc.Executor(gc.compile(net, batch=2), seed=0).forward(x=X, a=A)["y"]
    np.testing.assert_allclose(found, A + 2 * X.sum(1) + 3 * (A + X.sum(1)), rtol=1e-12)


def test_a_step_that_returns_what_only_another_step_has() -> None:
    net = gc.Net("found")
    x, kept = net.input("x", (gc.N, 3, 4)), list[gc.Value]()
    gc.scan(lambda v: (kept.append(v * 2) or v, ()), x)  # type: ignore[func-returns-value]
    with pytest.raises(gc.GraphError, match="the step returned 'mul_1' of the step of scan_1"):
        gc.scan(lambda v: (kept[0], ()), x)


def test_indices_that_a_step_reads_are_checked() -> None:
    net = gc.Net("found")
    ids = net.input("ids", (gc.N, 3), dtype="int64")
    y, _ = gc.scan(lambda i: (gc.embedding(i, 7, 4), ()), ids)
    net.output("y", y)
    plan = gc.compile(net, batch=2, backend="numpy")
    with pytest.raises(gc.GraphError, match="holds the index 9"):
        gc.Executor(plan, seed=0).forward(ids=np.full((2, 3), 9))


def test_running_statistics_are_refused_in_a_step() -> None:
    net = gc.Net("found")
    x = net.input("x", (gc.N, 3, 4))
    with pytest.raises(gc.GraphError, match=r"running statistics(.|\n)*gc.layernorm"):
        gc.scan(lambda v: (gc.batchnorm(v), ()), x)
    gc.scan(lambda v: (gc.batchnorm(v, frozen=True), ()), x)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("backend", BACKENDS)
def test_shards_have_the_masks_of_the_whole_batch(backend: str) -> None:
    net = gc.Net("found", dtype="float64")
    x, a = net.input("x", (gc.N, 5, 4)), net.input("a", (gc.N, 4))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.dropout(gc.tanh(gc.affine(x + h, 4)), keep_prob=0.6)
        return h, h

    y, last = gc.scan(step, x, a)
    net.loss("loss", gc.mean(y * y) + gc.mean(last))
    feeds = {"x": RNG.normal(size=(6, 5, 4)), "a": RNG.normal(size=(6, 4))}
    losses = []
    for shards in (None, 2, 4):
        plan = gc.compile(net, batch=6, optimizer=gc.SGD(lr=0.5), backend=backend, shards=shards)
        assert plan.verify().ok
        ex = gc.Executor(plan, seed=0)
        losses.append([ex.step(feeds) for _ in range(3)])
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-12)


def test_a_step_goes_on_after_an_error_that_it_caught() -> None:
    """What the failed loop read of values around the step is not taken for an input of the step."""
    net = gc.Net("found", dtype="float64")
    x, a = net.input("x", (gc.N, 3, 4)), net.input("a", (gc.N, 4))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        with pytest.raises(gc.GraphError, match="next value"):
            gc.scan(lambda k: (k, gc.sum(k * a)), (), h, steps=2)
        return x, h + a

    net.output("last", gc.scan(step, x, a)[1])
    found = gc.Executor(gc.compile(net, batch=2, backend="numpy")).forward(x=X, a=A)["last"]
    np.testing.assert_allclose(found, 4 * A)
