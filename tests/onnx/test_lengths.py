"""A model says which input has which lengths: what is behind a row's end is not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load, prepare, to_proto
from graphc.ops.loops.op import Scan
from tests.onnx.compare import agree, comes_back
from tests.onnx.runtimes import by_both

ROWS, STEPS = 3, 5
ENDS = np.array([2, 5, 1], np.int32)


def executor() -> gc.Executor:
    """Sums and a loop over rows that end early, and the inputs themselves."""
    net = gc.Net("ends", dtype="float64")
    x, y = net.input("x", (gc.N, STEPS, 2)), net.input("y", (gc.N, STEPS), dtype="int64")
    n = gc.lengths(x, y)
    net.output("sum", gc.sum(x, 1))
    net.output("rows", x)
    net.output("labels", gc.sum(y, 1))
    net.output("ends", n)
    states, last = gc.gru(gc.affine(x, 4, axis=-1), 3, lengths=n)
    net.output("last", gc.sum(states, 1) - last)
    return gc.Executor(gc.compile(net, batch=ROWS, backend="numpy"), seed=0)


def feeds() -> dict[str, Array]:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(ROWS, STEPS, 2))
    return {"x": x, "y": rng.integers(1, 9, (ROWS, STEPS)), "lengths:x,y": ENDS}


def wanted() -> dict[str, Array]:
    given = feeds()
    x, y = (given[name].copy() for name in "xy")
    for row, end in enumerate(ENDS):
        x[row, end:] = y[row, end:] = 0
    return {"sum": x.sum(1), "rows": x, "labels": y.sum(1), "ends": ENDS}


@pytest.mark.parametrize("train", [False, True])
def test_the_relation_comes_back(train: bool, tmp_path: Path) -> None:
    ex = executor()
    comes_back(ex, tmp_path / "ends.onnx", feeds(), train)
    again = gc.Executor(gc.compile(load(tmp_path / "ends.onnx"), batch=ROWS, backend="numpy"))
    found = again.forward(feeds())
    agree(found, wanted(), "read again")
    whole = feeds()
    lists = {name: [row[:end] for row, end in zip(whole[name], ENDS, strict=True)] for name in "xy"}
    by_lists = again.forward(lists)
    for name, array in found.items():
        np.testing.assert_array_equal(by_lists[name], array, err_msg=name)


def test_other_runtimes_do_not_read_behind_an_end() -> None:
    ex, model = executor(), to_proto(executor())
    last = ex.forward(feeds())["last"]
    for who, found in by_both(model, feeds()):
        agree(found, {**wanted(), "last": last}, who)
    names = [value.name for value in model.graph.output]
    run = prepare(model).run([feeds()[value.name] for value in model.graph.input])
    agree(dict(zip(names, run, strict=True)), wanted(), "as a backend")


def test_an_input_of_another_producer_has_no_lengths_by_its_name() -> None:
    model = to_proto(executor())
    model.producer_name = "another"
    with pytest.raises(gc.GraphError, match="input 'lengths:x,y': graphc gives such names itself"):
        load(model)


def test_the_function_of_another_file_is_read_as_it_is_written() -> None:
    model = to_proto(executor())
    model.producer_name = "another"
    data = model.SerializeToString().replace(b"\x0blengths:x,y", b"\x0bother lengt")
    model = ModelProto.FromString(data)
    ex = gc.Executor(gc.compile(load(model), batch=ROWS, backend="numpy"))
    given = feeds()
    agree(ex.forward({"x": given["x"], "y": given["y"], "other lengt": ENDS}), wanted(), "another")


def test_lengths_that_no_result_reads_are_asked_for() -> None:
    net = gc.Net("sum")
    x = net.input("x", (gc.N, STEPS))
    gc.lengths(x)
    net.output("sum", gc.sum(x, 1))
    model = to_proto(net)
    assert [value.name for value in model.graph.input] == ["x", "lengths:x"]
    assert [node.op_type for node in model.graph.node].count("within_lengths") == 1


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_loops_keep_the_lengths_of_rows(dtype: str, tmp_path: Path) -> None:
    net = gc.Net("loops", dtype="float64")
    x = net.input("x", (gc.N, STEPS, 2))
    lengths = net.input("n", (gc.N,), dtype=dtype)
    states, last = gc.gru(x, 3, lengths=lengths)
    net.output("last", gc.sum(states, 1) - last)
    ex = gc.Executor(gc.compile(net, batch=ROWS, backend="numpy"), seed=0)
    given = {"x": feeds()["x"], "n": ENDS}
    comes_back(ex, tmp_path / "loops.onnx", given, train=False)
    again = load(tmp_path / "loops.onnx").graph()
    assert all(node.op.step.lengths for node in again if isinstance(node.op, Scan))
