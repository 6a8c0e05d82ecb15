"""Which products get an order of terms, and that no other pass gives them another one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.features.precision.bfloat16 import multiplied, rounded
from graphc.features.precision.option import layers_of
from graphc.ir.forms import TermOrder
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Op
from graphc.ir.step_graph import nested
from graphc.ir.tensor_type import TensorType
from graphc.ops.conv import Conv, ConvDw, ConvDx
from graphc.ops.linalg import Affine, MatMul, OrderedProduct, order_of
from graphc.ops.loops.op import Scan
from passes.backward import Backward
from passes.set_precision import SetPrecision
from passes.specialize import Specialize

RNG = np.random.default_rng(8)


def numbers(*shape: int) -> Array:
    """Return random float32 numbers."""
    return RNG.standard_normal(shape).astype(np.float32)


def orders(graph: Graph) -> dict[str, TermOrder | None]:
    """Return the order of each product of a graph, by name."""
    return {node.name: order_of(node.op) for node in graph if isinstance(node.op, OrderedProduct)}


def ordered(net: gc.Net, *patterns: tuple[str, Any]) -> Graph:
    """Return the graph of training in which layers have a precision."""
    return SetPrecision(patterns)(Specialize(train=True)(net.graph()))


def test_later_patterns_override_those_before() -> None:
    net = gc.Net("net")
    h = gc.affine(net.input("x", (gc.N, 5)), 4, name="hidden")
    net.output("y", gc.affine(gc.relu(h), 3, bias=False, name="scores"))
    patterns = (("*", "bf16"), ("sc*", "bf16_blocks"))
    assert orders(ordered(net, *patterns)) == {"hidden": "pairs", "scores": "blocks"}
    assert orders(ordered(net, *reversed(patterns))) == {"hidden": "pairs", "scores": "pairs"}
    plain = Specialize(train=True)(net.graph())
    assert SetPrecision((("*", "float32"),))(plain) is plain


def test_gradients_have_the_order_of_their_product() -> None:
    net = gc.Net("net")
    image = gc.conv2d(net.input("x", (gc.N, 3, 6, 6)), 4, 3, name="filters")
    h = gc.affine(image, 4, name="hidden")
    net.loss("loss", gc.mean(gc.affine(h, 2, name="scores") ** 2))
    graph = ordered(net, ("filters", "bf16"), ("hidden", "bf16_blocks"))
    weights = tuple(f"{layer}.weight" for layer in ("filters", "hidden", "scores"))
    found = orders(Backward(("loss",), weights)(graph))
    assert found == {
        **{"filters.conv": "pairs", "d_filters.kernel": "pairs"},
        **{"hidden": "blocks", "d_hidden.flat": "blocks", "d_hidden.weight": "blocks"},
        **{"scores": None, "d_hidden": None, "d_scores.weight": None},
    }


def test_gradients_for_an_optimizer_with_a_name_are_rounded() -> None:
    net = gc.Net("net")
    h = gc.affine(net.input("x", (gc.N, 5)), 4, name="hidden")
    net.loss("loss", gc.mean(gc.affine(h, 2, name="scores") ** 2))
    optimizer = gc.SGD(lr=0.1, name="other")
    precision: Any = {"*": "bf16"}
    plan = gc.compile(net, batch=4, optimizer=optimizer, backend="numpy", precision=precision)
    last = plan.graphs["step"][-1].graph
    products = [node for node in last if isinstance(node.op, OrderedProduct)]
    assert len(products) == 5
    assert {last[name].type.dtype for p in products for name in p.inputs[:2]} == {"bfloat16"}


def test_a_derivative_in_the_net_belongs_to_its_layer() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 5))
    y = gc.sum(gc.tanh(gc.affine(x, 4, name="hidden")))
    (dx,) = gc.grad(y, [x])
    net.output("dx", gc.affine(dx, 2, name="after"))
    found = orders(ordered(net, ("hidden", "bf16")))
    assert found == {"hidden": "pairs", "grad_1.d_x": "pairs", "after": None}
    assert layers_of(net.graph()) == ["hidden", "after"]


def test_second_derivatives_through_a_loop_belong_to_its_layers() -> None:
    net = gc.Net("loop")
    x = net.input("x", (gc.N, 3, 2))
    h, _ = gc.gru(x, 2, name="memory")
    slope = gc.grad(gc.sum(gc.tanh(h)), x)
    bend = gc.grad(gc.sum(gc.tanh(slope)), x)
    net.output("bend", bend)
    assert layers_of(net.graph()) == ["memory.affine_1", "memory.affine_2"]
    made = nested(ordered(net, ("memory.affine_1", "bf16")))
    products = {
        (node.origin or node.name, order_of(node.op))
        for node in made
        if isinstance(node.op, OrderedProduct)
    }
    assert products == {("affine_1", "pairs"), ("affine_2", None)}


def test_loops_that_do_the_same_have_their_own_precision() -> None:
    net = gc.Net("loops")
    x = net.input("x", (gc.N, 4, 3))
    weight = net.parameter("weight", (3, 3))

    first = x[:, 0]

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(x + gc.matmul(h, weight, name="inner"))
        return h, h

    for name in ("one", "other"):
        net.output(name, gc.scan(step, x, first, name=name)[1])
    given = [(node.name, node.op) for node in ordered(net, ("other.inner", "bf16"))]
    steps = {name: op.step.graph(()) for name, op in given if isinstance(op, Scan)}
    found = {name.partition(".")[0]: orders(step) for name, step in steps.items()}
    assert found == {"one": {"inner": None}, "other": {"inner": "pairs"}}
    precision: Any = {"other.inner": "bf16"}
    plan = gc.compile(net, batch=2, backend="numpy", precision=precision)
    made = gc.Executor(plan, seed=0).forward(x=numbers(2, 4, 3))
    assert not np.array_equal(made["one"], made["other"])


# ------------------------------------------------------------------ what later passes keep


@pytest.mark.parametrize("to", ["bf16", "bf16_blocks"])
@pytest.mark.parametrize("chosen", ["one", "other"])
def test_layers_that_multiply_the_same_keep_their_own_precision(chosen: str, to: str) -> None:
    net = gc.Net("same")
    x, weight = net.input("x", (gc.N, 5, 2)), net.parameter("weight", (10, 3), gc.Normal(1.0))
    net.output("one", gc.affine(x, weight=weight, bias=False, name="one"))
    flat = gc.reshape(x, (gc.N, 10))
    net.output("other", gc.affine(flat, weight=weight, bias=False, name="other"))
    precision: Any = {chosen: to}
    ex = gc.Executor(gc.compile(net, batch=4, backend="numpy", precision=precision), seed=1)
    x_fed = numbers(4, 5, 2)
    made, w = ex.forward(x=x_fed), ex.parameters["weight"]
    order: TermOrder = "pairs" if to == "bf16" else "blocks"
    wanted = multiplied(rounded(x_fed.reshape(4, 10)), rounded(w), order=order)
    assert np.array_equal(made.pop(chosen), wanted)
    (plain,) = made.values()
    assert np.allclose(plain, x_fed.reshape(4, 10) @ w, rtol=1e-5)
    assert not np.allclose(plain, wanted, rtol=1e-5)


def test_a_statistic_is_that_of_the_layer_in_its_own_precision() -> None:
    net = gc.Net("statistic")
    x, weight = net.input("x", (gc.N, 3)), net.parameter("weight", (3, 2), gc.Normal(1.0))
    plain = gc.affine(x, weight=weight, bias=False, name="plain")
    chosen = gc.affine(x, weight=weight, bias=False, name="chosen")
    net.output("normal", gc.batchnorm(chosen, name="norm"))
    net.loss("loss", gc.mean(plain))
    plan = gc.compile(
        net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy", precision={"chosen": "bf16"}
    )
    ex = gc.Executor(plan, seed=1)
    w, x_fed = np.array(ex.parameters["weight"]), numbers(4, 3)
    loss = ex.step(x=x_fed)
    mean = multiplied(rounded(x_fed), rounded(w)).mean(0)
    assert np.allclose(ex.state["norm.running_mean"], 0.1 * mean, rtol=1e-5)
    assert np.isclose(loss, (x_fed @ w).mean(), rtol=1e-5)


@pytest.mark.parametrize("order", ["pairs", "blocks"])
def test_a_product_of_frozen_weights_is_rounded(order: TermOrder) -> None:
    net = gc.Net("frozen")
    net.output("y", gc.matmul(net.parameter("a", (2, 9)), net.parameter("b", (9, 3)), name="both"))
    precision: Any = {"both": "bf16" if order == "pairs" else "bf16_blocks"}
    ex = gc.Executor(gc.compile(net, batch=1, backend="numpy", precision=precision))
    frozen = gc.freeze(ex, batch=1)
    for _ in range(2):
        ex.parameters["a"], ex.parameters["b"] = a, b = numbers(2, 9), numbers(9, 3)
        frozen.refresh(ex)
        wanted = multiplied(rounded(a), rounded(b), order=order)
        assert np.array_equal(ex.forward()["y"], wanted)
        assert np.array_equal(frozen.forward()["y"], wanted)


def test_a_folded_batchnorm_leaves_the_order_of_its_product() -> None:
    net = gc.Net("folded")
    h = gc.affine(net.input("x", (gc.N, 5)), 4, bias=False, name="hidden")
    net.output("y", gc.batchnorm(h))
    plan = gc.compile(net, batch=4, backend="numpy", precision={"hidden": "bf16_blocks"})
    frozen = gc.freeze(gc.Executor(plan), batch=4)
    last = frozen.plan.graphs["infer"][-1].graph
    (product,) = (node for node in last if isinstance(node.op, OrderedProduct))
    assert product.op == Affine(order="blocks")
    assert last[product.inputs[1]].type.dtype == "bfloat16"


# ------------------------------------------------------------------ the order of an op

SIZES = (2, 2), (1, 1)
PRODUCTS: dict[str, tuple[Op, tuple[tuple[int, ...], ...]]] = {
    "matmul": (MatMul(True, False, order="pairs"), ((35, 3), (35, 4))),
    "stack": (MatMul(order="blocks"), ((2, 3, 35), (2, 35, 4))),
    "affine": (Affine(order="blocks"), ((3, 35), (35, 4), (4,))),
    "conv": (Conv(*SIZES, order="pairs"), ((2, 5, 5, 3), (3, 3, 3, 4))),
    "conv_dx": (ConvDx((2, 5, 5, 3), *SIZES, order="blocks"), ((2, 2, 2, 4), (3, 3, 3, 4))),
    "conv_dw": (ConvDw((3, 3, 3, 4), *SIZES, order="blocks"), ((2, 5, 5, 3), (2, 2, 2, 4))),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_an_ordered_product_rounds_factors_of_float32(case: str) -> None:
    op, shapes = PRODUCTS[case]
    ins = [numbers(*shape) for shape in shapes]
    bits = [rounded(x) for x in ins[:2]]
    found = op.reference(ins)
    assert np.array_equal(found, op.reference([*bits, *ins[2:]]))
    assert found.dtype == np.float32


def test_an_order_is_of_bfloat16_alone() -> None:
    for dtype, order in (("bfloat16", None), ("float64", "pairs"), ("int8", "blocks")):
        x = TensorType((3, 3), dtype)
        with pytest.raises(ValueError, match=f"products of {dtype} (need an|have no) order"):
            MatMul(order=order).infer([x, x])  # type: ignore[arg-type]
    x, w = TensorType((2, 5, 5, 4), "float32"), TensorType((3, 3, 2, 4), "float32")
    with pytest.raises(ValueError, match="in groups do not multiply bfloat16"):
        Conv(*SIZES, groups=2, order="pairs").infer([x, w])


def test_products_that_are_not_rounded_are_refused() -> None:
    net = gc.Net("net")
    net.output("y", gc.affine(net.input("x", (gc.N, 5)), 4, name="hidden"))
    entries = tuple(each for each in gc.passes.DEFAULT if each != "round_products")
    passes = gc.passes.PassList(entries)
    with pytest.raises(gc.GraphError, match="'hidden' has an order of terms, but its factors are"):
        gc.compile(net, batch=4, backend="numpy", precision={"*": "bf16"}, passes=passes)
