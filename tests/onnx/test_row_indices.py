"""Gathers whose indices count the batch's rows, as torch writes `as_strided`."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto, NodeProto

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
