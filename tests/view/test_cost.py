"""Operations and bytes of instructions against counts made by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import graphc as gc
from graphc.compiler.cost import Cost, cost, kernel_flops, program_cost
from graphc.compiler.plan import Plan
from graphc.ir.expr import BodyBuilder
from graphc.ir.step_graph import flops
from graphc.ir.tensor_type import N
from graphc.kernels.kernel import Gemm, Loop
from graphc.ops.conv import Conv, ConvDw, ConvDx
from graphc.ops.pool import MaxPool
from tests.backends.loop_nets import FEATURES, LOOPS, STEPS, WIDTH
from tests.backends.native.window_function import specs

native = pytest.mark.needs("native")
BACKENDS = ["numpy", pytest.param("native", marks=native)]


def plan(backend: str, batch: int = 6, hidden: int = 7) -> Plan:
    net = gc.Net("small")
    h = gc.relu(gc.affine(net.input("x", (N, 5)), hidden, name="first"))
    scores = gc.affine(h, 3, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (N,), dtype="int64")))
    return gc.compile(net, batch=batch, optimizer=gc.SGD(lr=0.1, momentum=0.9), backend=backend)


def products(rows: int, hidden: int = 7) -> int:
    """Two products forward, two for the weights' gradients, one for the hidden layer's."""
    return 2 * rows * hidden * (5 + 3 + 5 + 3 + 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rows", [1, 4, 6])
def test_the_products_of_a_step_are_counted_once(backend: str, rows: int) -> None:
    program = plan(backend).programs["step"]
    found = program_cost(program, rows)
    assert found.products == products(rows)
    assert found.products < found.flops < 3 * found.products


@pytest.mark.parametrize("backend", BACKENDS)
def test_inference_has_the_forward_products(backend: str) -> None:
    assert program_cost(plan(backend).programs["infer"], 6).products == 2 * 6 * 7 * (5 + 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_product_of_a_larger_net_grows_with_the_rows(backend: str) -> None:
    program = plan(backend, batch=64, hidden=40).programs["step"]
    assert program_cost(program, 64).products == 64 * program_cost(program, 1).products


@pytest.mark.parametrize("backend", BACKENDS)
def test_bytes_are_those_of_distinct_operands_and_results(backend: str) -> None:
    program = plan(backend).programs["step"]
    first = next(i for i in program.instrs if {"first.weight", "x"} <= set(i.ins))
    assert cost(program, first, 6).bytes == 4 * (6 * 5 + 5 * 7 + 7 + 6 * 7)


def test_an_operand_read_twice_counts_once() -> None:
    net = gc.Net("square")
    x = net.input("x", (N, 3))
    net.output("out", gc.mul(x, x))
    (instr,) = (program := gc.compile(net, batch=2, backend="numpy").programs["infer"]).instrs
    assert cost(program, instr, 2) == Cost(flops=6, bytes=2 * 6 * 4)


def test_moving_data_is_no_operation() -> None:
    net = gc.Net("move")
    x = net.input("x", (N, 3))
    net.output("out", gc.concat([x, x], axis=1))
    program = gc.compile(net, batch=2, backend="numpy").programs["infer"]
    each = Cost(bytes=4 * (6 + 6))  # a kernel for each part reads x and writes half of the result
    assert program_cost(program, 2) == each + each


@pytest.mark.parametrize("backend", BACKENDS)
def test_gathering_elements_is_no_operation(backend: str) -> None:
    net = gc.Net("gathered")
    x = net.input("x", (N, 3, 4))
    net.output("out", gc.gather(x, net.input("i", (2,), dtype="int64"), axis=1) + 1.0)
    program = gc.compile(net, batch=5, backend=backend).programs["infer"]
    assert program_cost(program, 5).flops == 5 * 2 * 4


def test_convolution_and_pools_by_hand() -> None:
    net = gc.Net("images")
    x = net.input("x", (N, 5, 4, 3))
    kernel, back = net.parameter("w", (2, 2, 3, 7)), net.parameter("v", (2, 2, 3, 7))
    y = gc.apply(Conv((1, 1), (1, 1)), x, kernel)
    net.output("pooled", gc.apply(MaxPool((2, 3), (2, 1), (1, 1)), y))
    net.output("dw", gc.apply(ConvDw((2, 2, 3, 7), (1, 1), (1, 1)), x, y))
    net.output("dx", gc.apply(ConvDx((N, 5, 4, 3), (1, 1), (1, 1)), y, back))
    program = gc.compile(net, batch=2, backend="numpy").programs["infer"]
    found = program_cost(program, 2)
    each = 2 * (2 * 4 * 3 * 7) * (2 * 2 * 3)
    dx = 2 * (2 * 5 * 4 * 3) * (2 * 2 * 7)  # with the zeros around y, which are multiplied
    assert found.products == 2 * each + dx
    assert found.flops == 2 * each + dx + (2 * 2 * 1 * 7) * 5


def loop(write: Callable[[BodyBuilder], None]) -> Loop:
    builder = BodyBuilder()
    write(builder)
    return Loop(N, 5, "columns", builder.body(), "rows")


def test_the_steps_of_a_kernel_count_as_often_as_they_are_needed() -> None:
    def write(b: BodyBuilder) -> None:
        x, bias = b.load("x", "each", "float32"), b.load("bias", "column", "float32")
        doubled = bias + bias  # for each of 5 columns
        shifted = x + doubled  # for each of 3 * 5 elements
        total = shifted.sum("columns")  # the same
        b.store(total * 2.0, "total", "row")  # for each of 3 rows

    assert kernel_flops(loop(write), 3) == (5 + 15 + 15 + 3, 0)


def test_a_product_and_its_epilogue() -> None:
    builder = BodyBuilder()
    value = builder.product("float32") + builder.load("bias", "column", "float32")
    builder.store(value, "out", "each")
    gemm = Gemm(N, 4, 6, "a", "b", False, False, "float32", builder.body(), "rows")
    assert kernel_flops(gemm, 3) == (12, 2 * 3 * 4 * 6)


def test_costs_add_up() -> None:
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)


@pytest.mark.parametrize("backend", BACKENDS)
def test_updates_count_every_parameter_in_whatever_kernels_they_are(backend: str) -> None:
    net = gc.Net("updates")
    h = net.input("x", (N, 5))
    for width in (16, 16):
        h = gc.relu(gc.batchnorm(gc.affine(h, width)))
    net.loss("loss", gc.mean(gc.affine(h, 1)))
    optimizer = gc.SGD(lr=0.1, momentum=0.9)
    programs = gc.compile(net, batch=6, optimizer=optimizer, backend=backend).programs
    assert not any(i.kind == "call" for i in programs["step"].instrs)
    parameters = 5 * 16 + 16 * 16 + 2 * 3 * 16 + 16 + 1
    step, grad = (program_cost(programs[name], 6).flops for name in ("step", "grad"))
    assert step - grad == (2 + 2) * parameters + 1  # momentum, the step itself, the count of steps


def test_a_window_multiplies_no_zeros_between_pixels() -> None:
    """Those of the border count: they are multiplied."""
    y, dx, dw = (s.kernel() for s in specs((9, 9, 4), (3, 3, 4, 8), (2, 2), (1, 1)))
    assert kernel_flops(y, 5)[1] == kernel_flops(dw, 5)[1] == 2 * 5 * 16 * 36 * 8
    met = 5 * 2 + 4 * 1  # of 9 places in a line those between have one offset, the others two
    assert kernel_flops(dx, 5)[1] == 2 * 5 * met**2 * 8 * 4


@pytest.mark.parametrize("name", ["lstm", "with lengths", "reversed, with lengths"])
def test_a_loop_has_the_products_of_all_steps(name: str) -> None:
    program = gc.compile(LOOPS[name]("float32"), batch=8).programs["infer"]
    of_rows = 2 * STEPS * 4 * WIDTH * (FEATURES + WIDTH) + 2 * STEPS * WIDTH * 2
    assert program_cost(program, 6).products == 6 * of_rows
    types = {node.name: node.type for node in program.graph}
    assert flops(program.graph, types, 6)[1] == 6 * of_rows


def test_steps_that_follow_each_other_read_and_write_what_lies_around_them_once() -> None:
    program = gc.compile(LOOPS["lstm"]("float32"), batch=8).programs["infer"]
    (instr,) = (i for i in program.instrs if i.inside is not None and not i.inside.at_once)
    names = {*instr.ins, *instr.outs} - {instr.inside.workspace}
    wanted = sum(program.buffers[name].type.nbytes(6) for name in names)
    assert cost(program, instr, 6).bytes == wanted
    assert cost(program, instr, 6).products == 6 * 2 * STEPS * WIDTH * 4 * WIDTH
    assert cost(program, instr, 6).flops > cost(program, instr, 6).products


def test_a_report_counts_the_kernels_in_loops() -> None:
    plan = gc.compile(LOOPS["nested"]("float32"), batch=8)
    program = plan.programs["infer"]
    texts = str(program).splitlines()
    inside = sum(line.startswith(" " * 10) and " partition=" in line for line in texts)
    everywhere = sum(" partition=" in line for line in texts)
    assert f"{everywhere} kernels, of which {inside} in loops, 1 loop" in plan.report()
