"""Ops say what kind of values they make, and where the arrays of a state start."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.ir.init import FromArray, Zeros
from graphc.ir.op import Layer, Source
from graphc.ops import OPS
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
