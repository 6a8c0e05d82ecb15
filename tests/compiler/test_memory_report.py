"""What the report says is what is allocated, and nobody reads bytes that are not theirs."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native import target
from graphc.backends.native.backend import NativeProgram
from graphc.backends.native.choose_scratch import kernel_scratch
from graphc.backends.numpy.backend import bind
from graphc.backends.numpy.kernels import Planned
from graphc.base import usable_cores
from graphc.compiler.plan import Plan
from graphc.compiler.sizes import block_bytes
from graphc.declare.optim import Optimizer
from graphc.kernels.kernel import Gemm
from graphc.kernels.program import Program
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace

Array = np.ndarray[Any, Any]
SGD = gc.SGD(lr=0.1, momentum=0.9)
native = pytest.mark.needs("native")
BACKENDS = ["numpy", pytest.param("native", marks=native)]
both = pytest.mark.parametrize("backend", BACKENDS)


def deep(layers: int = 50, width: int = 128) -> gc.Net:
    net = gc.Net("deep")
    h = net.input("x", (gc.N, width))
    for _ in range(layers):
        h = gc.relu(gc.affine(h, width))
    net.output("scores", h)
    net.loss("loss", gc.softmax_loss(h, net.input("y", (gc.N,), dtype="int64")))
    return net


def varied() -> gc.Net:
    """Most kinds of layers, an op without a kernel, several outputs and losses."""
    net = gc.Net("varied")
    x, y = net.input("x", (gc.N, 4, 6)), net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(x, 20))), keep_prob=0.7)
    h = h + gc.tanh(gc.affine(h, 20))
    h = gc.concat([h, gc.sigmoid(gc.affine(x, 5))], axis=1)
    scores = gc.affine(gc.dropout(h, keep_prob=0.9), 7, name="scores")
    net.output("probabilities", gc.softmax(scores))
    net.output("best", gc.argmax(scores, axis=1))
    net.loss("softmax", gc.softmax_loss(scores, y))
    net.loss("svm", gc.svm_loss(scores, y))
    net.loss("size", 0.01 * gc.mean(h * h))
    return net


@cache
def planned(batch: int, optimizer: Optimizer | None, backend: str) -> Plan:
    """The plan of `varied`."""
    return gc.compile(varied(), batch=batch, optimizer=optimizer, backend=backend)


def feed(n: int, seed: int = 0) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((n, 4, 6)), "y": rng.integers(0, 7, n)}


# ---------------------------------------------------------------- the report is exact


def array_bytes() -> int:
    """The bytes of all arrays that NumPy holds, as tracemalloc saw them being made.

    Those below 64 bytes are left out: the constants of a few bytes that kernels are bound to.
    """
    arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([arrays]).traces
    return sum(trace.size for trace in traces if trace.size >= 64)


@contextmanager
def traced(plan: Plan, feeds: dict[str, Array]) -> Iterator[None]:
    """Memory is watched, after all has been made that executors of a plan share."""
    ex = gc.Executor(plan)
    ex.forward(feeds, train=True)
    ex.backward()
    if plan.optimizer is not None:
        ex.step(feeds)
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


@pytest.mark.one_in(7)
@both
@pytest.mark.parametrize(
    "optimizer", [None, SGD, gc.Adam(clip_norm=1.0), gc.SGD(0.1, accumulate=2)]
)
def test_the_report_is_what_is_allocated(optimizer: Any, backend: str) -> None:
    plan = planned(32, optimizer, backend)
    memory, feeds = plan.memory, feed(32)
    with traced(plan, feeds):
        ex = gc.Executor(plan)
        assert array_bytes() == ex.nbytes == memory.workspace + memory.state
        ex.forward(x=feeds["x"])
        if optimizer is not None:
            ex.step(feeds)
        assert array_bytes() == ex.nbytes + kept(ex) + tables(ex)
        ex.forward(feeds, train=True)
        ex.backward()
        assert ex.nbytes == memory.total
        assert array_bytes() == memory.total + kept(ex) + tables(ex)


def kept(ex: gc.Executor) -> int:
    """Copies that stay for `ex.values` where an update took the arena."""
    return sum(array.nbytes for array in ex._outcome.outputs.values() if array.base is None)


def tables(ex: gc.Executor) -> int:
    """What belongs to native code: the addresses that it finds the memory by."""
    found = [r for r in ex._binder._runners.values() if isinstance(r, NativeProgram)]
    return sum(program.table.nbytes + program._addresses.nbytes for program in found)


@native
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_scratch_is_what_the_largest_product_needs_of_each_thread(
    threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usable_cores, "cores", lambda: 4)
    plan = gc.compile(varied(), batch=32, optimizer=SGD, backend="native", threads=threads)
    bits = target.host().bits
    instrs = [i for program in plan.programs.values() for i in program.instrs]
    gemms = [i.body for i in instrs if isinstance(i.body, Gemm)]
    largest = max(kernel_scratch(gemm, bits, 32) for gemm in gemms)
    assert plan.memory.scratch == threads * largest + 64
    assert plan.memory.workspace == gc.Executor(plan)._workspace.nbytes
    assert f"{largest:,} a thread, {threads} here" in str(plan.memory)


def test_numpy_has_the_temporaries_of_the_kernel_that_needs_most() -> None:
    plan = planned(32, None, "numpy")
    needs = [
        Planned.of(program, instr.body).nbytes
        for program in plan.programs.values()
        for instr in program.instrs
        if instr.body is not None
    ]
    assert plan.memory.scratch == block_bytes(max(needs))
    assert f"{max(needs):,}" in str(plan.memory)


@pytest.mark.one_in(3)
@both
@pytest.mark.parametrize("n", [1, 5, 31])
@pytest.mark.parametrize("optimizer", [None, SGD])
def test_the_report_at_n_is_that_of_a_plan_for_n(n: int, optimizer: Any, backend: str) -> None:
    at = planned(32, optimizer, backend).memory.at(n)
    exact = planned(n, optimizer, backend).memory
    assert at.arenas == exact.arenas
    assert at.peaks == exact.peaks
    assert (at.total, at.scratch) == (exact.total, exact.scratch)
    assert (at.feeds, at.constants) == (exact.feeds, exact.constants)
    lines = [[replace(line, loc=None) for line in report.buffers()] for report in (at, exact)]
    assert lines[0] == lines[1]


@both
def test_the_table_names_owner_and_line_of_every_buffer(backend: str) -> None:
    plan = planned(32, SGD, backend)
    table, lines = plan.memory.table(), list(plan.memory.buffers())
    assert len(table.splitlines()) == len(lines) + 1
    scores = next(line for line in lines if line.program == "step" and line.name == "scores")
    assert (scores.nbytes, scores.formula) == (32 * 7 * 4, "28*N")
    assert scores.loc is not None and "scores = gc.affine" in scores.loc.text
    assert scores.first <= scores.last  # in epochs
    assert f"{plan.memory.total:,}" in str(plan.memory)


@both
def test_fifty_layers_fit_into_few_bytes(backend: str) -> None:
    memory = gc.compile(deep(), batch=64, optimizer=SGD, backend=backend).memory
    assert memory.arenas["step"] <= 1.70 * 2**20
    assert memory.arenas["infer"] <= 72 * 2**10
    for name in ("step", "infer"):
        assert memory.arenas[name] <= 1.02 * memory.peaks[name]
        assert f"{name} {memory.arenas[name]:,} (peak {memory.peaks[name]:,})" in str(memory)


# ---------------------------------------------------------------- running makes no arrays


@pytest.mark.slow
@both
def test_a_thousand_steps_make_no_array_memory(backend: str) -> None:
    plan = planned(16, SGD, backend)
    feeds = {"x": feed(16)["x"].astype(np.float32), "y": feed(16)["y"]}
    with traced(plan, feeds):
        ex = gc.Executor(plan)
        for _ in range(3):
            ex.step(feeds)
        before = array_bytes()
        for _ in range(1000):
            ex.step(feeds)
        assert array_bytes() == before


@pytest.mark.one_in(5)
@both
@pytest.mark.parametrize("optimizer", [SGD, gc.Adam(weight_decay=0.1, clip_norm=1.0), gc.AdamW()])
def test_no_step_makes_an_array_on_the_way(optimizer: Any, backend: str) -> None:
    """The least activation has 600 kB here; what a step makes and drops stays far below.

    NumPy itself buffers some thousand elements of operands that it repeats.
    """
    net = gc.Net("wide")
    x, y = net.input("x", (gc.N, 300)), net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(x, 300))), keep_prob=0.7)
    scores = gc.affine(gc.relu(gc.affine(h, 300)), 300)
    net.loss("loss", gc.softmax_loss(scores, y))
    net.loss("svm", gc.svm_loss(scores, y))
    plan = gc.compile(net, batch=500, optimizer=optimizer, backend=backend)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.random((500, 300), np.float32), "y": rng.integers(0, 300, 500)}
    with traced(plan, feeds):
        ex = gc.Executor(plan)
        ex.step(feeds)
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        ex.step(feeds)
        assert tracemalloc.get_traced_memory()[1] - before < 200_000


# ---------------------------------------------------------------- poison


def run_poisoned(plan: Plan, name: str, n: int, state: State, feeds: dict[str, Array]) -> Any:
    """Run a program; before each instruction all bytes nobody owns in its epoch become NaN."""
    program = plan.programs[name]
    workspace = Workspace(plan.programs, plan.batch, state)

    def view(buffer: str) -> Array:
        return workspace.view(program, buffer, n)

    for feed_name in program.feeds:
        view(feed_name)[...] = feeds[feed_name]
    for instr, epoch in zip(program.instrs, program.epochs, strict=True):
        workspace.arena[~owned(program, epoch, len(workspace.arena))] = 0xFF
        workspace.scratch[:] = 0xFF
        for call in bind(replace(program, instrs=(instr,)), n, view, workspace.scratch)[0]:
            call()
    workspace.arena[~owned(program, epoch + 1, len(workspace.arena))] = 0xFF
    return {key: view(buffer).copy() for key, buffer in program.outputs.items()}


def owned(program: Program, epoch: int, nbytes: int) -> Any:
    """Which arena bytes hold what is written up to an epoch, and is read from it on."""
    mask = np.zeros(nbytes, bool)
    for storage in program.storages:
        if storage.first <= epoch <= storage.last:
            live = storage.range_at(program.capacity)
            start = program.arena.offsets[storage.key]
            mask[start : start + live.nbytes] = True
    return mask


@pytest.mark.one_in(3)
@pytest.mark.parametrize("optimizer", [SGD, gc.Adam(clip_norm=1.0, weight_decay=0.1)])
@pytest.mark.parametrize("n", [1, 7, 16])
def test_bytes_that_nobody_owns_are_never_read(optimizer: Any, n: int) -> None:
    plan = planned(16, optimizer, "numpy")
    clean = gc.Executor(plan, seed=1)
    poisoned = State(plan.state_nodes, 1)
    for step in range(3):
        clean.step(feed(n, step))
        outputs = run_poisoned(plan, "step", n, poisoned, feed(n, step))
        for name, value in clean.values.items():
            assert np.array_equal(outputs[name], value), name
    for name in clean.state:
        assert np.array_equal(poisoned[name], clean.state[name]), name
    assert not any(np.isnan(poisoned[name]).any() for name in plan.parameter_names)


# ---------------------------------------------------------------- budgets


def compiled(budget: int | None, batch: int = 64, backend: str | None = None) -> Plan:
    """Values are not computed again: see tests/compiler/remat for that."""
    return gc.compile(
        deep(3, 32),
        batch=batch,
        optimizer=SGD,
        budget=budget,
        backend=backend,
        passes=gc.passes.without("rematerialize"),
    )


def test_a_budget_that_is_kept_changes_nothing() -> None:
    needs = compiled(None).memory.total
    assert str(compiled(needs)) == str(compiled(None))


@both
def test_a_budget_names_shortfall_and_the_batch_that_fits(backend: str) -> None:
    needs = compiled(None, backend=backend).memory.total
    with pytest.raises(gc.BudgetError) as caught:
        compiled(needs - 1, backend=backend)
    text = str(caught.value)
    assert f"needs {needs:,} bytes, 1 more than the budget of {needs - 1:,}" in text
    fits = int(text.rpartition("batch=")[2].split()[0])
    assert compiled(needs - 1, fits, backend).memory.total < needs
    with pytest.raises(gc.BudgetError):
        compiled(needs - 1, fits + 1, backend)


def test_a_budget_names_the_largest_owners() -> None:
    needs = compiled(None, backend="numpy").memory.total
    with pytest.raises(gc.BudgetError) as caught:
        compiled(needs - 1, backend="numpy")
    owner = r"largest    d_affine_1 8,192 bytes  declared at test_memory_report\.py:\d+ in deep"
    assert re.search(owner, str(caught.value))


def test_a_budget_below_the_parameters_fits_no_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("graphc.runtime.workspace.block", lambda nbytes: pytest.fail("allocates"))
    with pytest.raises(gc.BudgetError, match="not even batch=1 fits"):
        compiled(1000)


def test_at_another_batch_counts_the_gradients_of_its_inputs() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 1000))
    net.loss("loss", gc.mean(gc.relu(gc.affine(x, 3))))
    plan, small = (gc.compile(net, batch=n, wrt=["x"], backend="numpy") for n in (64, 4))
    assert plan.memory.at(4).gradients == small.memory.gradients
    assert plan.memory.at(4).total == small.memory.total
