"""Every op that ONNX files can hold, with each value of each attribute: others compute the same.

The examples of ops give every attribute more than one value (`tests/ops/test_attributes.py`), one
of which at least is not what ONNX takes where a file says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NotThere

import graphc as gc
from graphc.check.validation.run import expanded, values_of_arrays
from graphc.ir.op import Array, Op, attributes
from graphc.ir.text.graph import word_of
from graphc.onnx import load, to_proto
from graphc.onnx.export.functions import BODIES
from graphc.onnx.export.standard import STANDARD
from graphc.ops import OPS
from graphc.ops.conv_layer import ConvTransposeLayer
from tests.onnx.runtimes import Results, by_reference, by_runtime
from tests.ops.example import Example
from tests.ops.examples import EXAMPLES

ROWS = 3
RANDOM = ("dropout", "noise")
"""Their numbers are those of each runtime."""
SCALARS = ("pad",)
"""ONNX Runtime pads no scalar, nor does ONNX's evaluator."""


def is_held(kind: type[Op]) -> bool:
    """Whether a file can hold an op, as one of ONNX or as a function."""
    return kind in STANDARD or word_of(kind) in BODIES


def exported() -> Iterator[Example]:
    """For each value of each attribute an example of each op that a file may hold."""
    met = set[object]()
    for example in reversed(EXAMPLES):  # those of float32 first
        op = example.op
        if not is_held(type(op)) or op.name in RANDOM:
            continue
        if op.name in SCALARS and not example.types[0].rank:
            continue
        values = {(type(op), name, repr(value)) for name, value in attributes(op).items()}
        if values - met or (not values and type(op) not in met):
            met |= values | {type(op)}
            yield example


def by_word() -> dict[str, list[Example]]:
    """The examples of each op."""
    found: dict[str, list[Example]] = {}
    for example in exported():
        found.setdefault(word_of(type(example.op)), []).append(example)
    return found


def net_of(example: Example) -> gc.Net:
    net = gc.Net("one")
    ins = [net.input(f"x{i}", t.shape, dtype=t.dtype) for i, t in enumerate(example.types)]
    net.output("y", gc.apply(example.op, *ins))
    if not any(t.shape[:1] == (gc.N,) for t in example.types):  # which says how many rows there are
        net.output("rows", -net.input("of_rows", (gc.N,)))
    return net


def by_rules(net: gc.Net, feeds: dict[str, Array]) -> Array:
    """The output by the reference rules, of what layers are in inference."""
    graph = expanded(net.graph(), train=False)
    return values_of_arrays(graph, ROWS, feeds, train=False)[graph.outputs["y"]]


def ways(
    example: Example, net: gc.Net, feeds: dict[str, Array]
) -> Iterator[tuple[str, Callable[[], Results]]]:
    """Who else computes the net: two runtimes of ONNX, and graphc from the file."""
    proto = to_proto(net)
    yield "ONNX Runtime", lambda: by_runtime(proto, feeds)
    if not (isinstance(example.op, ConvTransposeLayer) and example.op.groups > 1):
        yield "ONNX's evaluator", lambda: by_reference(proto, feeds)  # it has no such groups
    again = load(proto)
    plan = gc.compile(again, batch=ROWS, backend="numpy")
    yield "graphc", lambda: gc.Executor(plan).forward(feeds)


@pytest.mark.parametrize("examples", by_word().values(), ids=by_word())
def test_each_value_of_each_attribute(examples: list[Example]) -> None:
    for example in examples:
        net = net_of(example)
        feeds = {f"x{i}": x for i, x in enumerate(example.operands(ROWS))}
        feeds["of_rows"] = np.ones(ROWS, np.float32)
        feeds = {name: feeds[name] for name in (node.name for node in net.graph()) if name in feeds}
        wanted, done = by_rules(net, feeds), 0
        for who, run in ways(example, net, feeds):
            try:
                found = run()["y"]
            except NotThere:  # some functions, of float64
                continue
            done += 1
            assert found.shape == wanted.shape and found.dtype == wanted.dtype, (who, example)
            np.testing.assert_allclose(
                found, wanted, rtol=2e-5, atol=2e-6, err_msg=f"{who}: {example}"
            )
        assert done >= 2, example


def test_every_op_that_files_hold_has_an_example() -> None:
    held = {word_of(kind) for kind in OPS.values() if is_held(kind)}
    assert held - {*by_word()} == {f"layer {name}" for name in RANDOM}
