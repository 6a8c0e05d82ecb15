"""Choices: what they count, and how near they come to the best that there is."""

from __future__ import annotations

from functools import cache
from itertools import chain, combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.compiler.cost import program_cost
from graphc.compiler.program import build_program
from graphc.compiler.remat.fit import Fitting
from graphc.compiler.remat.search import Choice, choose, least
from graphc.compiler.remat.values import Value, Values, checkpoints
from graphc.ir.graph import Graph
from graphc.kernels.traits import Forms
from graphc.ops.shape import Reshape, StopGradient
from passes.dead_code import dead_code
from passes.rematerialize import Rematerialize
from passes.update import Update
from tests.compiler.remat.nets import SGD, deep, dropped, residual
from tests.passes.same import differentiated
from tests.tools.generate import nets

ROWS = 512


def step_graph(net: gc.Net) -> Graph:
    return gc.compile(net, batch=ROWS, optimizer=SGD, backend="numpy").programs["step"].graph


def counted_again(values: Values, choice: Choice) -> int:
    """The peak of a choice, counted from nothing but the times of clones."""
    first = {v: min(v.reads, default=None) for v in values.all}
    last = {v: max([v.last, *v.reads]) for v in values.all}
    for value, time in choice.recomputed.items():
        for operand in value.operands:
            first[operand] = min(time, first[operand] or time)
            last[operand] = max(time, last[operand])
    live = np.zeros(len(values.graph) + 2, np.int64)
    for value in values.all:
        if value in choice.recomputed:
            live[value.time : value.last + 1] += value.nbytes
            if value.saved or last[value] > choice.recomputed[value]:
                live[choice.recomputed[value] : last[value] + 1] += value.nbytes
        else:
            live[value.time : last[value] + 1] += value.nbytes
    return int(live.max())


@pytest.mark.slow
@given(nets("float32"), st.floats(0.3, 0.95))
@settings(max_examples=12, deadline=None)
def test_bytes_are_counted_as_moves_are_made(net: gc.Net, share: float) -> None:
    values = Values(dead_code(Update(SGD)(differentiated(net))), 64)
    limit = int(Choice(values).peak * share)
    choice = choose(values, limit)
    if choice is None:
        assert least(values).peak > limit * 0.8
        return
    assert choice.peak <= limit
    assert counted_again(values, choice) <= limit + transient(values, choice)
    for value, time in choice.recomputed.items():
        assert value.may_recompute
        assert value.time <= values.boundary < time
        assert all(choice.recomputed.get(o, o.time) <= time for o in value.operands)


def transient(values: Values, choice: Choice) -> int:
    """What only other clones of the same moment read is there for a part of it."""
    return sum(value.nbytes for value in choice.recomputed if not value.saved)


SMALL_NETS = {"deep": deep(6, 32), "residual": residual(1, 32), "dropped": dropped(1, 32)}


@cache
def tried(name: str) -> dict[frozenset[str], tuple[int, int]]:
    """The arena and the FLOPs of the real program for every set of saved values."""
    graph = step_graph(SMALL_NETS[name])
    may = [v for v in Values(graph, ROWS).all if v.may_recompute and v.saved]
    assert 4 <= len(may) <= 8
    subsets = chain.from_iterable(combinations(may, k) for k in range(len(may) + 1))
    return {names: arena_and_flops(graph, names) for names in map(with_operands, subsets)}


def with_operands(some: tuple[Value, ...]) -> frozenset[str]:
    """The nodes of values, and of what they are computed from as far as that is not saved."""
    found, stack = set(some), list(some)
    while stack:
        for operand in stack.pop().operands:
            if operand.may_recompute and not operand.saved and operand not in found:
                found.add(operand)
                stack.append(operand)
    return frozenset(name for value in found for name in value.names)


def arena_and_flops(graph: Graph, names: frozenset[str]) -> tuple[int, int]:
    program = build_program("step", Rematerialize(names)(graph), ROWS, "numpy", sparing=True)
    return program.arena.nbytes, program_cost(program, ROWS).flops


@pytest.mark.one_in(8)
@pytest.mark.parametrize("name", SMALL_NETS)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.8])
def test_nearly_as_cheap_as_the_best_of_all_sets(name: str, share: float) -> None:
    all_sets = tried(name)
    kept = all_sets[frozenset()]
    least_arena = min(arena for arena, _ in all_sets.values())
    limit = least_arena + int((kept[0] - least_arena) * share)
    best = min(flops for arena, flops in all_sets.values() if arena <= limit)
    plan = gc.compile(SMALL_NETS[name], batch=ROWS, optimizer=SGD, backend="numpy")
    made = Fitting(plan, "step", Forms()).within(limit)
    assert made is not None
    assert made.program.arena.nbytes <= limit
    assert best <= made.flops <= kept[1] + 1.5 * (best - kept[1])


def test_cheap_values_go_first() -> None:
    """In a net with batchnorm a fifth less memory needs no product twice."""
    values = Values(step_graph(residual(8, 32)), ROWS)
    choice = choose(values, Choice(values).peak * 4 // 5)
    assert choice is not None
    ops = {values.graph[value.name].op.name for value in choice.recomputed}
    assert ops <= {"relu", "normalize", "add"}


def test_small_values_and_states_that_change_are_kept() -> None:
    values = Values(step_graph(residual(2, 32)), ROWS)
    statistics = [v for v in values.all if v.name.endswith((".mean", ".var"))]
    assert statistics
    assert not any(v.may_recompute for v in statistics)
    assert not any(v.may_recompute for v in values.all if v.name in values.graph.roots)


def test_other_names_for_bytes_are_one_value() -> None:
    net = gc.Net("net")
    h = gc.tanh(gc.affine(net.input("x", (gc.N, 6)), 6), name="h")
    parts = gc.stop_gradient(gc.reshape(h, (gc.N, 2, 3), name="parts"), name="seen")
    net.loss("loss", gc.mean(gc.exp(parts) * gc.reshape(gc.tanh(h), (gc.N, 2, 3))))
    values = Values(step_graph(net), ROWS)
    aliases = [n.name for n in values.graph if isinstance(n.op, (Reshape, StopGradient))]
    assert aliases
    for name in aliases:
        if name in values.of:
            assert values.of[name].name != name
            assert name in values.of[name].names
    assert values.of["parts"] is values.of["h"]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_checkpoints_are_the_narrow_places(count: int) -> None:
    values = Values(step_graph(residual(12, 32)), ROWS)
    found = checkpoints(values, count)
    assert 1 <= len(found) <= 2 * count
    ops = [values.graph[value.name].op.name for value in found]
    assert ops.count("relu") + ops.count("add") + ops.count("affine") == len(ops)


def test_the_least_memory_of_a_chain_grows_with_its_root() -> None:
    """Pieces that become smaller, with one value kept between: n layers in about sqrt(2n)."""
    for layers in (16, 64):
        values = Values(step_graph(deep(layers, 128)), 2048)
        one = 2048 * 128 * 4
        pile = least(values).peak / one
        assert pile <= (2 * layers) ** 0.5 + 4
