"""Groups of nodes: each node is computed by one kernel."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.kernels.aliases import joined_columns
from graphc.kernels.group import Group
from graphc.kernels.groups import MOST
from graphc.kernels.kernel import Loop
from graphc.kernels.program import Instr, Program
from tests.tools.generate import trainable_net


def computed_twice(plan: Plan) -> list[str]:
    """Nodes that are in several instructions of a program."""
    return [
        f"{program.name}: {node}"
        for program in plan.programs.values()
        for node, number in Counter(n for i in program.instrs for n in i.nodes).items()
        if number > 1 and not _is_joined(program, node)
    ]


def _is_joined(program: Program, name: str) -> bool:
    """Whether its parts are copied, each by an instruction."""
    node = program.graph[name]
    types = [program.graph[operand].type for operand in node.inputs]
    return joined_columns(node, types) is not None


def test_nothing_joins_a_group_that_another_took_in() -> None:
    """The sigmoid is taken into the product's kernel; what reads x later has one of its own."""
    net = gc.Net("taken")
    x, z = net.input("x", (gc.N, 4)), net.input("z", (gc.N, 3))
    gate = gc.sigmoid(x)
    gated = gc.matmul(z, net.parameter("w", (3, 4))) * gate * x
    net.output("out", gated - x * gc.sum(gated, 0, keepdims=True))
    assert computed_twice(gc.compile(net, batch=32, backend="native")) == []


@pytest.mark.one_in(15)
@pytest.mark.parametrize("seed", [7129, *range(40)])
def test_no_node_is_computed_twice(seed: int) -> None:
    plan = gc.compile(trainable_net(seed), batch=1 + seed % 40, backend="native")
    assert computed_twice(plan) == []


def test_nothing_is_drawn_where_pixels_are_read_elsewhere() -> None:
    """Of one pixel a mask has the space of what a pool reads: it stays in a kernel of its own."""
    net = gc.Net("one_pixel")
    x = net.input("x", (gc.N, 5, 1))
    h = x * net.parameter("scale", (1,), init=1.0)
    out = gc.dropout(gc.max_pool(h, 3, stride=1, padding=1), keep_prob=0.5)
    net.output("out", out)
    net.loss("loss", gc.mean(out))
    data = np.arange(1.0, 16, dtype=np.float32).reshape(3, 5, 1)
    found = []
    for backend in ("numpy", "native"):
        plan = gc.compile(net, batch=3, backend=backend)
        found.append(gc.Executor(plan, seed=0).forward(x=data, train=True))
    assert np.array_equal(found[0]["out"], found[1]["out"])
    assert 0 < (found[0]["out"] == 0).sum() < 15


def test_a_group_keeps_that_it_gathers_single_numbers() -> None:
    """Its rows have no dimension after the first, which is not to gather nothing."""
    group, other = (Group(space=(6, 1), axis=None, places=places) for places in ((), None))
    group.prepend(other)
    assert group.places == ()


def test_the_counter_of_updates_is_in_no_product() -> None:
    """A product of one element is as large as the counter, whose place is not an element's."""
    net = gc.Net("one")
    x, t = net.input("x", (gc.N, 1)), net.input("t", (gc.N, 1))
    net.loss("loss", gc.mse_loss(gc.affine(x, 1), t))
    plan = gc.compile(net, batch=3, optimizer=gc.Adam(), backend="native")
    for instr in plan.programs["step"].instrs:
        if instr.kernel == "gemm":
            assert not {"updates.next", "draws.next"} & set(instr.nodes)


@pytest.mark.parametrize("whole", [True, False])
def test_columns_of_what_is_computed_in_the_same_kernel_are_read_there(whole: bool) -> None:
    """The gradient of a concat of one value is all columns of a value that nobody else reads."""
    net = gc.Net("columns", dtype="float64")
    x, t = net.input("x", (gc.N, 2)), net.input("t", ())
    inner = gc.tanh(gc.affine(x, 1) * t)
    joined = gc.concat([inner] if whole else [inner, x], axis=1)
    net.loss("loss", gc.mean(gc.tanh(joined) ** 2))
    data = np.arange(8.0).reshape(4, 2)
    found = []
    for backend in ("numpy", "native"):
        kept = gc.passes.without("cse", "fold_constants")
        plan = gc.compile(net, batch=4, backend=backend, passes=kept)
        assert plan.verify().ok
        ex = gc.Executor(plan, seed=0)
        ex.forward(x=data, t=0.3, train=True)
        found.append(ex.backward())
    for name, gradient in found[0].items():
        np.testing.assert_allclose(found[1][name], gradient, rtol=1e-12)


def step_of(net: gc.Net) -> tuple[Instr, ...]:
    plan = gc.compile(net, batch=32, optimizer=gc.SGD(lr=0.1), backend="native")
    return tuple(plan.programs["step"].instrs)


def test_the_gradient_of_a_long_activation_is_in_the_product_before() -> None:
    """It is recomputed from what forward kept, so it may join the product of its cotangent."""
    net = gc.Net("gelu")
    x = net.input("x", (gc.N, 5, 8))
    h = gc.gelu(gc.affine(x, 16, axis=-1, name="up"), name="gelu")
    net.loss("loss", gc.mse_loss(gc.affine(h, 8, axis=-1, name="down"), x))
    (product,) = [i for i in step_of(net) if "d_down.flat" in i.nodes]
    assert "d_up" in product.outs


def test_what_is_not_summed_over_rows_keeps_out_of_the_sums() -> None:
    """The gradient of a layernorm is one kernel by rows, its two sums are one by columns."""
    net = gc.Net("norm")
    x = net.input("x", (gc.N, 5, 8))
    h = gc.layernorm(gc.affine(x, 8, axis=-1, name="first"), name="norm")
    net.loss("loss", gc.mse_loss(gc.affine(h, 8, axis=-1, name="second"), x))
    bodies = [i.body for i in step_of(net) if isinstance(i.body, Loop)]
    (sums,) = [b for b in bodies if "norm.gamma.next" in b.body.written]
    (rows,) = [b for b in bodies if "d_first" in b.body.written]
    assert set(sums.body.written) == {"norm.gamma.next", "norm.beta.next"}
    assert (sums.axis, rows.axis) == ("rows", "columns")
    assert "d_second.flat" in sums.body.loads
    assert "d_second.flat" in rows.body.loads


def test_a_long_chain_is_cut_into_equal_kernels() -> None:
    """Groups have a bounded number of nodes, and those of equal layers the same body."""
    net = gc.Net("elements")
    first = h = net.input("x", (gc.N, 8))
    for _ in range(MOST):
        h = gc.tanh(h * first)
    net.output("out", h)
    plan = gc.compile(net, batch=4, backend="native")
    instrs = [instr for instr in plan.programs["infer"].instrs if instr.body is not None]
    assert {len(instr.nodes) for instr in instrs} == {MOST}
    steps = {instr.body.body.steps for instr in instrs[1:] if isinstance(instr.body, Loop)}
    assert len({tuple(step.op for step in body) for body in steps}) == 1
    assert computed_twice(plan) == []
