"""Chains: kernels that run for one matrix after the other keep every bit, and less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.kernels import chains
from graphc.kernels.kernel import Chain
from graphc.kernels.program import Program

HEADS, QUERIES, KEYS, WIDTH = 2, 6, 10, 3
Make = Callable[[gc.Value, gc.Value], gc.Value]


@pytest.fixture(autouse=True)
def small_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let small matrices be large enough."""
    monkeypatch.setattr(chains, "LEAST", 16)


def heads_of(x: gc.Value) -> gc.Value:
    """(N, T, heads * width) as (N, heads, T, width), which products read in place."""
    return gc.transpose(gc.reshape(x, (gc.N, x.shape[1], HEADS, WIDTH)), (0, 2, 1, 3))


def in_heads(q: gc.Value, k: gc.Value, **options: Any) -> gc.Value:
    """Attention of several heads, side by side again."""
    q, k = heads_of(q), heads_of(k)
    seen = gc.attention(q, k, gc.tanh(k), **options)
    return gc.reshape(gc.transpose(seen, (0, 2, 1, 3)), (gc.N, QUERIES, HEADS * WIDTH))


def causal(q: gc.Value, k: gc.Value) -> gc.Value:
    return in_heads(q, k, causal=True)


def masked(q: gc.Value, k: gc.Value) -> gc.Value:
    """With a number to add to each score, and those of some keys left out."""
    bias = gc.matmul(gc.tanh(q), gc.transpose(k, (0, 2, 1)))
    return gc.attention(q, k, k, mask=gc.where(bias > -1, bias, -np.inf))


def by_row(q: gc.Value, k: gc.Value) -> gc.Value:
    """With a number of its own for each query."""
    scores = gc.matmul(q, gc.transpose(k, (0, 2, 1)))
    weights = gc.softmax(scores / gc.sqrt(gc.sum(q * q, -1, keepdims=True) + 1))
    return gc.matmul(weights, k)


MAKES: tuple[Make, ...] = (in_heads, causal, masked, by_row)


def plan_of(make: Make, backend: str, threads: int = 1, dtype: str = "float32") -> gc.Plan:
    net = gc.Net("net", dtype=dtype)
    scale = net.parameter("scale", (HEADS * WIDTH,), init="ones")
    q, k = (net.input(x, (gc.N, t, HEADS * WIDTH)) for x, t in (("q", QUERIES), ("k", KEYS)))
    out = make(q * scale, k * scale)
    net.output("out", out)
    net.loss("loss", gc.mean(out * out))
    sgd = gc.SGD(lr=0.1)
    return gc.compile(net, batch=5, optimizer=sgd, backend=backend, threads=threads)


def results(plan: gc.Plan) -> list[bytes]:
    """What inference and two steps compute, at the full batch and at a smaller one."""
    ex, found = gc.Executor(plan, seed=0), []
    for n in (5, 2):
        rng = np.random.default_rng(n)
        shapes = {"q": (n, QUERIES, HEADS * WIDTH), "k": (n, KEYS, HEADS * WIDTH)}
        feeds = {name: rng.normal(size=shape).astype("float32") for name, shape in shapes.items()}
        found += [ex.forward(feeds)["out"].tobytes(), np.float64(ex.step(feeds)).tobytes()]
    return [*found, ex.parameters["scale"].tobytes()]


def chains_of(program: Program) -> list[Chain]:
    return [instr.body for instr in program.instrs if isinstance(instr.body, Chain)]


@pytest.mark.one_in(11)
@pytest.mark.parametrize("backend", ["native", "numpy", "c"])
@pytest.mark.parametrize("make", MAKES)
def test_no_bit_changes(make: Make, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(make, backend)
    assert len(chains_of(plan.programs["step"])) == 2, "one forward and one backward"
    assert plan.verify().ok
    monkeypatch.setattr(chains, "LEAST", 1 << 20)
    whole = plan_of(make, backend)
    assert not chains_of(whole.programs["step"])
    assert results(plan) == results(whole)
    assert plan.programs["step"].arena.nbytes < whole.programs["step"].arena.nbytes


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_no_bit(threads: int) -> None:
    assert results(plan_of(causal, "native", threads)) == results(plan_of(causal, "native"))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("make", MAKES)
def test_the_interpreter_agrees(make: Make) -> None:
    """Every program is run, and each kernel compared with the interpreter and the references."""
    net = gc.Net("net", dtype="float64")
    q, k = (net.input(x, (gc.N, t, HEADS * WIDTH)) for x, t in (("q", QUERIES), ("k", KEYS)))
    w = net.parameter("w", (HEADS * WIDTH,), init="ones")
    out = make(q * w, k)
    net.loss("loss", gc.mean(out * out))
    plan = gc.compile(net, batch=3, optimizer=gc.SGD(lr=0.1), validate=True)
    assert chains_of(plan.programs["step"])


def test_only_one_matrix_of_a_private_value_is_kept() -> None:
    """Weights take the place of the scores, in the workspace of each thread."""
    program = plan_of(causal, "native", threads=2).programs["infer"]
    (chain,) = chains_of(program)
    scores, weights = chain.private
    assert scores.matrix == weights.matrix == (QUERIES, KEYS)
    assert scores.start == weights.start == 0
    assert scores.buffer not in program.buffers
    assert program.buffers[chain.workspace].type.shape == (chain.threads * chain.share,)
    assert 4 * QUERIES * KEYS <= chain.share < 4 * QUERIES * KEYS + 64


def test_what_others_read_is_kept_whole() -> None:
    """Weights that are a result stay, and so do the scores that a call reads."""
    net = gc.Net("net")
    q = net.input("q", (gc.N, QUERIES, WIDTH))
    weights = net.output("weights", gc.softmax(gc.matmul(q, gc.transpose(q, (0, 2, 1)))))
    net.output("out", gc.matmul(weights, q))
    program = gc.compile(net, batch=4).programs["infer"]
    assert "weights" in str(program.outputs) and weights.name in program.buffers
    assert all(weights.name not in {p.buffer for p in c.private} for c in chains_of(program))


@pytest.mark.slow
def test_random_numbers_keep_their_rows() -> None:
    """A mask depends on the row in the whole stack, so its kernel joins no chain."""

    def dropped(q: gc.Value, k: gc.Value) -> gc.Value:
        return in_heads(q, k, dropout=0.5)

    program = plan_of(dropped, "native").programs["step"]
    for chain in chains_of(program):
        steps = [step.op for kernel in chain.kernels for step in kernel.body.steps]
        assert "philox" not in steps
    assert results(plan_of(dropped, "native")) == results(plan_of(dropped, "native", 2))


def test_as_many_threads_as_matrices_have_no_chain() -> None:
    """Each thread would keep a matrix, which is all of them."""
    net = gc.Net("net")
    q = net.input("q", (gc.N, QUERIES, WIDTH))
    net.output("out", gc.attention(q, q, q))
    for batch, number in ((1, 0), (2, 1)):
        plan = gc.compile(net, batch=batch, backend="numpy")
        assert len(chains_of(plan.programs["infer"])) == number


def test_the_text_lists_the_kernels() -> None:
    program = plan_of(causal, "numpy").programs["infer"]
    (line,) = (line for line in str(program).splitlines() if "chain" in line)
    assert line.split(maxsplit=1)[1] == (
        "chain N x 2  partition=matrices  private attention_1.scores, attention_1.weights"
    )
