"""Models with values of BFLOAT16: each result is rounded once, and sums inside an op are not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

import graphc as gc
from graphc.features.precision.bfloat16 import nearest
from graphc.ir.op import Array
from graphc.onnx import load, prepare
from tests.onnx.models import node

NARROW, FLOAT = TensorProto.BFLOAT16, TensorProto.FLOAT
BFLOAT16 = helper.tensor_dtype_to_np_dtype(NARROW)


def info(name: str, shape: list[Any], kind: int = NARROW) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def graph(
    nodes: list[NodeProto], given: list[Any], made: list[Any], **weights: Array
) -> GraphProto:
    tensors = [numpy_helper.from_array(a.astype(BFLOAT16), name) for name, a in weights.items()]
    return helper.make_graph(nodes, "net", given, made, tensors)


def model(of: GraphProto, **more: Any) -> ModelProto:
    return helper.make_model(of, opset_imports=[helper.make_opsetid("", 22)], **more)


def run(of: ModelProto, x: Array) -> Array:
    """What the one output is, as a net and as a backend of ONNX, which gives the model's dtype."""
    ex = gc.Executor(gc.compile(load(of), batch=len(x), backend="numpy"))
    (found,) = ex.forward(x=x).values()
    (again,) = prepare(of, backend="numpy").run([x.astype(BFLOAT16)])
    narrow = of.graph.output[0].type.tensor_type.elem_type == NARROW
    assert again.dtype == (BFLOAT16 if narrow else found.dtype)
    np.testing.assert_array_equal(again.astype(found.dtype), found)
    return found


def odd(*shape: int) -> Array:
    """Numbers of 4 bits, whose products and sums are exact in float32, but not in bfloat16."""
    return np.random.default_rng(len(shape)).integers(-15, 16, shape).astype(np.float32)


def test_inputs_and_results_are_rounded_and_sums_are_not() -> None:
    w, b = odd(6, 5), odd(5) / 8
    nodes = [node("MatMul", "x w", "h"), node("Add", "h b", "s"), node("Relu", "s", "y")]
    found = graph(nodes, [info("x", ["N", 6])], [info("y", ["N", 5])], w=w, b=b)
    x = odd(4, 6) + np.float32(2.0**-12)  # the input rounds that off
    exact = nearest(x) @ w
    assert (exact != nearest(exact)).any()
    np.testing.assert_array_equal(run(model(found), x), np.maximum(nearest(nearest(exact) + b), 0))


def test_what_is_exact_is_not_rounded_again() -> None:
    nodes = [
        node("MatMul", "x w", "h"),
        node("Transpose", "h", "t", perm=[0, 2, 1]),
        node("Relu", "t", "r"),
        node("Cast", "r", "y", to=FLOAT),
    ]
    of = graph(nodes, [info("x", ["N", 3, 6])], [info("y", ["N", 5, 3], FLOAT)], w=odd(6, 5))
    net = load(model(of))
    assert [n.op.name for n in net.graph()].count("round_bfloat16") == 2  # x and h


def test_results_of_float32_are_not_rounded() -> None:
    nodes = [
        node("Cast", "x", "single", to=FLOAT),
        node("Mul", "single single", "square"),
        node("CastLike", "square x", "narrow"),
        node("Cast", "narrow", "again", to=FLOAT),
        node("Sub", "square again", "y"),
    ]
    x = odd(3, 4) + 100
    found = run(model(graph(nodes, [info("x", ["N", 4])], [info("y", ["N", 4], FLOAT)])), x)
    np.testing.assert_array_equal(found, x * x - nearest(x * x))
    assert found.any()


def test_rounding_is_to_nearest_ties_to_even_also_of_what_is_known() -> None:
    numbers = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, -1e-30, 3.4e38], np.float32)
    constant = numpy_helper.from_array(numbers)
    nodes = [
        node("Constant", "", "c", value=constant),
        node("Cast", "c", "n", to=NARROW),
        node("Mul", "x n", "y"),
    ]
    of = model(graph(nodes, [info("x", ["N", 4])], [info("y", ["N", 4])]))
    wanted = [1, 1 + 2.0**-6, float(nearest(numbers[2:3])[0]), np.inf]
    np.testing.assert_array_equal(run(of, np.ones((1, 4), np.float32)), [wanted])


def test_functions_and_graphs_inside_nodes_know_what_is_narrow() -> None:
    three = numpy_helper.from_array(np.array(3, BFLOAT16))
    thirds = helper.make_function(
        *("own", "thirds", ["a"], ["b"]),
        [node("Constant", "", "c", value=three), node("Div", "a c", "b")],
        [helper.make_opsetid("", 22)],
    )
    body = helper.make_graph(
        [node("Mul", "state part", "product"), node("Add", "product w", "next")],
        *("body", [info("state", [4]), info("part", [4])], [info("next", [4])]),
    )
    nodes = [
        helper.make_node("thirds", ["x"], ["t"], domain="own"),
        node("Scan", "w t", "last", body=body, num_scan_inputs=1),
        node("Mul", "last last", "y"),
    ]
    of = graph(nodes, [info("x", [3, 4])], [info("y", [4])], w=odd(4) / 8)
    opsets = [helper.make_opsetid("", 22), helper.make_opsetid("own", 1)]
    whole = helper.make_model(of, opset_imports=opsets, functions=[thirds])
    x, w = odd(3, 4), odd(4) / 8
    wanted = w
    for part in nearest(x / np.float32(3)):
        wanted = nearest(nearest(wanted * part) + w)
    (found,) = gc.Executor(gc.compile(load(whole), batch=1, backend="numpy")).forward(x=x).values()
    np.testing.assert_array_equal(found, nearest(wanted * wanted))


def test_entries_of_a_sequence_are_narrow() -> None:
    nodes = [
        node("SplitToSequence", "x", "s", axis=1),
        node("Constant", "", "one", value=numpy_helper.from_array(np.array(1))),
        node("SequenceAt", "s one", "e"),
        node("Mul", "e e", "y"),
    ]
    x = odd(3, 4) + 100
    found = run(model(graph(nodes, [info("x", ["N", 4])], [info("y", ["N", 1])])), x)
    np.testing.assert_array_equal(found, nearest(x[:, 1:2] ** 2))


def test_initializers_become_parameters_of_float32_that_are_trained() -> None:
    of = graph(
        [node("MatMul", "x w", "y")], [info("x", ["N", 6])], [info("y", ["N", 2])], w=odd(6, 2)
    )
    net = load(model(of))
    net.loss("loss", gc.sum(net["y"]))
    ex = gc.Executor(gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.001), backend="numpy"))
    x = odd(4, 6)
    ex.step(x=x)
    wanted = odd(6, 2) - np.float32(0.001) * np.tile(x.sum(0)[:, None], 2)
    np.testing.assert_allclose(ex.parameters["w"], wanted, rtol=1e-6)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.FLOAT8E4M3FN])
def test_other_short_floats_are_refused(kind: int) -> None:
    of = graph(
        [node("Identity", "x", "y")], [info("x", ["N", 4], kind)], [info("y", ["N", 4], kind)]
    )
    with pytest.raises(gc.GraphError, match="graphc has no float"):
        load(model(of))
