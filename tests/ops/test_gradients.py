"""Gradients of every op, and gradients of those gradients, against central differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Layer, Op, Source
from graphc.ir.tensor_type import TensorType, shape_at
from graphc.ops import OPS, moments, optim, rate
from graphc.ops.autodiff import vjp
from graphc.ops.elementwise import add, mul
from graphc.ops.fused import Fused
from graphc.ops.rounding import RoundBfloat16
from graphc.ops.shape import StopGradient, stop_gradient
from graphc.ops.source import Input
from graphc.runtime.reference import evaluate
from passes.specialize import Specialize
from tests.ops.example import Example
from tests.ops.examples import DOUBLE
from tests.ops.harness import slope, worst_error
from tests.ops.test_contract import by_op

ROWS = 5
BOUND = 1e-6


UPDATES = {moments.__name__, optim.__name__, rate.__name__}
"""The files of ops that updates alone have."""


def has_gradient(op: Op | type[Op]) -> bool:
    cls = op if isinstance(op, type) else type(op)
    return not issubclass(cls, Fused) and cls.__module__ not in UPDATES


def smooth_enough(example: Example) -> bool:
    """Whether differences are exact enough: of many classes most probabilities are too small."""
    stepped = isinstance(example.op, (StopGradient, RoundBfloat16))
    sizes = (dim for type in example.types for dim in type.shape if isinstance(dim, int))
    return max(sizes, default=1) < 50 and not stepped


DIFFERENTIABLE = by_op([e for e in DOUBLE if has_gradient(e.op) and smooth_enough(e)])


class Net:
    """One op over inputs, with the nodes of derivatives that are asked for."""

    def __init__(self, example: Example, train: bool) -> None:
        b = Builder("one op")
        b.locs = ()
        self.names = [f"in{i}" for i in range(len(example.types))]
        ins = [
            b.apply(Input(t.shape, t.dtype), name=name)
            for name, t in zip(self.names, example.types, strict=True)
        ]
        b.outputs["out"] = b.apply(example.op, *ins, name="out").name
        graph = Specialize(train)(b.graph()) if isinstance(example.op, Layer) else b.graph()
        self.b = Builder.extending(graph)
        self.out = self.b.value(self.b.outputs["out"])
        self.wrt = [n for n, t in zip(self.names, example.types, strict=True) if t.is_float]

    def feed(self, name: str, type: TensorType) -> Value:
        return self.b.apply(Input(type.shape, type.dtype), name=name)

    def differentiate(self, of: Value, cotangent: str, prefix: str) -> dict[str, Value]:
        wrt = [*self.wrt, *(n for n in ("cotangent",) if n in self.b.nodes and n != cotangent)]
        return vjp(self.b, {of.name: self.feed(cotangent, of.type)}, wrt, prefix)


def part_of(graph: Graph, name: str) -> Graph:
    """The nodes that one depends on, itself included."""
    needed = graph.upstream([name])
    return Graph(graph.name, (node for node in graph if node.name in needed))


def run(graph: Graph, name: str, feeds: Mapping[str, Array]) -> Array:
    """One node's value, computed from the nodes that it depends on only."""
    return evaluate(part_of(graph, name), feeds, {}, ROWS)[name]


def worst_slope(
    graph: Graph, of: str, cotangent: str, found: Mapping[str, Value], feeds: dict[str, Array]
) -> dict[str, float]:
    """For each operand the worst error of its gradient; a missing one counts as zero."""
    errors = {}
    part = part_of(graph, of)
    values = evaluate(part, feeds, {}, ROWS)
    for name, x in feeds.items():
        if x.dtype != np.float64 or name == cotangent:
            continue
        moving = part.downstream([name]) if name in part else set()
        still = {known: value for known, value in values.items() if known not in moving}

        def value(moved: Array, name: str = name, still: dict[str, Array] = still) -> Array:
            return evaluate(part, {**feeds, name: moved}, {}, ROWS, known=still)[of]

        numeric = slope(value, x, feeds[cotangent])
        ours = run(graph, found[name].name, feeds) if name in found else np.zeros_like(x)
        errors[name] = worst_error(ours, numeric)
    return errors


def check(example: Example, train: bool, second: bool) -> None:
    net = Net(example, train)
    rng = np.random.default_rng(7)
    feeds = dict(zip(net.names, example.operands(ROWS), strict=True))
    feeds["cotangent"] = rng.standard_normal(shape_at(net.out.shape, ROWS))
    first = net.differentiate(net.out, "cotangent", "d_")
    if not second:
        errors = worst_slope(net.b.graph(), net.out.name, "cotangent", first, feeds)
        assert max(errors.values(), default=0.0) <= BOUND, f"{example}: {errors}"
        return
    for name, gradient in first.items():
        again = net.differentiate(gradient, f"v_{name}", f"dd_{name}_")
        upper = {**feeds, f"v_{name}": rng.standard_normal(shape_at(gradient.shape, ROWS))}
        errors = worst_slope(net.b.graph(), gradient.name, f"v_{name}", again, upper)
        assert max(errors.values(), default=0.0) <= BOUND, f"{example} by {name}: {errors}"


def modes(op: Op) -> Sequence[bool]:
    return (True, False) if isinstance(op, Layer) else (False,)


SOME = 3


@pytest.mark.one_in(12)
@pytest.mark.parametrize("examples", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_gradient(examples: list[Example]) -> None:
    for example in examples:
        if example.op.infer(example.types).is_float:
            for train in modes(example.op):
                check(example, train, second=False)


@pytest.mark.one_in(10)
@pytest.mark.parametrize("examples", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_second_order(examples: list[Example]) -> None:
    """Of the first examples; the others take long."""
    check_second_order(examples[:SOME])


@pytest.mark.slow
@pytest.mark.parametrize("examples", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE)
def test_second_order_of_the_others(examples: list[Example]) -> None:
    check_second_order(examples[SOME:])


def check_second_order(examples: list[Example]) -> None:
    for example in examples:
        if example.op.infer(example.types).is_float:
            for train in modes(example.op):
                check(example, train, second=True)


def test_every_other_op_is_one_that_says_that_it_has_no_gradient() -> None:
    without = {name for name, cls in OPS.items() if not has_gradient(cls)}
    sources = {name for name, cls in OPS.items() if issubclass(cls, Source)}
    assert set(DIFFERENTIABLE) == set(OPS) - without - sources - {
        "stop_gradient",
        "round_bfloat16",
        "layer grad",
        "scan",
    }
    for example in DOUBLE:
        if example.op.name in without and example.op.infer(example.types).is_float:
            net = Net(example, train=False)
            with pytest.raises(GraphError, match=r"has no gradient rule|is not differentiated"):
                net.differentiate(net.out, "cotangent", "d_")


def test_no_gradient_flows_through_stop_gradient() -> None:
    b = Builder("net")
    x = b.apply(Input((3,), "float64"), name="x")
    y = add(mul(x, x), stop_gradient(mul(x, 100.0)))
    dy = b.apply(Input((3,), "float64"), name="dy")
    found = vjp(b, {y.name: dy}, ["x"])
    feeds = {"x": np.array([1.0, 2.0, 3.0]), "dy": np.ones(3)}
    assert np.array_equal(run(b.graph(), found["x"].name, feeds), [2.0, 4.0, 6.0])
