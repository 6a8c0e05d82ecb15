from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.access import AxisMap, merged_axes
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import Dim
from graphc.ops.reduce import Max, Mean, Min
from graphc.ops.sums import BroadcastTo, Sum
from passes.middle_axes import middle_axes
from tests.passes.same import assert_preserved, differentiated

N = gc.N
ROWS = 3


def net_of(
    shape: Sequence[Dim], make: Callable[[gc.Value], gc.Value], dtype: str = "float64"
) -> gc.Net:
    net = gc.Net("net", dtype="float64")
    net.output("y", make(net.input("x", shape, dtype=dtype)))
    return net


def shown(graph: Graph) -> str:
    return "".join(line for line in str(graph).splitlines(keepends=True) if "input()" not in line)


def after(net: gc.Net) -> Graph:
    return assert_preserved(middle_axes, net.graph(), ROWS)


def calls(net: gc.Net, *programs: str, **options: Any) -> list[str]:
    plan = gc.compile(net, batch=ROWS, **options)
    kinds = [i.kind for name in programs or ("infer",) for i in plan.programs[name].instrs]
    return [kind for kind in kinds if kind == "call"]


# ------------------------------------------------------------------ reductions

GOLDEN = {
    "sum": """\
graph net
y.constant_1: float64[1, 6] = constant()  data=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
y.reshape_1: float64[N, 6, 4] = reshape(x)
y.matmul_1: float64[N, 1, 4] = matmul(y.constant_1, y.reshape_1)
y: float64[N, 4] = reshape(y.matmul_1)
output y = y
""",
    "max": """\
graph net
y.reshape_1: float64[N, 2, 50, 4] = reshape(x)
y.max_1: float64[N, 2, 4] = max(y.reshape_1)  axes=(2,)
y.max_2: float64[N, 4] = max(y.max_1)  axes=(1,)
y: float64[N, 4] = reshape(y.max_2)
output y = y
""",
    "transposed": """\
graph net
y.transpose_1: float64[N, 4, 67] = transpose(x)  axes=(0, 2, 1)
y: float64[N, 4] = max(y.transpose_1)  axes=(2,)
output y = y
""",
    "log_softmax": """\
graph net
y.max_1: float64[N, 2, 1, 4] = max(x)  axes=(2,) keepdims=True
y.sub_1.broadcast_to_1: float64[N, 2, 3, 4] = broadcast_to(y.max_1)
y.sub_1: float64[N, 2, 3, 4] = sub(x, y.sub_1.broadcast_to_1)
y.exp_1: float64[N, 2, 3, 4] = exp(y.sub_1)
y.sum_1.sum_1.constant_1: float64[1, 3] = constant()  data=[1.0, 1.0, 1.0]
y.sum_1.sum_1.reshape_1: float64[2*N, 3, 4] = reshape(y.exp_1)
y.sum_1.sum_1.matmul_1: float64[2*N, 1, 4] = matmul(y.sum_1.sum_1.constant_1, \
y.sum_1.sum_1.reshape_1)
y.sum_1.sum_1: float64[N, 2, 4] = reshape(y.sum_1.sum_1.matmul_1)
y.sum_1: float64[N, 2, 1, 4] = reshape(y.sum_1.sum_1)
y.log_1: float64[N, 2, 1, 4] = log(y.sum_1)
y.broadcast_to_1: float64[N, 2, 3, 4] = broadcast_to(y.log_1)
y: float64[N, 2, 3, 4] = sub(y.sub_1, y.broadcast_to_1)
output y = y
""",
}


def test_golden() -> None:
    made = {
        "sum": net_of((N, 2, 3, 4), lambda x: gc.sum(x, (1, 2), name="y")),
        "max": net_of((N, 10, 10, 4), lambda x: gc.max(x, (1, 2), name="y")),
        "transposed": net_of((N, 67, 4), lambda x: gc.max(x, 1, name="y")),
        "log_softmax": net_of((N, 2, 3, 4), lambda x: gc.log_softmax(x, 2, name="y")),
    }
    for name, net in made.items():
        assert shown(after(net)) == GOLDEN[name], name


SHAPES: list[tuple[tuple[Dim, ...], tuple[int, ...]]] = [
    ((N, 5, 4), (1,)),
    ((N, 5, 4), (0, 2)),
    ((N, 2, 3, 4), (0, 2)),
    ((N, 2, 3, 4), (1, 3)),
    ((N, 2, 3, 4), (0, 1, 3)),
    ((N, 2, 3, 4, 2), (1, 3)),
    ((N, 2, 3, 4, 2), (0, 2, 4)),
    ((N, 64, 2), (1,)),
    ((N, 5, 26, 3), (1, 2)),
    ((N, 67, 3), (1,)),
    ((3, N, 4), (1,)),
    ((2, 3, N), (1,)),
    ((2, 3, N), (0, 2)),
    ((N, 3, N), (1,)),
    ((N, 3), ()),
]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("shape", "axes"), SHAPES)
def test_reductions_have_kernels(shape: tuple[Dim, ...], axes: tuple[int, ...]) -> None:
    for op in (Sum, Mean, Max, Min):
        for keepdims in (False, True):
            net = net_of(shape, lambda x, op=op, k=keepdims: gc.apply(op(axes, k), x))  # type: ignore[misc]
            after(net)
            assert not calls(net), f"{op.__name__} of {shape} over {axes}"


def test_axes_may_stand_in_any_order() -> None:
    net = net_of((N, 2, 3, 4), lambda x: gc.apply(Sum((2, 1)), x))
    assert not calls(net)
    after(net)


def test_no_elements_are_reduced_as_numpy_does() -> None:
    after(net_of((N, 0, 3), lambda x: gc.sum(x, 1)))
    after(net_of((N, 2, 0), lambda x: gc.sum(x, 1)))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_over_any_axis_has_a_kernel(axis: int) -> None:
    for op in (gc.softmax, gc.log_softmax):
        net = net_of((N, 5, 4), lambda x, op=op: op(x, axis))  # type: ignore[misc]
        after(net)
        assert not calls(net)
        assert not calls(net_of((N,), lambda x, op=op: op(x)))  # type: ignore[misc]


def test_a_softmax_beside_the_batch_is_still_called() -> None:
    graph = net_of((4, N, 2), lambda x: gc.softmax(x, 1)).graph()
    assert middle_axes(graph) is graph


def test_the_index_of_an_extreme_between_others_has_a_kernel() -> None:
    for op in (gc.argmax, gc.argmin):
        net = net_of((N, 5, 4), lambda x, op=op: op(x, axis=1))  # type: ignore[misc]
        after(net)
        assert not calls(net)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_extremes_and_their_indices_meet_nan_as_numpy_does(backend: str) -> None:
    x = np.random.default_rng(0).normal(size=(ROWS, 130, 3)).astype(np.float32)
    x[0, 7, 0], x[1, :, 1], x[2, 129, 2], x[2, 4, 0] = np.nan, np.nan, np.nan, -np.inf
    net = gc.Net("net")
    value = net.input("x", (N, 130, 3))
    for name in ("max", "min", "argmax", "argmin"):
        net.output(name, getattr(gc, name)(value, 1))
    found = gc.Executor(gc.compile(net, batch=ROWS, backend=backend)).forward(x=x)
    for name, array in found.items():
        np.testing.assert_array_equal(array, getattr(np, name)(x, axis=1), name)


@pytest.mark.parametrize("dtype", ["int64", "int32"])
@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_whole_numbers_are_reduced_exactly(dtype: str, backend: str) -> None:
    ends = np.iinfo(dtype)
    x = np.random.default_rng(0).integers(ends.min, ends.max, (ROWS, 4, 19, 3), dtype, True)
    x[0, 0, 0], x[1, :, :, 1], x[2, :, :, 1] = ends.min, ends.max, ends.min
    net = gc.Net("net")
    value = net.input("x", (N, 4, 19, 3), dtype=dtype)
    cases = {
        f"{op.name}_{''.join(map(str, axes))}": (op, axes)
        for op in (Sum, Max, Min)
        for axes in ((0,), (1, 2, 3), (1,), (1, 2), (0, 2), (0, 1, 2, 3))
    }
    for name, (op, axes) in cases.items():
        net.output(name, gc.apply(op(axes), value))
    assert not calls(net, backend=backend)
    found = gc.Executor(gc.compile(net, batch=ROWS, backend=backend)).forward(x=x)
    for name, (op, axes) in cases.items():
        by_numpy = {Sum: np.sum, Max: np.max, Min: np.min}[op]
        options = {"dtype": dtype} if op is Sum else {}
        np.testing.assert_array_equal(found[name], by_numpy(x, axis=axes, **options), name)


def test_bools_are_still_called() -> None:
    graph = net_of((N, 3, 4), lambda x: gc.max(x > 0, 1)).graph()
    assert middle_axes(graph) is graph


# ------------------------------------------------------------------ operands


def test_an_operand_is_broadcast_by_itself() -> None:
    net = gc.Net("net", dtype="float64")
    x, k = net.input("x", (N, 2, 3, 4)), net.input("k", (N, 1, 1, 4))
    net.output("y", gc.mul(x, k, name="y"))
    assert shown(after(net)) == (
        "graph net\n"
        "y.broadcast_to_1: float64[N, 2, 3, 4] = broadcast_to(k)\n"
        "y: float64[N, 2, 3, 4] = mul(x, y.broadcast_to_1)\n"
        "output y = y\n"
    )


PAIRS: list[tuple[tuple[Dim, ...], ...]] = [
    ((N, 4, 5, 3), (N, 1, 1, 3)),
    ((N, 1, 3), (N, 4, 3)),
    ((2, 1, 3), (7, 1)),
    ((N, 1, 5, 5), (N, 3, 5, 5)),
    ((N, 1, 5, 1), (N, 3, 1, 20)),
    ((N, 2, 1, 4, 1), (3, 1, 17)),
    ((1, 2, 1, 3), (N, 1, 2, 3)),
]


@pytest.mark.parametrize("shapes", PAIRS)
def test_operands_of_all_shapes(shapes: tuple[tuple[Dim, ...], ...]) -> None:
    net = gc.Net("net", dtype="float64")
    a, b = (net.input(name, shape) for name, shape in zip("ab", shapes, strict=True))
    net.output("less", a < b)
    net.output("chosen", gc.where(a > 0, b, a))
    net.output("quotient", a / (1 + b * b))
    after(net)
    assert not calls(net)


def test_only_operands_without_a_broadcast_kind_are_broadcast() -> None:
    net = gc.Net("net", dtype="float64")
    x, k, row = net.input("x", (N, 2, 3, 4)), net.input("k", (N, 1, 1, 4)), net.input("r", (4,))
    net.output("y", gc.where(x > row, k, row))
    made = [node for node in after(net) if isinstance(node.op, BroadcastTo)]
    assert [node.inputs for node in made] == [("k",)]


def test_an_operand_that_is_read_twice_is_broadcast_once() -> None:
    net = gc.Net("net", dtype="float64")
    x, k = net.input("x", (N, 2, 4)), net.input("k", (N, 1, 4))
    net.output("y", gc.where(x > 0, k, k))
    assert sum(isinstance(node.op, BroadcastTo) for node in after(net)) == 1


def test_what_has_a_kernel_stays_as_it_is() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (N, 2, 3, 4))
    net.output("y", gc.max(gc.mean(x, (0, 1)) + x * gc.sum(x, 3, keepdims=True), (1, 2, 3)))
    net.output("z", gc.broadcast_to(net.input("k", (N, 1, 1, 4)), (N, 2, 3, 4)))
    net.output("pairs", net.input("p", (3, 1, 2)) + net.input("q", (1, N, 2)))  # still a call
    graph = net.graph()
    assert middle_axes(graph) is graph


def excited() -> gc.Net:
    """Squeeze-and-excite, and attention with a mask."""
    net = gc.Net("net")
    x, mask = net.input("x", (N, 6, 5, 8)), net.input("mask", (N, 1, 5, 8))
    s = gc.affine(gc.mean(x, (1, 2)), 8, name="squeeze")
    y = gc.relu(x * gc.reshape(gc.sigmoid(s), (N, 1, 1, 8)), name="excited")
    net.output("y", y)
    net.loss("loss", gc.mean(gc.softmax(y + mask, 1) ** 2) + gc.mean(gc.max(y, (0, 2))))
    return net


def test_a_broadcast_operand_is_read_where_the_op_is_computed() -> None:
    program = gc.compile(excited(), batch=ROWS).programs["infer"]
    (kernel,) = (i.body for i in program.instrs if "excited" in i.nodes)
    assert kernel is not None
    assert [step.op for step in kernel.body.steps].count("fetch") == 1
    assert kernel.body.written == ("excited",)


def test_gradients() -> None:
    assert_preserved(middle_axes, differentiated(excited()), ROWS)
    assert not calls(excited(), "infer", "grad", "step", optimizer=gc.SGD(lr=0.1))


def test_a_second_run_changes_nothing() -> None:
    graph = middle_axes(differentiated(excited()))
    assert middle_axes(graph) is graph


def test_taken_names_are_left_alone() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (N, 2, 4))
    net.output("y", gc.mul(x, net.input("k", (N, 1, 4)), name="y"))
    net.output("z", gc.exp(x, name="y.broadcast_to_1"))
    assert set(after(net).nodes) == {"x", "k", "y", "y.broadcast_to_1", "y.broadcast_to_2"}


def test_new_nodes_carry_the_lines_of_the_old() -> None:
    declared = net_of((N, 2, 3, 4), lambda x: gc.mean(x, (1, 3), name="y")).graph()
    made = middle_axes(declared)
    assert len(made) > len(declared)
    assert {node.locs for node in made if node.name != "x"} == {declared["y"].locs}


# ------------------------------------------------------------------ access maps


def test_repeated_axes_merge_with_repeated_ones_only() -> None:
    def repeated(size: int) -> AxisMap:
        return AxisMap(0, size)

    last = AxisMap(1, 8)
    shape, maps = merged_axes((2, 4, 5, 8), [AxisMap(8, 2), repeated(4), repeated(5), last])
    assert (shape, maps) == ((2, 20, 8), [AxisMap(8, 2), repeated(20), last])
    shape, maps = merged_axes((2, 4, 8, 5), [AxisMap(8, 2), repeated(4), last, repeated(5)])
    assert shape == (2, 4, 8, 5)
    shape, maps = merged_axes((2, 4, 3, 8), [AxisMap(24, 2), repeated(4), AxisMap(8, 3), last])
    assert (shape, maps) == ((2, 4, 24), [AxisMap(24, 2), repeated(4), AxisMap(1, 24)])
