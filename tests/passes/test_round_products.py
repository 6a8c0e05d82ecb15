"""Products in bfloat16: which are rounded and where, and steps against a net by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.backends.numpy import functions
from graphc.backends.numpy.functions import Function
from graphc.backends.numpy.kernels import known_plan
from graphc.check.validation import ValidationError, validate_pass
from graphc.features.precision.bfloat16 import multiplied, rounded
from graphc.features.precision.option import layers_of
from graphc.ir.build import Builder
from graphc.ir.forms import TermOrder
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.text.parse import parse_graph
from graphc.ops import OPS
from graphc.ops.elementwise import Mul
from graphc.ops.linalg import MatrixProduct, order_of
from graphc.ops.loops.op import Scan
from graphc.ops.rounding import ToBfloat16
from graphc.ops.source import constant
from passes.contract import graph_pass
from passes.round_products import round_products
from passes.set_precision import Precision, SetPrecision
from passes.specialize import Specialize

RNG = np.random.default_rng(5)


def classifier() -> gc.Net:
    """Return a net of two layers with a loss."""
    net = gc.Net("classifier")
    x, y = net.input("x", (gc.N, 7)), net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.affine(x, 9, name="hidden"))
    scores = net.output("scores", gc.affine(h, 4, name="scores"))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def data(rows: int) -> dict[str, Array]:
    """Return a batch for the classifier."""
    x = RNG.standard_normal((rows, 7)).astype(np.float32)
    return {"x": x, "y": RNG.integers(0, 4, rows)}


def rounded_values(graph: Graph) -> set[str]:
    """Return the values that a graph rounds."""
    return {node.inputs[0] for node in graph if isinstance(node.op, ToBfloat16)}


def step_graph(precision: dict[str, str], net: gc.Net | None = None) -> Graph:
    """Return the graph of a training step."""
    plan = gc.compile(
        net or classifier(),
        batch=8,
        optimizer=gc.SGD(lr=0.1),
        backend="numpy",
        precision=precision,  # type: ignore[arg-type]
    )
    return plan.graphs["step"][-1].graph


def test_each_factor_is_rounded_once_for_all_its_products() -> None:
    graph = step_graph({"*": "bf16"})
    factors = {"x", "hidden.weight", "relu_1", "scores.weight", "d_scores", "d_hidden"}
    assert rounded_values(graph) == factors
    assert sum(isinstance(node.op, ToBfloat16) for node in graph) == len(factors)


def test_gradients_belong_to_the_layer_that_they_are_of() -> None:
    factors = {"relu_1", "scores.weight", "d_scores"}
    assert rounded_values(step_graph({"scores": "bf16"})) == factors
    assert rounded_values(step_graph({"*": "bf16", "hidden": "float32"})) == factors
    assert rounded_values(step_graph({"hidden": "float32", "*": "bf16"})) > factors


def orders(graph: Graph) -> dict[str, TermOrder | None]:
    """Return the order of each product of matrices, also of those in loops."""
    found = {n.name: order_of(n.op) for n in graph if isinstance(n.op, MatrixProduct)}
    for node in graph:
        if isinstance(node.op, Scan):
            found |= orders(node.op.step.graph(()))
    return found


def test_layers_in_blocks_and_their_gradients_have_that_order() -> None:
    graph = step_graph({"*": "bf16", "hidden": "bf16_blocks"})
    assert rounded_values(graph) == rounded_values(step_graph({"*": "bf16"}))
    blocks = {name for name, order in orders(graph).items() if order == "blocks"}
    assert blocks == {"relu_1", "d_hidden.weight"}
    assert {*orders(step_graph({"*": "bf16_blocks"})).values()} == {"blocks"}
    assert {*orders(step_graph({"memory": "bf16_blocks"}, loop_net())).values()} == {
        "blocks",
        None,
    }


def dot(a: Array, b: Array) -> Array:
    """Return a product in bfloat16."""
    return multiplied(rounded(a), rounded(b))


def test_steps_equal_those_by_hand() -> None:
    plan = gc.compile(
        classifier(), batch=9, optimizer=gc.SGD(lr=0.5), backend="numpy", precision={"*": "bf16"}
    )
    ex = gc.Executor(plan, seed=3)
    w, b, v, c = (
        np.array(ex.parameters[name])
        for name in ("hidden.weight", "hidden.bias", "scores.weight", "scores.bias")
    )
    for _ in range(3):
        feeds = data(9)
        ex.step(feeds)
        h = np.maximum(dot(feeds["x"], w) + b, 0)
        scores = dot(h, v) + c
        e = np.exp(scores - scores.max(1, keepdims=True))
        d = (e / e.sum(1, keepdims=True) - np.eye(4, dtype=np.float32)[feeds["y"]]) / np.float32(9)
        dh = np.where(h > 0, dot(d, v.T), 0).astype(np.float32)
        v, c = v - np.float32(0.5) * dot(h.T, d), c - np.float32(0.5) * d.sum(0)
        w, b = w - np.float32(0.5) * dot(feeds["x"].T, dh), b - np.float32(0.5) * dh.sum(0)
    assert np.allclose(ex.parameters["hidden.weight"], w, rtol=2.0**-7, atol=2.0**-9)
    assert np.allclose(ex.parameters["scores.bias"], c, rtol=2.0**-7, atol=2.0**-9)


def test_inference_has_the_bits_of_products_by_hand() -> None:
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"*": "bf16"})
    ex = gc.Executor(plan, seed=3)
    x = data(9)["x"]
    h = np.maximum(dot(x, ex.parameters["hidden.weight"]) + ex.parameters["hidden.bias"], 0)
    wanted = dot(h, ex.parameters["scores.weight"]) + ex.parameters["scores.bias"]
    assert np.array_equal(ex.forward(x=x)["scores"], wanted)


def test_frozen_weights_have_half_the_bytes() -> None:
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"*": "bf16"})
    ex = gc.Executor(plan, seed=3)
    frozen = gc.freeze(ex, batch=9)
    graph = frozen.plan.graphs["infer"][-1].graph
    weights = [node.type for node in graph if node.op.is_constant and node.type.rank == 2]
    assert {type.dtype for type in weights} == {"bfloat16"}
    x = data(9)["x"]
    assert np.array_equal(frozen.predict(x), ex.predict(x))
    ex.parameters["scores.weight"] = 2 * ex.parameters["scores.weight"]
    frozen.refresh(ex)
    assert np.array_equal(frozen.predict(x), ex.predict(x))


def test_an_unknown_layer_is_told_with_those_there_are() -> None:
    with pytest.raises(
        gc.GraphError, match="no layer that multiplies float32 matches 'score'"
    ) as told:
        step_graph({"score": "bf16"})
    assert "hidden, scores" in str(told.value)


def test_an_unknown_precision_is_told() -> None:
    with pytest.raises(
        gc.GraphError, match="'bf16_block' is not one of bf16, bf16_blocks, float32"
    ):
        step_graph({"*": "bf16_block"})
    for given in ("fp16", ["bf16"], {1: "bf16"}):
        with pytest.raises(gc.GraphError, match="nor a mapping"):
            step_graph(given)  # type: ignore[arg-type]


def test_a_net_of_float64_has_no_layer_to_round() -> None:
    net = gc.Net("wide", dtype="float64")
    net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    with pytest.raises(gc.GraphError, match="no layer that multiplies float32"):
        gc.compile(net, batch=4, backend="numpy", precision={"*": "bf16"})


def test_users_do_not_cast_to_bfloat16() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    with pytest.raises(gc.GraphError, match="factors of products alone"):
        gc.cast(x, "bfloat16")


def loop_net() -> gc.Net:
    """Return a net with an lstm."""
    net = gc.Net("loop")
    x, y = net.input("x", (gc.N, 4, 3)), net.input("y", (gc.N,), dtype="int64")
    h, _ = gc.lstm(x, 5, name="memory")
    scores = net.output("scores", gc.affine(h, 4, name="scores"))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def test_loops_round_at_each_step_only_what_changes() -> None:
    graph = step_graph({"memory": "bf16"}, loop_net())
    assert {"memory.weight_ih", "memory.weight_hh"} <= rounded_values(graph)
    steps = [node.op.step for node in graph if isinstance(node.op, Scan)]
    assert all(
        node.inputs[0] not in step.whole
        for step in steps
        for node in step.nodes
        if isinstance(node.op, ToBfloat16)
    )
    factors = [
        step.types[operand].dtype
        for step in steps
        for node in step.nodes
        if isinstance(node.op, MatrixProduct)
        for operand in node.inputs[:2]
    ]
    assert {*factors} == {"bfloat16"}


def recurrent_net(steps: int) -> gc.Net:
    """Return a net with a loop that has two layers and two results."""
    net = gc.Net("recurrent")

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(gc.affine(gc.concat([x, h], axis=1), 3, name="inner"))
        return gc.affine(h, 2, name="outer"), h

    x = net.input("x", (gc.N, steps, 3))
    ys, last = gc.scan(step, [x], [x[:, 0]], name="memory")
    net.output("ys", ys)
    net.loss("loss", gc.mean(gc.sum(last, axis=1)) + gc.mean(gc.sum(ys, axis=(1, 2))))
    return net


def product_dtypes(graph: Graph) -> set[str]:
    """Return the dtypes of the factors of products, also in loops."""
    inner = [product_dtypes(n.op.step.graph(())) for n in graph if isinstance(n.op, Scan)]
    products = (n for n in graph if isinstance(n.op, MatrixProduct))
    return {graph[n.inputs[0]].type.dtype for n in products}.union(*inner)


@pytest.mark.parametrize("steps", [4, 64])
def test_a_layer_in_a_loop_has_one_name_whatever_its_results(steps: int) -> None:
    net = recurrent_net(steps)
    assert layers_of(net.graph()) == ["memory.inner", "memory.outer"]
    for precision in ({"memory": "bf16"}, {"memory.inner": "bf16", "memory.outer": "bf16"}):
        assert product_dtypes(step_graph(precision, net)) == {"bfloat16"}
    plan = gc.compile(net, batch=2, backend="numpy", precision={"memory.inner": "bf16"})
    assert product_dtypes(plan.graphs["infer"][-1].graph) == {"bfloat16", "float32"}


def test_gradients_of_a_loop_belong_to_it() -> None:
    graph = step_graph({"scores": "bf16"}, loop_net())
    steps = [node.op.step for node in graph if isinstance(node.op, Scan)]
    assert not any(isinstance(node.op, ToBfloat16) for step in steps for node in step.nodes)


def test_a_value_is_rounded_before_it_is_moved() -> None:
    net = gc.Net("heads")
    x = net.input("x", (gc.N, 6, 8))
    net.output("y", gc.multi_head_attention(x, heads=2, name="heads"))
    plan = gc.compile(net, batch=4, backend="numpy", precision={"*": "bf16"})
    graph = plan.graphs["infer"][-1].graph
    for node in graph:
        if isinstance(node.op, ToBfloat16):
            source = graph[node.inputs[0]].op
            assert not (source.alias or source.permutation is not None)


def test_convolutions_in_groups_stay_in_float32() -> None:
    net = gc.Net("groups")
    x = net.input("x", (gc.N, 4, 5, 5))
    h = gc.conv2d(x, 4, 3, groups=4, name="depthwise")
    net.output("y", gc.conv2d(h, 6, 1, name="pointwise"))
    plan = gc.compile(net, batch=4, backend="numpy", precision={"*": "bf16"})
    rounds = rounded_values(plan.graphs["infer"][-1].graph)
    assert "pointwise.kernel" in {name.rpartition(".")[0] + ".kernel" for name in rounds}
    assert not any(name.startswith("depthwise.k") for name in rounds)
    with pytest.raises(gc.GraphError, match="matches 'depthwise'"):
        gc.compile(net, batch=4, backend="numpy", precision={"depthwise": "bf16"})


@pytest.mark.parametrize("to", ["bf16", "bf16_blocks"])
def test_a_saved_model_keeps_its_precision(tmp_path: Path, to: Precision) -> None:
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"hid*": to})
    ex = gc.Executor(plan, seed=3)
    gc.save(tmp_path / "model.gc", ex)
    loaded = gc.load(tmp_path / "model.gc")
    x = data(9)["x"]
    assert loaded.plan.precision == {"hid*": to}
    assert np.array_equal(loaded.predict(x), ex.predict(x))


@pytest.mark.parametrize("to", ["bf16", "bf16_blocks"])
def test_text_of_a_rounded_graph_reads_back(to: Precision) -> None:
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"*": to})
    frozen = gc.freeze(gc.Executor(plan), batch=9)
    for graph in (step_graph({"*": to}), frozen.plan.graphs["infer"][-1].graph):
        read = parse_graph(str(graph), OPS)
        assert str(read) == str(graph)
        assert orders(read) == orders(graph)
        order = {"bf16": "pairs", "bf16_blocks": "blocks"}[to]
        assert str(graph).count(f'order="{order}"') == len(orders(graph))


def test_text_with_another_order_is_refused() -> None:
    text = str(step_graph({"*": "bf16_blocks"})).replace('order="blocks"', 'order="block"', 1)
    with pytest.raises(gc.GraphError, match="order is 'block', not of type"):
        parse_graph(text, OPS)


def test_users_do_not_declare_bfloat16() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 3))
    declare = [
        lambda: net.input("y", (gc.N, 3), dtype="bfloat16"),
        lambda: net.parameter("w", (3, 3), dtype="bfloat16"),
        lambda: net.state("s", (3,), dtype="bfloat16"),
        lambda: gc.cast(x, "bfloat16"),
    ]
    for each in declare:
        with pytest.raises(gc.GraphError, match=r"^bfloat16 is the dtype of factors of products"):
            each()


def test_the_report_names_layers_by_precision() -> None:
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"hidden": "bf16"})
    assert "  products of bfloat16: hidden\n  products of float32: scores" in plan.report()
    plan = gc.compile(classifier(), batch=9, backend="numpy", precision={"*": "bf16_blocks"})
    assert "  products of bfloat16 in blocks: hidden, scores" in plan.report()
    assert "products of" not in gc.compile(classifier(), batch=9, backend="numpy").report()


def test_sums_over_middle_axes_are_not_products() -> None:
    net = gc.Net("sums")
    x = net.input("x", (gc.N, 5, 4, 3))
    net.output("product", gc.affine(gc.reshape(x, (gc.N, 60)), 2))
    net.output("sum", gc.sum(x, axis=1))
    net.output("shares", gc.softmax(x, axis=1))
    feed = RNG.standard_normal((3, 5, 4, 3)).astype(np.float32)
    plain, mixed = (
        gc.Executor(gc.compile(net, batch=3, backend="numpy", precision=given), seed=0).forward(
            x=feed
        )  # type: ignore[arg-type]
        for given in (None, {"*": "bf16"})
    )
    assert not np.array_equal(mixed["product"], plain["product"])
    assert np.array_equal(mixed["sum"], plain["sum"])
    assert np.array_equal(mixed["shares"], plain["shares"])


# ------------------------------------------------------------------ planted faults


def validated(folder: Path, to: Precision = "bf16") -> gc.Plan:
    """Return a validated plan in which all layers multiply bfloat16."""
    return gc.compile(
        classifier(),
        batch=9,
        optimizer=gc.SGD(lr=0.1),
        backend="numpy",
        precision={"*": to},
        validate=folder,
    )


@pytest.mark.parametrize("to", ["bf16", "bf16_blocks"])
def test_right_plans_are_valid(tmp_path: Path, to: Precision) -> None:
    assert validated(tmp_path, to).verify().ok


def truncated(out: Array, x: Array, words: Array, mask: Array) -> list[Callable[[], object]]:
    """Return a call that rounds toward zero."""
    return [partial(np.copyto, out, x.view(np.uint32) >> 16, casting="unsafe")]


def test_a_rounding_toward_zero_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = Function(truncated, ("uint32", "bool"), ())
    monkeypatch.setattr(functions, "FUNCTIONS", {**functions.FUNCTIONS, "to_bfloat16": broken})
    known_plan.cache_clear()  # it has kernels with the right function
    with pytest.raises(ValidationError, match="bf16"):
        validated(tmp_path)
    known_plan.cache_clear()


@graph_pass("bitwise", on_steps=False)
def scaled(graph: Graph) -> Graph:
    """Round products with a fault: `relu_1` is scaled where it is a factor."""
    b = Builder.like(graph)
    for node in round_products(graph):
        if node.name == "relu_1.bf16":
            more = constant(b, 1 + 2.0**-7, name="scale")
            product = b.apply(Mul(), b.value("relu_1"), more, name="scaled")
            node = replace(node, inputs=(product.name,))
        b.insert(node)
    b.take_roots(graph, {})
    return b.graph()


def test_a_wrong_factor_is_found() -> None:
    graph = SetPrecision((("*", "bf16"),))(Specialize(False)(classifier().graph()))
    validate_pass(round_products, graph)
    with pytest.raises(ValidationError, match="output 'scores'"):
        validate_pass(scaled, graph)


def test_a_factor_that_is_not_rounded_has_other_bits() -> None:
    x = data(9)["x"]
    found = []
    for precision in ({"*": "bf16"}, {"*": "bf16", "scores": "float32"}, {"scores": "bf16"}):
        plan = gc.compile(classifier(), batch=9, backend="numpy", precision=precision)  # type: ignore[arg-type]
        found.append(gc.Executor(plan, seed=3).predict(x).tobytes())
    assert len({*found}) == 3
