"""Sequences of tensors, which are resolved when a model is read."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import graphc as gc
from graphc.onnx import load
from tests.onnx.models import model, node
from tests.onnx.test_load import numbers, run


def test_sequences_of_which_it_is_known_how_long_they_are() -> None:
    """PyTorch writes x.chunk(3) as parts of a sequence."""
    chunks = [
        node("Constant", "", "size", value_int=2),
        node("SplitToSequence", "x size", "parts", axis=-1),
        node("SequenceLength", "parts", "length"),
        node("Constant", "", "last", value_int=-1),
        node("SequenceAt", "parts last", "short"),
        node("SplitToSequence", "short", "columns", axis=1, keepdims=0),
        node("SequenceAt", "columns last", "column"),
        node("SequenceConstruct", "column column", "twice"),
        node("ConcatFromSequence", "twice", "stacked", axis=1, new_axis=1),
        node("ConcatFromSequence", "parts", "whole", axis=1),
        node("Cast", "length", "count", to=1),
        node("Mul", "stacked count", "y"),
    ]
    made = model(chunks, {"x": ("N", 5)}, ["y", "whole"])
    x = numbers(4, 5)
    found = run(load(made), x=x)
    np.testing.assert_array_equal(found["whole"], x)
    np.testing.assert_array_equal(found["y"], 3 * np.stack([x[:, 4], x[:, 4]], axis=1))
    chunks[3] = node("Constant", "", "last", value_int=3)
    with pytest.raises(gc.GraphError, match="entry 3 of a sequence of 3"):
        load(model(chunks, {"x": ("N", 5)}, ["y"]))
    with pytest.raises(gc.GraphError, match="operand 0 is a sequence"):
        load(model([*chunks[:2], node("Relu", "parts", "y")], {"x": ("N", 5)}, ["y"]))
    with pytest.raises(gc.GraphError, match="output 'parts' is a sequence, not an array"):
        load(model(chunks[:2], {"x": ("N", 5)}, ["parts"]))


def test_places_in_a_sequence() -> None:
    """Before a place, behind the last one, from the end; and without one."""
    nodes = [
        node("SequenceEmpty", "", "none"),
        node("SequenceInsert", "none x", "one"),
        node("SequenceInsert", "one y", "two"),
        node("Constant", "", "first", value_int=0),
        node("SequenceInsert", "two y first", "three"),
        node("SequenceErase", "three", "rest"),
        node("ConcatFromSequence", "rest", "z", axis=1),
        node("SequenceErase", "three first", "others"),
        node("ConcatFromSequence", "others", "w", axis=1),
    ]
    x, y = numbers(4, 2), numbers(4, 3, seed=1)
    found = run(load(model(nodes, {"x": ("N", 2), "y": ("N", 3)}, ["z", "w"])), x=x, y=y)
    np.testing.assert_array_equal(found["z"], np.hstack([y, x]))
    np.testing.assert_array_equal(found["w"], np.hstack([x, y]))
    nodes = [nodes[0], node("SequenceErase", "none", "z")]
    with pytest.raises(gc.GraphError, match="entry -1 of a sequence of 0"):
        load(model(nodes, {"x": ("N", 2)}, ["z"]))


def test_a_loop_with_many_results_of_each_iteration() -> None:
    """More than anybody writes by hand: as many as the body has."""
    count = 70
    kept = [f"s{i}" for i in range(count)]
    body = helper.make_graph(
        [node("Identity", "going", "again"), *(node("Relu", "x", name) for name in kept)],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
        ],
        [helper.make_empty_tensor_value_info(name) for name in ("again", *kept)],
    )
    results = [f"o{i}" for i in range(count)]
    loop = [
        node("Constant", "", "trips", value_int=2),
        node("Loop", "trips -", " ".join(results), body=body),
    ]
    found = run(load(model(loop, {"x": ("N", 3)}, [results[-1]])), x=numbers(4, 3))
    np.testing.assert_array_equal(found[results[-1]], np.stack([np.maximum(numbers(4, 3), 0)] * 2))
