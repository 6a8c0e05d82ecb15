"""Scan and Loop of other tools become loops of the net, or are unrolled where they cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load
from graphc.ops.loops.op import Scan, loops
from tests.onnx import models
from tests.onnx.compare import agree
from tests.onnx.models import model
from tests.onnx.runtimes import by_runtime
from tests.onnx.test_load import numbers

ROWS, STEPS, FEATURES = 3, 5, 4
FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node without a name, since ONNX Runtime wants names to differ."""
    made = models.node(op, inputs, outputs, **attributes)
    made.ClearField("name")
    return made


def body(
    nodes: Sequence[NodeProto], inputs: Mapping[str, tuple[int, list[Any]]], results: str
) -> GraphProto:
    """The graph of one step; the types of its results follow from its nodes."""
    given = [helper.make_tensor_value_info(name, *type) for name, type in inputs.items()]
    made = [helper.make_empty_tensor_value_info(name) for name in results.split()]
    return helper.make_graph(list(nodes), "body", given, made)


def trips(**inputs: tuple[int, list[Any]]) -> dict[str, tuple[int, list[Any]]]:
    """The inputs of a Loop's body."""
    return {"i": (INT64, []), "going": (BOOL, []), **inputs}


ROW = {"h": (FLOAT, ["N", FEATURES])}


def declared_loops(net: gc.Net) -> list[Scan]:
    """The loops of a net."""
    return [loop for loop, _ in loops(net.graph())]


def check(made: ModelProto, feeds: Mapping[str, Array]) -> list[Scan]:
    """ONNX Runtime and graphc compute the same; return the loops of the net."""
    net = load(made)
    ex = gc.Executor(gc.compile(net, batch=ROWS))
    agree(ex.forward(feeds), by_runtime(made, feeds), "by ONNX Runtime")
    return declared_loops(net)


X = numbers(ROWS, STEPS, FEATURES)
WEIGHTS = {"w": numbers(FEATURES, FEATURES, seed=1)}


def scanned(**how: Any) -> NodeProto:
    """Two states and two sequences; a product with a weight of the graph around the body."""
    row = (FLOAT, ["N", FEATURES])
    step = [
        node("MatMul", "h w", "hw"),
        node("Add", "hw a", "sum"),
        node("Tanh", "sum", "next"),
        node("Constant", "", "half", value_float=0.5),
        node("Mul", "k half", "halved"),
        node("Add", "halved b", "k_next"),
        node("Identity", "next", "y"),
        node("Sub", "next b", "z"),
    ]
    graph = body(step, {"h": row, "k": row, "a": row, "b": row}, "next k_next y z")
    inputs = "start start x x2"
    return node("Scan", inputs, "last k_last ys zs", body=graph, num_scan_inputs=2, **how)


@pytest.mark.parametrize(
    "how",
    [
        {"scan_input_axes": [1, 1]},
        {"scan_input_axes": [1, -2], "scan_output_axes": [1, -1]},
        {"scan_input_axes": [1, 1], "scan_input_directions": [1, 1]},
        {"scan_input_axes": [1, 1], "scan_input_directions": [0, 1]},
        {
            "scan_input_axes": [1, 1],
            "scan_input_directions": [1, 0],
            "scan_output_directions": [0, 1],
            "scan_output_axes": [0, 2],
        },
    ],
)
def test_axes_and_directions_of_a_scan(how: dict[str, Any]) -> None:
    nodes = [
        node("Constant", "", "first", value_int=0),
        node("Gather", "x first", "start", axis=1),
        node("Neg", "x", "x2"),
        scanned(**how),
    ]
    made = model(nodes, {"x": ("N", STEPS, FEATURES)}, ["last", "k_last", "ys", "zs"], WEIGHTS)
    (found,) = check(made, {"x": X})
    assert found.steps == STEPS
    assert len(found.step.carried) == len(found.step.sequences) == 2


def looped(step: Sequence[NodeProto], results: str, outputs: str, more: str = "") -> ModelProto:
    """A loop of five trips over the first row of each sample, with the number of the trip."""
    graph = body(step, trips(**ROW), results)
    nodes = [
        node("Constant", "", "count", value_int=STEPS),
        node("Loop", "count - start", outputs, body=graph),
    ]
    inputs = {"start": ("N", FEATURES), "x": ("N", STEPS, FEATURES)}
    return model(nodes, inputs, outputs.split(), WEIGHTS)


FEEDS = {"start": X[:, 0], "x": X}
SAME = node("Identity", "going", "again")


def test_a_loop_of_known_trips_is_a_loop_of_the_net() -> None:
    """The number of the trip picks the entry of a sequence, and counts."""
    step = [
        SAME,
        node("Gather", "x i", "entry", axis=1),
        node("MatMul", "h w", "hw"),
        node("Add", "hw entry", "sum"),
        node("Tanh", "sum", "next"),
        node("Cast", "i", "number", to=FLOAT),
        node("Mul", "next number", "y"),
    ]
    (found,) = check(looped(step, "again next y", "last ys"), FEEDS)
    assert found.steps == STEPS and len(found.step.carried) == 1


def test_a_loop_whose_trips_are_shapes_is_unrolled() -> None:
    """The number of the trip is where a slice begins, so each trip has nodes of its own."""
    step = [
        SAME,
        node("Constant", "", "one", value_ints=[1]),
        node("Unsqueeze", "i axis", "begin"),
        node("Add", "begin one", "end"),
        node("Slice", "x begin end one", "part"),
        node("Squeeze", "part one", "entry"),
        node("Add", "h entry", "next"),
    ]
    step.insert(0, node("Constant", "", "axis", value_ints=[0]))
    assert not check(looped(step, "again next", "last"), FEEDS)


def test_a_loop_that_ends_early_is_unrolled() -> None:
    step = [
        node("Constant", "", "most", value_int=2),
        node("Less", "i most", "again"),
        node("Add", "h h", "next"),
    ]
    assert not check(looped(step, "again next", "last"), FEEDS)


def test_a_state_of_whole_numbers_stays_known() -> None:
    """It is the shape of what comes after the loop."""
    graph = body(
        [SAME, node("Mul", "size two", "size_next"), node("Add", "h h", "next")],
        trips(size=(INT64, [1]), **ROW),
        "again size_next next",
    )
    nodes = [
        node("Constant", "", "count", value_int=2),
        node("Constant", "", "one", value_ints=[1]),
        node("Constant", "", "two", value_ints=[2]),
        node("Loop", "count - one start", "size last", body=graph),
        node("Constant", "", "rest", value_ints=[-1]),
        node("Concat", "rest size", "shape", axis=0),
        node("Reshape", "last shape", "y"),
    ]
    assert not check(model(nodes, {"start": ("N", FEATURES)}, ["y"]), {"start": X[:, 0]})


def test_a_failed_attempt_leaves_nothing_behind() -> None:
    """The weight that the step reads before it fails is one parameter of the net."""
    step = [
        SAME,
        node("MatMul", "h w", "hw"),
        node("Constant", "", "axis", value_ints=[0]),
        node("Unsqueeze", "i axis", "begin"),
        node("Constant", "", "end", value_ints=[9]),
        node("Constant", "", "one", value_ints=[1]),
        node("Slice", "x begin end one", "rest"),
        node("ReduceSum", "rest one", "total", keepdims=0),
        node("Add", "hw total", "next"),
    ]
    made = looped(step, "again next", "last")
    made.graph.node.append(node("MatMul", "last w", "y"))
    made.graph.output.append(helper.make_empty_tensor_value_info("y"))
    assert not check(made, FEEDS)
    assert [name for name, n in load(made).graph().nodes.items() if n.op.name == "parameter"] == [
        "w"
    ]


def test_an_unrolled_loop_in_the_step_of_a_loop() -> None:
    """The inner one slices by its number, so its trips are all in the step of the outer one."""
    inner = body(
        [
            node("Identity", "go", "again_2"),
            node("Constant", "", "axis", value_ints=[0]),
            node("Constant", "", "one", value_ints=[1]),
            node("Unsqueeze", "j axis", "begin"),
            node("Add", "begin one", "end"),
            node("Slice", "h begin end one", "column"),
            node("Mul", "k column", "k_next"),
        ],
        {"j": (INT64, []), "go": (BOOL, []), "k": (FLOAT, ["N", FEATURES])},
        "again_2 k_next",
    )
    step = [
        SAME,
        node("Constant", "", "twice", value_int=2),
        node("Loop", "twice - h", "product", body=inner),
        node("MatMul", "product w", "next"),
    ]
    (found,) = check(looped(step, "again next", "last"), FEEDS)
    assert not any(isinstance(n.op, Scan) for n in found.step.nodes)


def test_a_loop_that_nobody_feeds_is_computed_at_import() -> None:
    graph = body([SAME, node("Add", "h h", "next")], trips(h=(FLOAT, [2])), "again next")
    nodes = [
        node("Constant", "", "count", value_int=3),
        node("Constant", "", "start", value_floats=[1.0, 2.0]),
        node("Loop", "count - start", "last", body=graph),
        node("Add", "x last", "y"),
    ]
    assert not check(model(nodes, {"x": ("N", 2)}, ["y"]), {"x": X[:, 0, :2]})


def test_a_loop_that_computed_numbers_end_is_refused() -> None:
    step = [
        node("ReduceSum", "h", "total", keepdims=0),
        node("Constant", "", "limit", value_float=9.0),
        node("Less", "total limit", "again"),
        node("Add", "h h", "next"),
    ]
    with pytest.raises(gc.GraphError, match="whose end depends on computed numbers"):
        load(looped(step, "again next", "last"))
