"""What the verifier, or the writing of it, found in the planner and the executor."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.compiler.program import build_program
from graphc.ir.graph import Graph
from graphc.runtime.reference import evaluate, initial_state, next_state
from tests.tools.benchmarks.compile_scale import declare

BACKENDS = ("numpy", "native")


def stack(layers: int = 5) -> gc.Net:
    net = gc.Net("stack")
    h = net.input("x", (gc.N, 8))
    for _ in range(layers):
        h = gc.relu(gc.batchnorm(gc.affine(h, 8)))
    net.output("scores", h)
    net.loss("loss", gc.softmax_loss(h, net.input("y", (gc.N,), dtype="int64")))
    return net


def feeds(n: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((n, 8)), "y": rng.integers(0, 8, n)}


def normalised() -> gc.Net:
    """Outputs are the running mean itself, and in another shape."""
    net = gc.Net("normalised")
    h = gc.batchnorm(gc.affine(net.input("x", (gc.N, 8)), 8), name="norm")
    net.loss("loss", gc.softmax_loss(h, net.input("y", (gc.N,), dtype="int64")))
    mean = net["norm.running_mean"]
    net.output("mean", mean)
    net.output("again", mean)
    net.output("turned", gc.reshape(mean, (8, 1)))
    return net


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_second_backward_gives_the_same_gradients(backend: str) -> None:
    """Kernels of the backward pass use the memory of what they read."""
    ex = gc.Executor(gc.compile(stack(), batch=40, backend=backend))
    ex.forward(feeds(), train=True)
    first, second = ex.backward(), ex.backward()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    ex.forward(feeds(seed=1), train=True)
    assert not np.array_equal(ex.backward()["affine_1.weight"], first["affine_1.weight"])


def test_merged_updates_read_the_count_from_before_the_step() -> None:
    """Adam's correction took the next count for the last group of parameters."""
    plans = [
        gc.compile(declare(5), batch=40, optimizer=gc.Adam(lr=0.01, accumulate=2), backend=backend)
        for backend in BACKENDS
    ]
    executors = [gc.Executor(plan, seed=0) for plan in plans]
    for seed in range(4):
        for ex in executors:
            ex.step(feeds(seed=seed))
    numpy, native = (ex.parameters.flat() for ex in executors)
    np.testing.assert_allclose(numpy, native, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_forward_alone_advances_a_state_that_is_an_output(backend: str) -> None:
    """Its copy stood at the end of the backward pass."""
    plan = gc.compile(normalised(), batch=40, backend=backend)
    ex, before = gc.Executor(plan, seed=0), np.zeros(8)
    out = ex.forward(feeds(), train=True)
    wanted = expected(plan, ex)["norm.running_mean"]
    np.testing.assert_allclose(ex.state["norm.running_mean"], wanted, rtol=1e-5)
    for name in ("mean", "again", "turned"):
        np.testing.assert_array_equal(out[name].reshape(-1), before)
    ex.backward()
    np.testing.assert_allclose(ex.state["norm.running_mean"], wanted, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_output_of_a_step_is_the_old_value_of_the_state(backend: str) -> None:
    net = stack(1)
    net.output("weight", net["affine_1.weight"])
    plan = gc.compile(net, batch=40, optimizer=gc.SGD(lr=0.1), outputs="*", backend=backend)
    ex = gc.Executor(plan, seed=0)
    before = ex.parameters["affine_1.weight"]
    ex.step(feeds())
    np.testing.assert_array_equal(ex.values["weight"], before)
    assert not np.array_equal(ex.parameters["affine_1.weight"], before)


def expected(plan: Plan, ex: gc.Executor) -> dict[str, np.ndarray]:
    """The states after one training run, by the reference rules."""
    graph = plan.programs["grad"].graph
    state = initial_state(graph, 0)
    values = evaluate(graph, feeds(), state, 40)
    return dict(next_state(graph, values, state))


@pytest.mark.parametrize("layers", [2, 4])
def test_what_two_kernels_compute_one_of_them_stores(layers: int) -> None:
    """A second kernel, which computes a value once more for itself, stored it too."""
    net = gc.Net("penalty")
    x = h = net.input("x", (gc.N, 4))
    for _ in range(layers):
        h = h + gc.relu(gc.batchnorm(gc.affine(h, 4)))
    net.output("h", h)
    net.loss("loss", gc.mean(h * h))
    net.loss("penalty", gc.sum(gc.grad(gc.sum(gc.tanh(h)), x)))
    assert gc.compile(net, batch=2, backend="native").verify().ok


def test_a_state_is_not_overwritten_while_another_thread_reads_it() -> None:
    """A next value that is a feed is copied at the end; the product was in the same epoch."""
    net = gc.Net("fed")
    weight = net.parameter("w", (64, 64))
    fed = net.input("z", (64, 64))
    net.output("y", gc.matmul(net.input("x", (gc.N, 64)), weight))
    graph = Graph("fed", net.graph(), outputs=net.graph().outputs, updates={"w": fed.node.name})
    program = build_program("step", graph, 64, "native")
    proof = program.verify()
    assert proof.ok, proof.counterexample
    assert [instr.kind for instr in program.instrs] == ["kernel", "barrier", "kernel"]
