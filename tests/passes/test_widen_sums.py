from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import Shape, TensorType
from graphc.ops.fused_norm import NormalizeDgamma
from graphc.ops.reduce import Mean
from graphc.ops.sums import Sum
from passes.share_batchnorm_statistics import share_batchnorm_statistics
from passes.widen_sums import BLOCK, MANY, WIDTH, lines_of, widen_sums
from tests.passes.same import assert_preserved, differentiated
from tests.tools.generate import nets

N = gc.N

GOLDEN = """\
graph net
x: float64[64*N, 3] = input()
c: float64[3] = input()
difference.reshape_1: float64[N, 192] = reshape(x)
difference.reshape_2: float64[1, 3] = reshape(c)
difference.broadcast_to_1: float64[64, 3] = broadcast_to(difference.reshape_2)
difference.reshape_3: float64[192] = reshape(difference.broadcast_to_1)
difference.sub_1: float64[N, 192] = sub(difference.reshape_1, difference.reshape_3)
y.mean_1: float64[192] = mean(difference.sub_1)  axes=(0,)
y.reshape_1: float64[64, 3] = reshape(y.mean_1)
y: float64[3] = mean(y.reshape_1)  axes=(0,)
output y = y
"""


def pixels(net: gc.Net, name: str, channels: int, places: int = 64) -> gc.Value:
    return net.input(name, (places * N, channels), dtype="float64")


def normalized(channels: int = 3, side: int = 8) -> Graph:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (N, channels, side, side))
    net.loss("loss", gc.mean(gc.tanh(gc.batchnorm(x, name="bn"))))
    return share_batchnorm_statistics(differentiated(net))


def test_golden() -> None:
    net = gc.Net("net", dtype="float64")
    x, c = pixels(net, "x", 3), net.input("c", (3,), dtype="float64")
    net.output("y", gc.mean(gc.sub(x, c, name="difference"), 0, name="y"))
    assert str(assert_preserved(widen_sums, net.graph(), 3)) == GOLDEN


@pytest.mark.parametrize("channels", [1, 3, 16, BLOCK])
def test_batchnorm_and_its_gradients_keep_their_values(channels: int) -> None:
    graph = normalized(channels)
    after = assert_preserved(widen_sums, graph, 3)
    assert not any(isinstance(node.op, NormalizeDgamma) for node in after)
    assert widen_sums(after) is after


def test_sums_of_one_matrix_run_in_one_kernel() -> None:
    net = gc.Net("net")
    h = gc.batchnorm(net.input("x", (N, 16, 8, 8)))
    net.loss("loss", gc.mean(h * h))
    plan = gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1))
    kernels = [instr.body for instr in plan.programs["step"].instrs if instr.body is not None]
    wide = [kernel.body.steps for kernel in kernels if kernel.space[1] == WIDTH]
    sums = [sum(step.op == "sum" for step in steps) for steps in wide]
    assert sums == [1, 1, 2]  # the mean, the variance, and both sums of the gradient


@pytest.mark.parametrize(
    ("shape", "lines"),
    [
        ((64 * N, 16), 32),
        ((49 * N, 16), 1),  # few rows of an image
        ((99 * N, 16), 11),
        ((64 * N, BLOCK), 8),
        ((64 * N, BLOCK + 1), 1),  # threads share its columns
        ((MANY * 1024, 16), 1),  # not a batch
        ((N, 16), 1),
        ((64 * N, 2, 2), 1),
        ((127 * N, 16), 1),  # a prime number of rows
    ],
)
def test_only_many_rows_of_few_columns_are_joined(shape: Shape, lines: int) -> None:
    found = lines_of(TensorType(shape, "float32"))
    assert found == lines


def test_other_sums_stay() -> None:
    net = gc.Net("net", dtype="float64")
    x = pixels(net, "x", 3)
    net.output("each", gc.sum(x, 1))
    net.output("all", gc.sum(x))
    net.output("kept", gc.sum(x, 0, keepdims=True))
    net.output("largest", gc.max(x, 0))
    net.output("whole", gc.sum(net.input("i", (64 * N, 3), dtype="int64"), 0))
    graph = net.graph()
    assert widen_sums(graph) is graph


def test_a_value_that_others_read_is_computed_once() -> None:
    net = gc.Net("net", dtype="float64")
    x = pixels(net, "x", 3)
    h = gc.exp(x, name="h")
    net.output("y", gc.sum(h, 0))
    net.output("h", h)
    after = assert_preserved(widen_sums, net.graph(), 3)
    assert [node.name for node in after if node.op.name == "exp"] == ["h"]


def test_a_number_for_each_row_is_no_part_of_it() -> None:
    net = gc.Net("net", dtype="float64")
    x, each = pixels(net, "x", 3), pixels(net, "each", 1)
    net.output("y", gc.sum(gc.mul(x, each, name="scaled"), 0))
    after = assert_preserved(widen_sums, net.graph(), 3)
    assert after["scaled"].type == after["x"].type


@settings(max_examples=20)
@given(nets())
def test_random_nets_keep_their_values(net: gc.Net) -> None:
    assert_preserved(widen_sums, share_batchnorm_statistics(differentiated(net)), 3)


def test_every_thread_count_and_backend_agrees() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 6, 9, 9)).astype("float32")
    net = gc.Net("net")
    h = gc.batchnorm(net.input("x", (N, 6, 9, 9)), name="bn")
    net.loss("loss", gc.mean(h * h * h))
    losses = {}
    for backend, threads in (("native", 1), ("native", 2), ("numpy", 1)):
        plan = gc.compile(net, batch=5, optimizer=gc.SGD(lr=0.1), backend=backend, threads=threads)
        ex = gc.Executor(plan, seed=0)
        losses[backend, threads] = [ex.step(x=x) for _ in range(5)]
    assert losses["native", 1] == losses["native", 2]
    np.testing.assert_allclose(losses["numpy", 1], losses["native", 1], rtol=1e-4, atol=1e-6)


def test_both_kinds_of_sum_count() -> None:
    for kind in (Sum, Mean):
        net = gc.Net("net", dtype="float64")
        net.output("y", gc.apply(kind((0,)), pixels(net, "x", 2)))
        assert widen_sums(net.graph()) is not net.graph()
