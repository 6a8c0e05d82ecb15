"""Weights are updated in place only where nothing reads their old values afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

import graphc as gc

Formula = Callable[..., gc.Value]

FORMULAS: dict[str, tuple[Formula, list[tuple[int, ...]]]] = {
    "one element by itself": (lambda p: p @ p, [(1, 1)]),
    "one element thrice": (lambda p: (p @ p) @ p, [(1, 1)]),
    "a number of a matrix": (lambda p: gc.reshape(p, (1, 1)) @ gc.reshape(p, (1, 1)), [()]),
    "by itself": (lambda p: p @ p, [(3, 3)]),
    "by its transpose": (lambda p: (p @ gc.transpose(p)) * p, [(2, 2)]),
    "a vector by itself": (lambda p: p @ p, [(5,)]),
    "parts of it": (lambda p: p[:, :2] @ p[:2], [(3, 3)]),
    "a stack": (lambda p, q: p @ q, [(4, 5, 2), (4, 2, 6)]),
    "a stack of single elements": (lambda p: p @ p @ p, [(3, 1, 1)]),
    "a stack of one": (lambda p: p @ p @ p, [(1, 2, 2)]),
    "a stack by a matrix": (lambda p, q: p @ q @ p, [(2, 2), (3, 2, 2)]),
    "a stack in another order": (
        lambda p, q: gc.transpose(p, (1, 2, 0)) @ gc.tanh(q),
        [(5, 3, 6), (3, 5, 7)],
    ),
    "columns on the left": (lambda p, q: p[:, 1:4] @ gc.tanh(q), [(5, 6), (3, 7)]),
    "a repeated number": (lambda p, q: gc.broadcast_to(p, (4, 7)) * gc.tanh(q), [(), (4, 7)]),
    "windows over itself": (lambda p: gc.conv(p, p, padding=1), [(2, 2, 3, 3)]),
    "a window of one": (lambda p: gc.conv(p, p), [(1, 1, 1, 1)]),
}

OPTIMIZERS = (
    gc.SGD(lr=0.3),
    gc.Adam(lr=0.1),
    gc.SGD(lr=0.1, momentum=0.9, weight_decay=0.1, clip_norm=1.0, ema=0.9),
)


def net_of(formula: Formula, shapes: Sequence[tuple[int, ...]]) -> gc.Net:
    net = gc.Net("twice", dtype="float64")
    start = [np.random.default_rng(i).normal(size=shape) for i, shape in enumerate(shapes)]
    weights = [net.parameter("pq"[i], array.shape, init=array) for i, array in enumerate(start)]
    net.loss("loss", gc.mean(gc.tanh(formula(*weights))))
    return net


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_weight_used_twice_in_a_product_is_proved_right(name: str) -> None:
    for optimizer in OPTIMIZERS:
        plan = gc.compile(
            net_of(*FORMULAS[name]), batch=1, optimizer=optimizer, backend="native", threads=2
        )
        report = plan.verify()
        assert report.ok, str(report.counterexample)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_a_transposed_stack_is_read_before_it_is_updated(backend: str) -> None:
    """The gradient of the other factor reads the weight where it lies."""
    net = net_of(*FORMULAS["a stack in another order"])
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(lr=0.5), backend=backend))
    p, q = ex.parameters["p"], ex.parameters["q"]
    ex.step()
    left, right = p.transpose(1, 2, 0), np.tanh(q)
    d = (1 - np.tanh(left @ right) ** 2) / (3 * 6 * 7)
    d_p = (d @ right.transpose(0, 2, 1)).transpose(2, 0, 1)
    d_q = (left.transpose(0, 2, 1) @ d) * (1 - right**2)
    np.testing.assert_allclose(ex.parameters["p"], p - 0.5 * d_p, atol=1e-12)
    np.testing.assert_allclose(ex.parameters["q"], q - 0.5 * d_q, atol=1e-12)


def test_a_number_that_weights_of_one_element_share_is_proved_right() -> None:
    """Their updates, and that of NAdam's momenta, join the product of a gradient."""
    net = gc.Net("two")
    h = gc.tanh(gc.affine(net.input("x", (gc.N, 1)), 1))
    net.loss("loss", gc.mean(gc.affine(h, 1) ** 2))
    for backend in ("numpy", "native"):
        plan = gc.compile(net, batch=13, optimizer=gc.NAdam(lr=0.01), backend=backend, threads=2)
        report = plan.verify()
        assert report.ok, str(report.counterexample)


NEXT: dict[str, tuple[Callable[[gc.Value], gc.Value], Callable[[np.ndarray], np.ndarray]]] = {
    "called": (lambda g: gc.cumsum(g, 0), np.cumsum),
    "in a kernel": (gc.exp, np.exp),
}


@pytest.mark.parametrize("name", NEXT)
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_what_reads_a_state_runs_before_it_is_set(backend: str, name: str) -> None:
    """Also if a later node, which reads the next value, could be in one kernel with it."""
    of, by_numpy = NEXT[name]
    net = gc.Net("next", dtype="float64")
    g, w, s = net.input("g", (4,)), net.parameter("w", (4,)), net.state("s", (4,), 0.5)
    before, after = s * g, of(g)
    net.update(s, after)
    net.output("before", before)
    net.output("both", before + after)
    net.loss("loss", gc.sum(w * w) + gc.sum(net.input("rows", (gc.N,))))
    options = {"optimizer": gc.SGD(lr=0.1), "outputs": ["before", "both"]}
    ex = gc.Executor(gc.compile(net, batch=2, backend=backend, **options))  # type: ignore[arg-type]
    given, was = np.array([1.0, 2.0, -1.0, 0.5]), np.full(4, 0.5)
    for _ in range(2):
        ex.step(g=given, rows=[1.0, 2.0])
        np.testing.assert_allclose(ex.values["before"], was * given, rtol=1e-12)
        np.testing.assert_allclose(ex.values["both"], was * given + by_numpy(given), rtol=1e-12)
        was = by_numpy(given)
        np.testing.assert_allclose(ex.state["s"], was, rtol=1e-12)
