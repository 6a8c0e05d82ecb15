"""Gathers whose indices count the batch's rows, as torch writes `as_strided`."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto, numpy_helper

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load
from tests.onnx.models import model, node
from tests.onnx.runtimes import by_reference

WIDTH = 6


def strided(
    offsets: Array, *more: NodeProto, axes: tuple[int, ...] = (1, 2), step: int = WIDTH
) -> ModelProto:
    """Each row's entries at `offsets`, out of all rows in a line."""
    return model(
        [
            node("Shape", "x", "shape", start=0, end=1),
            node("Squeeze", "shape", "rows"),
            node("Reshape", "x minus_one", "flat"),
            node("Range", "zero rows one", "range"),
            node("Mul", "range step", "starts"),
            node("Unsqueeze", "starts axes", "column"),
            node("Add", "column offsets", "at"),
            node("Gather", "flat at", "y", axis=0),
            *more,
        ],
        {"x": ("batch", WIDTH)},
        ["y"],
        {
            "minus_one": np.array([-1]),
            "zero": np.array(0),
            "one": np.array(1),
            "step": np.array(step),
            "axes": np.array(axes),
            "offsets": offsets,
        },
    )


@pytest.mark.parametrize(
    "offsets",
    [np.arange(6).reshape(1, 3, 2), np.array([[5, 0, 0, 2]]), np.array([[[4], [1]]])],
    ids=["all", "one axis", "some"],
)
def test_a_gather_by_rows_reads_the_same_part_of_each(offsets: Array) -> None:
    x = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)
    made = strided(offsets)
    net = load(made)
    ex = gc.Executor(gc.compile(net, batch=4, backend="numpy"))
    for rows in (1, 4):
        found = ex.forward(x=x[:rows])["y"]
        np.testing.assert_array_equal(found, by_reference(made, {"x": x[:rows]})["y"])


def test_a_part_that_is_the_whole_row_is_a_reshape() -> None:
    net = load(strided(np.arange(6).reshape(1, 6, 1)))
    assert {n.op.name for n in net.graph()} <= {"input", "reshape"}
    assert net["y"].shape == (gc.N, 6, 1)


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (strided(np.array([[6]])), "an index of a row leads into another row"),
        (strided(np.array([[-1]])), "an index of a row leads into another row"),
        (strided(np.array([[0]]), step=3), "an index of a row leads into another row"),
        (strided(np.array([[0]]), axes=(0, 2)), "an axis before the batch"),
        (strided(np.zeros((2, 1, 1), np.int64)), "an axis before the batch"),
        (strided(np.array([[0]]), node("Sub", "at one", "z")), "numbers of rows"),
    ],
    ids=["beyond", "before", "step", "axis", "broadcast", "other op"],
)
def test_other_uses_are_refused_by_name(made: ModelProto, sentence: str) -> None:
    with pytest.raises(gc.GraphError, match=sentence):
        load(made)


def masked(*joined: str, add: int = 0) -> ModelProto:
    """An index by pairs of a row's number and a place, as transformers' masks are written."""
    return model(
        [
            node("Shape", "x", "shape", start=0, end=1),
            node("Squeeze", "shape", "rows"),
            node("Range", "zero rows one", "range"),
            node("Slice", "range first last first_axis ones", "all"),
            node("Unsqueeze", "all axes", "row"),
            node("Max", "row places", "both"),
            node("Shape", "both", "sizes"),
            node("Expand", "row sizes", "row_of_each"),
            node("Expand", "places sizes", "place_of_each"),
            node("Unsqueeze", "row_of_each end", "first_of_pair"),
            node("Unsqueeze", "place_of_each end", "second_of_pair"),
            node("Concat", " ".join(joined), "pairs", axis=-1),
            node("GatherND", "x pairs", "y"),
        ],
        {"x": ("batch", WIDTH)},
        ["y"],
        {
            "zero": np.array(0),
            "one": np.array(1),
            "ones": np.array([1]),
            "first": np.array([add]),
            "first_axis": np.array([0]),
            "last": np.array([2**63 - 1]),
            "axes": np.array([1, 2]),
            "end": np.array([-1]),
            "places": np.array([[[0, 5, 3], [2, 2, 1]]]),
        },
    )


def test_pairs_of_rows_and_places_read_each_row_by_itself() -> None:
    x = np.random.default_rng(0).standard_normal((4, WIDTH)).astype(np.float32)
    made = masked("first_of_pair", "second_of_pair")
    ex = gc.Executor(gc.compile(load(made), batch=4, backend="numpy"))
    for rows in (1, 4):
        found = ex.forward(x=x[:rows])["y"]
        np.testing.assert_array_equal(found, by_reference(made, {"x": x[:rows]})["y"])


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (masked("second_of_pair", "first_of_pair"), "an index of a row leads into another row"),
        (masked("first_of_pair", "first_of_pair"), "an index of a row leads into another row"),
        (masked("first_of_pair"), "otherwise than by pairs"),
        (masked("first_of_pair", "second_of_pair", add=1), "a part of the numbers of rows"),
    ],
    ids=["columns", "diagonal", "rows", "fewer"],
)
def test_other_pairs_are_refused(made: ModelProto, sentence: str) -> None:
    with pytest.raises(gc.GraphError, match=sentence):
        load(made)


def test_numbers_of_which_only_the_shape_is_known_are_not_read() -> None:
    nodes = [*masked("first_of_pair", "second_of_pair").graph.node][:6]
    made = masked("first_of_pair", "second_of_pair")
    del made.graph.node[:]
    made.graph.node.extend([*nodes, node("Reshape", "x ends", "flat")])
    made.graph.node.append(node("Gather", "flat both", "y"))
    made.graph.initializer.append(numpy_helper.from_array(np.array([-1]), "ends"))
    with pytest.raises(gc.GraphError, match="an index of a row leads into another row"):
        load(made)
