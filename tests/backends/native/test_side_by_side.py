"""Blocks of rows side by side: each thread in its own arena, with the bits of each row alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.backend import SideBySide, Spread
from graphc.backends.native import pool
from graphc.backends.native.backend import NativeProgram
from graphc.check.certificate.export import certify
from graphc.check.verify import verify
from graphc.ir.op import Array
from graphc.runtime.bound import Binder
from graphc.runtime.entry import run_all
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace
from tests.backends.native.shared_runs import shared_runs
from tests.runtime.test_blocks import batch_of, bits, classifier, rows_at_once

pytestmark = pytest.mark.needs("native")
THREADS, BATCH = 2, 13
OPTIONS: dict[str, Any] = {"batch": BATCH, "backend": "native", "threads": THREADS, "wrt": []}


@pytest.fixture(scope="module")
def ex() -> Iterator[gc.Executor]:
    """An executor whose every run is shared by two threads."""
    with shared_runs(4):
        plan = gc.compile(classifier(), **OPTIONS)
        yield gc.Executor(plan, seed=1)


def runner_of(ex: gc.Executor, sparing: bool = False) -> NativeProgram:
    """Return the program of a plan in a memory of its own."""
    plan = ex.plan
    workspace = Workspace(plan.programs, BATCH, State(plan.state_nodes), THREADS, sparing)
    binder = Binder(workspace)
    run_all(binder.preparation(plan.programs))
    runner = binder.bound(plan.programs["infer"], 1).runner
    assert isinstance(runner, NativeProgram)
    return runner


def results_of(n: int) -> dict[str, Array]:
    return {name: np.zeros((n, 5), np.float32) for name in ("scores", "best", "sum")}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("n", [1, 5, 6, 7, 12, 13])
def test_rows_have_the_bits_of_each_alone(ex: gc.Executor, n: int) -> None:
    feeds = batch_of(n)
    for _ in range(3):
        found = ex.forward(feeds)
        for i in range(n):
            alone = ex.forward({name: array[i : i + 1] for name, array in feeds.items()})
            assert bits(alone) == bits({name: array[i : i + 1] for name, array in found.items()})


def blocks(ex: gc.Executor, feeds: dict[str, Array], results: dict[str, Array]) -> SideBySide:
    """Return the runs of all whole blocks of a batch."""
    rows = rows_at_once(ex.plan)
    count = len(feeds["x"]) // rows
    read = {name: Spread(x, "first", x[:1].nbytes) for name, x in feeds.items()}
    made = {name: Spread(x, "number", x[:rows].nbytes) for name, x in results.items()}
    return SideBySide(np.full(count, rows), read, made)


def test_each_thread_can_take_all_blocks(ex: gc.Executor) -> None:
    """In turns the last part comes first and takes all: in its own arena, with the same bits."""
    runner, n = runner_of(ex), 2 * THREADS * rows_at_once(ex.plan)
    feeds, expected, found = batch_of(n), results_of(n), results_of(n)
    ready = runner.side_by_side(blocks(ex, feeds, expected))
    assert ready is not None
    run_all(ready.calls)
    runs = runner._runs
    assert runs is not None
    address, job = runs.library.address("side_by_side"), runs.prepared(blocks(ex, feeds, found))
    arena, before = runner.memory.arena, (THREADS - 1) * runner.program.arena.nbytes
    arena[:] = 0xFF
    pool.pool().in_turns(address, job, n, THREADS, 0)()
    assert bits(found) == bits(expected)
    assert (arena[:before] == 0xFF).all()
    assert not (arena[before:] == 0xFF).all()


@pytest.mark.parametrize("fed", ["x", "z"])
def test_feeds_that_are_not_contiguous_run_one_by_one(ex: gc.Executor, fed: str) -> None:
    feeds = batch_of(BATCH)
    expected = ex.forward(feeds)
    strided = {**feeds, fed: np.repeat(feeds[fed], 2, axis=0)[::2]}
    assert runner_of(ex).side_by_side(blocks(ex, strided, results_of(BATCH))) is None
    assert bits(ex.forward(strided)) == bits(expected)


def test_blocks_after_members_read_their_own_state(ex: gc.Executor) -> None:
    """Members that run side by side must leave no states behind for blocks of rows."""
    population = gc.Population(ex.plan, members=2)
    few, feeds = batch_of(rows_at_once(ex.plan)), batch_of(BATCH)
    population.forward(few)
    found = population.forward(feeds)
    for seed in range(2):
        expected = gc.Executor(ex.plan, seed=seed).forward(feeds)
        assert bits(expected) == bits({name: array[seed] for name, array in found.items()})


def test_an_output_whose_feed_is_missing_is_left_out(ex: gc.Executor) -> None:
    feeds = batch_of(BATCH)
    expected = ex.forward(feeds)
    del expected["sum"]
    assert bits(ex.forward(x=feeds["x"])) == bits(expected)
    with pytest.raises(gc.FeedError):
        ex.forward(z=feeds["z"])


def test_an_output_that_is_a_feed_runs_one_by_one(ex: gc.Executor) -> None:
    net = classifier()
    net.output("same", net["z"])
    feeds = batch_of(BATCH)
    plan = gc.compile(net, **OPTIONS)
    found = gc.Executor(plan, state=ex.state).forward(feeds)
    assert bits(found) == bits({**ex.forward(feeds), "same": feeds["z"]})


def test_the_report_counts_an_arena_for_each_thread(ex: gc.Executor) -> None:
    memory = ex.plan.memory
    assert memory.arena == THREADS * memory.arenas["infer"] + 64
    assert ex.nbytes == memory.total
    assert f"for each of {THREADS} threads" in str(memory)
    few = memory.at(rows_at_once(ex.plan))
    assert few.arena == few.arenas["infer"] + 64, "there is no block for the other"
    certificate = certify(ex.plan)
    assert verify(certificate).ok
    less = replace(certificate.memory, arena=memory.arena - memory.arenas["infer"])
    assert not verify(replace(certificate, memory=less)).ok


def test_threads_share_one_arena_where_the_budget_has_room_for_one(ex: gc.Executor) -> None:
    total = ex.plan.memory.total
    plan = gc.compile(classifier(), budget=total - 1, **OPTIONS)
    assert plan.memory.arena == plan.memory.arenas["infer"] + 64
    assert plan.verify().ok
    small, feeds = gc.Executor(plan, state=ex.state), batch_of(BATCH)
    assert small.nbytes == plan.memory.total
    runner = runner_of(small, sparing=True)
    assert runner.side_by_side(blocks(ex, feeds, results_of(BATCH))) is None
    assert bits(small.forward(feeds)) == bits(ex.forward(feeds))
