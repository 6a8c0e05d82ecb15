from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

import graphc as gc
from graphc.ir.graph import Graph
from graphc.ir.text.parse import parse_graph
from graphc.ops import OPS
from graphc.ops.source import Constant
from graphc.runtime.reference import evaluate
from passes.channels_last import channels_last
from passes.dead_code import dead_code
from passes.fold_constants import fold_constants
from passes.quantize_products import QuantizeProducts, quantizable, rounded
from tests.passes.same import frozen
from tests.tools.generate import nets, random_feeds

BEFORE = """\
graph net
x: float32[N, 2] = input()
w: float32[2, 2] = constant()  data=[127.0, 0.5, -254.0, 0.25] label="w"
bias: float32[2] = constant()  data=[1.0, 3.0] label="bias"
h: float32[N, 2] = affine(x, w, bias)
output y = h
"""

AFTER = """\
graph net
x: float32[N, 2] = input()
bias: float32[2] = constant()  data=[1.0, 3.0]
x.int8: int8[N, 2] = quantize(x)  step=0.5
w.int8: int8[2, 2] = constant()  data=[64, 127, -127, 64]
h.sums: int32[N, 2] = matmul(x.int8, w.int8)
h.units: float32[N, 2] = cast(h.sums)
h.scales: float32[2] = constant()  data=[1.0, 0.001968504]
h.scaled: float32[N, 2] = mul(h.units, h.scales)
h: float32[N, 2] = add(h.scaled, bias)
x.none: float32[N, 2] = sub(x, x)
x.nan: float32[N] = sum(x.none)  axes=(1,)
reshape_1: float32[N, 1] = reshape(x.nan)
h.nan: float32[N, 2] = sub(h, reshape_1)
output y = h.nan
"""


def quantized(graph: Graph, ranges: float = 8.0) -> Graph:
    """The graph with the same range for all values."""
    found = [quantizable(graph, node) for node in graph]
    return QuantizeProducts({one.source: ranges for one in found if one is not None})(graph)


def kinds(graph: Graph) -> list[str]:
    return [node.op.name for node in graph]


def of_net(net: gc.Net) -> Graph:
    """The ops of a net, its weights random constants."""
    return dead_code(fold_constants(channels_last(frozen(net))))


def test_an_affine_map() -> None:
    graph = parse_graph(BEFORE, OPS)
    assert str(QuantizeProducts({"x": 63.5})(graph)) == AFTER
    bare = BEFORE.replace(' label="w"', "").replace(' label="bias"', "")
    assert str(QuantizeProducts({})(graph)) == bare


def test_weights_are_rounded_by_column() -> None:
    scales, made = rounded(np.array([[[1.0, 0.0, -3.0]], [[-0.5, 0.0, 0.0118]]]))
    np.testing.assert_allclose(scales, [1 / 127, 1 / 127, 3 / 127])
    assert made.tolist() == [[[127, 0, -127]], [[-64, 0, 0]]]


def test_a_value_that_several_products_read_is_quantized_once() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 6))
    net.output("y", gc.affine(x, 3) + gc.affine(x, 3, bias=False))
    found = kinds(quantized(of_net(net)))
    assert (found.count("quantize"), found.count("matmul"), found.count("affine")) == (1, 2, 0)


def test_a_weight_that_several_products_read_is_stored_once() -> None:
    net = gc.Net("net")
    w = net.parameter("w", (4, 4))
    h = gc.relu(gc.affine(net.input("x", (gc.N, 4)), weight=w))
    net.output("y", gc.matmul(gc.affine(h, weight=w), gc.transpose(w, (1, 0))))
    graph = quantized(of_net(net))
    stored = [node.name for node in graph if node.type.dtype == "int8" and node.op.is_constant]
    assert len(stored) == 2, "as it is, and transposed"


def test_a_square_weight_as_it_is_and_transposed() -> None:
    """Each has scales of its own columns: sums are near those of floats."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(5, 5)) * np.geomspace(0.01, 1, 5)
    text = f"""\
graph net
x: float64[N, 5] = input()
w: float64[5, 5] = constant()  data={w.ravel().tolist()}
plain: float64[N, 5] = matmul(x, w)
turned: float64[N, 5] = matmul(x, w)  trans_b=True
output plain = plain
output turned = turned
"""
    graph, x = quantized(parse_graph(text, OPS), 1.0), rng.uniform(-1, 1, (7, 5))
    found = evaluate(graph, {"x": x}, {}, 7)
    for name, weight in (("plain", w), ("turned", w.T)):
        largest = np.abs(weight).max(axis=0)
        bound = 5 * largest * (0.5 / 127 + 0.5 / 127 + 0.25 / 127**2) * 1.001
        assert (np.abs(found[name] - x @ weight) <= bound).all(), name


def test_images_are_quantized_before_they_are_padded() -> None:
    net = gc.Net("net")
    x = net.input("x", (gc.N, 1, 6, 6))
    h = gc.relu(gc.conv2d(x, 4, 3, padding=1))
    net.output("y", gc.affine(gc.conv2d(h, 2, 3), 3))
    found = kinds(quantized(of_net(net)))
    assert found.index("quantize") < found.index("pad") < found.index("conv")
    assert (found.count("quantize"), found.count("conv"), found.count("matmul")) == (3, 2, 1)


def test_wide_groups_are_quantized() -> None:
    net = gc.Net("net")
    net.output("y", gc.conv2d(net.input("x", (gc.N, 8, 5, 5)), 16, 3, groups=2))
    found = kinds(quantized(of_net(net)))
    assert (found.count("quantize"), found.count("conv")) == (1, 1)


def test_other_numbers_around_an_image_stay_in_float() -> None:
    net = gc.Net("net")
    x = gc.pad(net.input("x", (gc.N, 6)), [0, 1], 5.0)
    net.output("y", gc.affine(x, 3))
    graph = quantized(of_net(net))
    (step,) = (node for node in graph if node.op.name == "quantize")
    assert graph[step.inputs[0]].op.name == "pad"


@pytest.mark.parametrize("kind", ["groups", "two values", "batched weight", "whole numbers"])
def test_what_stays(kind: str) -> None:
    net = gc.Net("net")
    if kind == "groups":
        y = gc.conv2d(net.input("x", (gc.N, 4, 5, 5)), 4, 3, groups=2)
    elif kind == "two values":
        x = net.input("x", (gc.N, 3))
        y = gc.matmul(gc.reshape(x, (gc.N, 3, 1)), gc.reshape(x, (gc.N, 1, 3)))
    elif kind == "batched weight":
        x = net.input("x", (gc.N, 4, 3))
        y = gc.matmul(x, net.constant(np.ones((1, 3, 2), np.float32)))
    else:
        x = net.input("x", (gc.N, 3), dtype="int8")
        y = gc.matmul(x, net.constant(np.ones((3, 2), np.int8)))
    net.output("y", y)
    graph = of_net(net)
    assert not any(quantizable(graph, node) for node in graph)


def test_a_transposed_weight_is_stored_with_its_columns_last() -> None:
    net = gc.Net("net")
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    x = net.input("x", (gc.N, 4))
    net.output("y", gc.matmul(x, gc.transpose(net.constant(w), (1, 0))))
    graph = quantized(of_net(net))
    stored = [n.op.array() for n in graph if isinstance(n.op, Constant) and n.type.dtype == "int8"]
    assert [array.shape for array in stored] == [(4, 3)]
    assert np.array_equal(stored[0], rounded(w.T)[1])


def check(net: gc.Net) -> None:
    """Every product is within what rounding its factors may change."""
    graph = of_net(net)
    for node in graph:
        one = quantizable(graph, node)
        if one is None:
            continue
        feeds = random_feeds(graph, 3)
        values = evaluate(graph, feeds, {}, 3, train=False)
        largest = float(np.abs(values[one.source]).max())
        after = QuantizeProducts({one.source: largest})(graph)
        found = evaluate(after, feeds, {}, 3, train=False)[node.name]
        scales, _ = rounded(one.weight)
        # Each factor is off by half a step at most, the other one is 127 steps at most.
        slack = 1.01 * np.prod(one.weight.shape[:-1]) * largest * scales
        slack = slack + 1e-4 * np.abs(values[node.name]).max()
        assert (np.abs(found - values[node.name]) <= slack).all(), node


@settings(max_examples=3, deadline=None)
@given(net=nets())
def test_any_net(net: gc.Net) -> None:
    check(net)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(net=nets())
def test_many_nets(net: gc.Net) -> None:
    check(net)
