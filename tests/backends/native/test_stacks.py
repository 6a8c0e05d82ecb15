"""Products of many matrices, as generated code: with what follows, in other orders, by threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.kernels.kernel import BatchedGemm
from graphc.kernels.program import Program

Make = Callable[[gc.Value, gc.Value], gc.Value]

SHAPES = ((gc.N, 3, 5, 4), (gc.N, 3, 6, 4))
"""Of the two operands that are fed."""


def scores(q: gc.Value, k: gc.Value) -> gc.Value:
    return gc.matmul(q, gc.transpose(k, (0, 1, 3, 2))) * 0.5


def permuted(q: gc.Value, k: gc.Value) -> gc.Value:
    """Operands and result with the second axis behind the third."""
    by_row = gc.transpose(gc.reshape(gc.tanh(q), (gc.N, 5, 3, 4)), (0, 2, 1, 3))
    other = gc.transpose(gc.reshape(gc.tanh(k), (gc.N, 6, 3, 4)), (0, 2, 3, 1))
    return gc.transpose(gc.matmul(by_row, other), (0, 2, 1, 3))


def batch_inside(q: gc.Value, k: gc.Value) -> gc.Value:
    """The result with the batch behind the rows, which are apart by a number that it decides."""
    return gc.transpose(gc.matmul(q, gc.transpose(k, (0, 1, 3, 2))), (2, 0, 1, 3))


def one_for_all(q: gc.Value, k: gc.Value) -> gc.Value:
    """A stack of three matrices for each of the batch, and one for all."""
    net = q.builder
    w = gc.constant(net, np.linspace(-1, 1, 60).reshape(3, 4, 5).astype("float32"))
    u = gc.constant(net, np.linspace(-1, 1, 8).reshape(4, 2).astype("float32"))
    return gc.concat([gc.matmul(gc.tanh(q), w), gc.matmul(q, u)], axis=3)


def with_itself(q: gc.Value, k: gc.Value) -> gc.Value:
    return gc.matmul(q, gc.transpose(q, (0, 1, 3, 2))) + gc.matmul(k, k[:, :, :4])[:, :, :5] * 0


def attention(q: gc.Value, k: gc.Value) -> gc.Value:
    return gc.matmul(gc.softmax(scores(q, k)), k)


MAKES: tuple[Make, ...] = (scores, permuted, batch_inside, attention)


def plan_of(make: Make, backend: str, threads: int | None = None) -> gc.Plan:
    net = gc.Net("stack")
    q, k = (net.input(name, shape) for name, shape in zip("qk", SHAPES, strict=True))
    scale = net.parameter("scale", (4,), init="ones")
    out = make(q * scale, k * scale)
    net.output("out", out)
    net.loss("loss", gc.mean(out * out))
    return gc.compile(net, batch=7, optimizer=gc.SGD(lr=0.1), backend=backend, threads=threads)


def feeds(n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n)
    return {
        name: rng.normal(size=(n, *shape[1:])).astype("float32")
        for name, shape in zip("qk", SHAPES, strict=True)
    }


def stacks(program: Program) -> list[BatchedGemm]:
    bodies = [instr.body for instr in program.instrs]
    return [body for body in bodies if isinstance(body, BatchedGemm)]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("make", MAKES)
def test_generated_code_equals_numpy(make: Make) -> None:
    """At the full batch and at a smaller one; nothing is left to NumPy, and all is proved."""
    native, plain = plan_of(make, "native"), plan_of(make, "numpy")
    assert native.verify().ok
    for program in native.programs.values():
        assert all(instr.kind in ("kernel", "barrier") for instr in program.instrs)
    assert stacks(native.programs["infer"])
    for n in (7, 2):
        one, other = gc.Executor(native, seed=0), gc.Executor(plain, seed=0)
        for ex in (one, other):
            ex.forward(feeds(n), train=True)
        for found, wanted in zip(
            [one.values["out"], *one.backward().values()],
            [other.values["out"], *other.backward().values()],
            strict=True,
        ):
            np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


@pytest.mark.one_in(6)
@pytest.mark.parametrize("make", MAKES)
def test_threads_change_no_bit(make: Make) -> None:
    results = []
    for threads in (1, 2, 3):
        ex = gc.Executor(plan_of(make, "native", threads), seed=0)
        losses = [ex.step(feeds(n)) for n in (7, 3)]
        results.append((losses, ex.parameters["scale"].tobytes()))
    assert results[0] == results[1] == results[2]


def test_a_result_in_another_order_is_stored_where_it_belongs() -> None:
    """No copy is made: the product reads and writes by strides."""
    program = plan_of(permuted, "native").programs["infer"]
    (kernel,) = stacks(program)
    assert kernel.strides_out == ((5 * 3 * 6, 6, 3 * 6),)
