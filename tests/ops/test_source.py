"""Ops say what kind of values they make, and where the arrays of a state start."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.init import FromArray, Zeros
from graphc.ir.op import Layer, Source
from graphc.ops import OPS
from graphc.ops.loops.lengths import WithinLengths
from graphc.ops.source import Constant, Input, Parameter, State, start_of, with_start

KINDS = {
    "is_source": Source,
    "is_input": Input,
    "is_parameter": Parameter,
    "is_state": State,
    "is_constant": Constant,
    "is_layer": Layer,
    "persistent": (Parameter, State),
}


@pytest.mark.parametrize("fact", KINDS)
def test_facts_are_those_of_the_class(fact: str) -> None:
    for kind in OPS.values():
        assert getattr(kind, fact) == issubclass(kind, KINDS[fact]), kind


def test_parameters_and_states_start_at_arrays_or_otherwise() -> None:
    array = FromArray.of(np.arange(3, dtype=np.float32))
    for op in (Parameter((3,), "float32", Zeros()), State((3,), "float32", 1.0)):
        assert start_of(op) is None
        given = with_start(op, array)
        assert type(given) is type(op)
        assert start_of(given) == array
        assert start_of(with_start(given, None)) is None
    assert with_start(Parameter((3,), "float32", array), None) == Parameter(
        (3,), "float32", Zeros()
    )
    assert with_start(State((3,), "float32", array), None) == State((3,), "float32")


def test_a_name_from_which_a_purpose_is_read_is_not_given_to_others() -> None:
    net = gc.Net("names")
    x = net.input("x", (gc.N, 5))
    for name in ("lengths:x", "cotangent:y", "gradient:w"):
        with pytest.raises(gc.GraphError, match="graphc gives such names itself") as caught:
            net.input(name, (gc.N,), dtype="int32")
        assert ("gc.lengths(x)" in caught.value.hint) == name.startswith("lengths")
    for name in ("seed", "hyper.lr"):
        with pytest.raises(gc.GraphError, match="graphc gives such names itself"):
            net.state(name, ())
    assert gc.lengths(x).name == "lengths:x"
    assert net.input("lengths", (gc.N,), dtype="int32").name == "lengths"


@pytest.mark.parametrize("name", ["seed", "draws"])
@pytest.mark.parametrize("kind", ["input", "parameter", "output"])
def test_another_value_is_not_taken_for_a_state_of_graphc(name: str, kind: str) -> None:
    net = gc.Net("names")
    x = net.input("x", (gc.N, 5))
    if kind == "input":
        net.input(name, (), dtype="int64")
    elif kind == "parameter":
        net.parameter(name, ())
    else:
        gc.relu(x, name=name)
    with pytest.raises(gc.GraphError, match=f"the name '{name}' is taken, but graphc gives it"):
        gc.dropout(x, keep_prob=0.5)


@pytest.mark.parametrize("name", ["hyper.lr", "updates"])
def test_another_value_is_not_taken_for_a_number_of_an_optimizer(name: str) -> None:
    net = gc.Net("names")
    p = net.parameter(name, (), init=2.0)
    net.loss("loss", p**2)
    with pytest.raises(gc.GraphError, match=f"the name '{name}' is taken, but graphc gives it"):
        gc.compile(net, batch=1, optimizer=gc.Adam(), backend="numpy")


def test_rows_end_where_their_lengths_say() -> None:
    x = np.random.default_rng(0).normal(size=(3, 4, 2))
    ends = np.array([1, 4, 2], np.int32)
    net = gc.Net("ends", dtype="float64")
    rows, n = net.input("rows", x.shape), net.input("n", (3,), dtype="int32")
    op = WithinLengths()
    net.output("y", gc.apply(op, rows, n))
    ex = gc.Executor(gc.compile(net, batch=1, backend="numpy"))
    cut = op.reference_in([x, ends], train=False)
    np.testing.assert_array_equal(ex.forward(rows=x, n=ends)["y"], cut)
    for row, given, end in zip(cut, x, ends, strict=True):
        np.testing.assert_array_equal(row[:end], given[:end])
        assert not row[end:].any()
    with pytest.raises(gc.GraphError, match="not one length for each row"):
        gc.apply(op, rows, net.input("other", (2,), dtype="int32"))
