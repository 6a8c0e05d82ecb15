from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
import passes
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ops.loops.op import Scan, loops
from passes.recompute_scans import has_long_loops, recompute_scans
from passes.segment_scans import segment, segment_scans
from passes.split_scans import split_scans
from tests.passes.loop_nets import recurrent
from tests.passes.same import assert_preserved, differentiated, specialized


@pytest.mark.parametrize(
    ("steps", "size"),
    [(1, None), (16, None), (31, None), (32, 16), (48, 24), (64, 32), (100, 25), (512, 32),
     (500, 25), (127, None), (2 * 127, None)],
)  # fmt: skip
def test_a_segment_is_the_divisor_nearest_to_32(steps: int, size: int | None) -> None:
    assert segment(steps) == size


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_values_stay_if_loops_are_cut(lengths: bool, reverse: bool) -> None:
    net = recurrent(64, lengths=lengths, reverse=reverse, dropout=True)
    graph = specialized(net)
    assert has_long_loops(graph)
    after = assert_preserved(recompute_scans, graph, 2)
    outer = [node.op for node in after if isinstance(node.op, Scan)]
    assert {op.steps for op in outer} == {2}
    inner = [node.op for node in outer[0].step.nodes if isinstance(node.op, Scan)]
    assert {op.steps for op in inner} == {32}
    assert recompute_scans(after) is after


def steps_of(graph: Graph) -> list[int]:
    """The numbers of steps of a graph's loops."""
    ops = [nodes[0].op for nodes in loops(graph).values()]
    return [op.steps for op in ops if isinstance(op, Scan)]


def test_loops_with_products_outside_of_their_chain_are_cut() -> None:
    graph = differentiated(recurrent(64))
    assert steps_of(graph) == [64, 64]
    after = assert_preserved(segment_scans, graph, 2)
    assert steps_of(after) == [2, 2]
    assert segment_scans(after) is after
    assert not has_long_loops(specialized(recurrent(31)))


def test_of_loops_that_were_split_only_sums_are_cut() -> None:
    graph = split_scans(differentiated(recurrent(64)))
    after = assert_preserved(segment_scans, graph, 2)
    for nodes in loops(after).values():
        op = nodes[0].op
        assert isinstance(op, Scan)
        assert op.steps == (2 if {node.op.kind for node in nodes} == {"sum"} else 64)  # type: ignore[attr-defined]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("lengths", [False, True])
def test_a_budget_recomputes_loops_with_the_same_bits(backend: str, lengths: bool) -> None:
    net = recurrent(64, lengths=lengths, dropout=True)
    options = {"batch": 4, "optimizer": gc.SGD(lr=0.1), "backend": backend}
    free = gc.compile(net, **options)  # type: ignore[arg-type]
    tight = gc.compile(net, **options, budget=free.memory.total - 1)  # type: ignore[arg-type]
    assert tight.memory.total < free.memory.total
    rng = np.random.default_rng(0)
    feeds = {"x": rng.normal(size=(4, 64, 3)), "h0": rng.normal(size=(4, 4))}
    if lengths:
        feeds["lengths"] = np.array([64, 1, 40, 33], np.int32)
    found = []
    for plan in (free, tight):
        ex = gc.Executor(plan, seed=0)
        losses = [ex.step(feeds) for _ in range(3)]
        found.append((losses, ex.parameters.flat().tobytes()))
    assert found[0] == found[1]


def test_without_the_pass_sums_are_whole() -> None:
    plan = gc.compile(
        recurrent(64), batch=2, optimizer=gc.SGD(lr=0.1), passes=passes.without("segment_scans")
    )
    scans = [i.inside for i in plan.programs["step"].instrs if i.inside is not None]
    assert all(scan.steps == 64 for scan in scans)


def by_hand(feeds: dict[str, Array], u: Array, v: Array, w: Array, b: Array) -> dict[str, Array]:
    """Losses and gradients of `recurrent` with lengths, row by row and step by step."""
    x, h0 = feeds["x"], feeds["h0"]
    rows, steps, _ = x.shape
    loss = 0.0
    found = {name: np.zeros_like(p) for name, p in (("u", u), ("v", v), ("w", w), ("b", b))}
    for row, length in enumerate(feeds["lengths"]):
        states = [h0[row]]
        for t in range(length):
            states.append(np.tanh(x[row, t] @ w + b + states[-1] @ u))
        ys = np.array([h @ v for h in states[1:]])
        loss += (ys**2).sum() / (rows * steps * 2) + states[-1].sum() / (rows * 4)
        d_h = np.full(4, 1 / (rows * 4))
        for t in reversed(range(length)):
            d_y = 2 * ys[t] / (rows * steps * 2)
            found["v"] += np.outer(states[t + 1], d_y)
            d = (d_h + v @ d_y) * (1 - states[t + 1] ** 2)
            found["u"] += np.outer(states[t], d)
            found["w"] += np.outer(x[row, t], d)
            found["b"] += d
            d_h = u @ d
    return {"loss": np.asarray(loss), **found}


@pytest.mark.parametrize(("cut", "dtype"), [("sums", "int32"), ("all", "int64")])
def test_the_longest_row_ends_anywhere_in_a_segment(cut: str, dtype: str) -> None:
    """At its first step and at its last one, too: segments have 32 steps."""
    net = recurrent(64, lengths=True, of_lengths=dtype)
    options = {"batch": 2, "optimizer": gc.SGD(lr=1.0), "backend": "numpy"}
    plan = gc.compile(net, **options)  # type: ignore[arg-type]
    if cut == "all":
        plan = gc.compile(net, **options, budget=plan.memory.total - 1)  # type: ignore[arg-type]
    scans = [i.inside for i in plan.programs["step"].instrs if i.inside is not None]
    assert any(scan.steps == 2 for scan in scans)
    rng = np.random.default_rng(1)
    arrays = {"x": rng.normal(size=(2, 64, 3)), "h0": rng.normal(size=(2, 4))}
    ex = gc.Executor(plan, seed=0)
    names = {"u": "u", "v": "v", "w": "loop.in.weight", "b": "loop.in.bias"}
    for lengths in ((33, 1), (1, 1), (2, 32), (64, 33)):
        feeds = {**arrays, "lengths": np.array(lengths, np.int32)}
        before = {name: ex.parameters[key] for name, key in names.items()}
        expected = by_hand(feeds, **before)
        np.testing.assert_allclose(ex.step(feeds), expected["loss"], rtol=1e-12)
        for name, key in names.items():
            found = before[name] - ex.parameters[key]
            np.testing.assert_allclose(found, expected[name], rtol=1e-10, atol=1e-14)
