from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
import passes
from graphc.ir.graph import Graph
from graphc.ops.scan import Scan, loops
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
    scans = [i.scan for i in plan.programs["step"].instrs if i.scan is not None]
    assert all(scan.steps == 64 for scan in scans)
