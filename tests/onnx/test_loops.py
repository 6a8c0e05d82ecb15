"""Loops become Scan, which ONNX Runtime computes as graphc does, and come back from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.onnx import load, to_proto
from graphc.ops.loops.op import Scan, loops
from passes.dead_code import dead_code
from tests.onnx.compare import agree, bare
from tests.onnx.runtimes import by_runtime
from tests.onnx.test_load import numbers

ROWS, STEPS, FEATURES = 3, 5, 4


def lstm(net: gc.Net, x: gc.Value) -> None:
    """One layer, with both of its last states."""
    y, (h, c) = gc.lstm(x, 6, name="lstm")
    for name, value in {"y": y, "h": h, "c": c}.items():
        net.output(name, value)


def gru(net: gc.Net, x: gc.Value) -> None:
    """Two layers, both ways, over rows with lengths of their own."""
    lengths = net.input("lengths", (gc.N,), dtype="int32")
    _, h = gc.gru(x, 6, bidirectional=True, lengths=lengths, layers=2, drop_prob=0.5)
    net.output("h", h)


def several(net: gc.Net, x: gc.Value) -> None:
    """Several carried values, backward, with the number of rows and an op without an ONNX node."""
    w = net.parameter("w", (FEATURES, FEATURES))

    def step(x: gc.Value, h: gc.Value, k: gc.Value) -> tuple[object, object]:
        k = k + 1.0
        h = gc.tanh(x + h @ w) + gc.broadcast_to(gc.sum(w) * k, (gc.N, FEATURES))
        return (h, x, gc.log1p(gc.exp(h))), (h, k)

    start = x[:, 0], gc.sum(x * 0.0)
    (ys, xs, zs), (h, k) = gc.scan(step, x, start, reverse=True)
    for name, value in {"ys": ys, "xs": xs, "zs": zs, "h": h, "k": k}.items():
        net.output(name, value)


def within(net: gc.Net, x: gc.Value) -> None:
    """A loop in the step of a loop, which reads values of both and of the net."""
    w = net.parameter("w", (FEATURES, FEATURES))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        def inner(z: gc.Value, k: gc.Value) -> tuple[gc.Value, gc.Value]:
            k = gc.tanh(k @ w + z + h)
            return k * 2.0, k

        ys, k = gc.scan(inner, gc.stack([x, h, x], axis=1), h)
        return gc.sum(ys, axis=1), k + x

    y, h = gc.scan(step, x, x[:, 0])
    net.output("y", y)
    net.output("h", h)


def alone(net: gc.Net, x: gc.Value) -> None:
    """A loop without a sequence."""
    y, h = gc.scan(lambda h: (h, h * 0.5 + 1.0), (), x, steps=4)
    net.output("y", y)
    net.output("h", h)


def layers(net: gc.Net, x: gc.Value) -> None:
    """A dropout, which counts its draws by steps, and a batchnorm that learns no statistics."""

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.batchnorm(x + h, frozen=True)
        return gc.dropout(h, drop_prob=0.5), h

    y, h = gc.scan(step, x, x[:, 0])
    net.output("y", y)
    net.output("h", h)


CASES = [several, gru, lstm, within, alone, layers]
"""By default the first runs, which is backward, and the fourth."""


def declared(case: Callable[[gc.Net, gc.Value], None]) -> gc.Net:
    """The net of a case."""
    net = gc.Net("loops")
    case(net, net.input("x", (gc.N, STEPS, FEATURES)))
    return net


def results(net: gc.Net, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Its outputs for some of the feeds."""
    known = {name: array for name, array in feeds.items() if name in net.graph()}
    return gc.Executor(gc.compile(net, batch=ROWS)).forward(known)


FEEDS = {"x": numbers(ROWS, STEPS, FEATURES), "lengths": np.array([2, 5, 1], np.int32)}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", CASES)
def test_a_loop_is_a_scan_of_onnx(case: Callable[[gc.Net, gc.Value], None]) -> None:
    net = declared(case)
    model = to_proto(net)
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    assert len(scans) == len(loops(net.graph()))
    agree(by_runtime(model, FEEDS), results(net, FEEDS), case.__name__)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("case", CASES)
def test_a_loop_that_was_written_is_read_as_it_was(
    case: Callable[[gc.Net, gc.Value], None],
) -> None:
    """From what is read the same file is written; a loop comes without what nobody needs.

    The draws of a dropout, which are not written, are counted by nodes with other names.
    """
    net = declared(case)
    model = to_proto(net)
    again = load(model)
    if case is not layers:
        before, after = (str(bare(dead_code(one.graph()))).splitlines() for one in (net, again))
        assert sorted(after) == sorted(before)
    assert to_proto(again).SerializeToString(deterministic=True) == model.SerializeToString(
        deterministic=True
    )
    wanted, found = results(net, FEEDS), results(again, FEEDS)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_results_are_sums_or_those_of_another_node() -> None:
    """Nodes with the same result share it, and a sum is one of the results of all steps."""
    net = gc.Net("sums")
    x = net.input("x", (gc.N, STEPS, FEATURES))
    net.output("y", gc.scan(lambda x, h: (x, x + h), x, x[:, 0])[0])
    steps = net.graph()["scan_1.steps"]
    op, operands = steps.op, [net[name] for name in steps.inputs]
    assert isinstance(op, Scan)
    net.output("again", gc.apply(op, *operands))
    net.output("total", gc.apply(Scan(op.step, op.steps, "sum", op.result), *operands))
    model = to_proto(net)
    assert [node.op_type for node in model.graph.node].count("Scan") == 1
    found = by_runtime(model, FEEDS)
    np.testing.assert_array_equal(found["again"], FEEDS["x"].swapaxes(0, 1))
    np.testing.assert_allclose(found["total"], FEEDS["x"].sum(1), rtol=1e-5)
