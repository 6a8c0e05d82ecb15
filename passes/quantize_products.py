"""Multiply in int8 what frozen inference multiplies by constant weights.

    h = affine(x, w, b)    ->    x.int8 = quantize(x, step)
                                 h.sums = matmul(x.int8, w.int8)             int8 x int8 = int32
                                 h = cast(h.sums, float32) * scales + b

The step of a value is its range, the largest magnitude it had when it was calibrated, divided by
127.  Each column of a weight has a scale of its own, its largest magnitude divided by 127; `scales`
are those of the columns times the step.  A value that is only reshaped or padded with zeros on its
way to the product is quantized before that.  Narrow groups, and products of two varying values,
stay.  NaN comes out as NaN: see `lost_nan.py`.
Weights are not labelled as frozen, since later ones would not fit the ranges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, NamedTuple

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Op
from graphc.ops.arithmetic import Quantize
from graphc.ops.elementwise import Add, Mul
from graphc.ops.linalg import Affine, MatMul
from graphc.ops.shape import Cast
from graphc.ops.source import Constant, constant
from passes.lost_nan import LostNan

LIMIT = 127
"""The largest magnitude of a factor; -128 is not used, so that signs do not matter."""

SMALLEST = 2.0**-100
"""The smallest step, of a value that was 0 throughout."""


@dataclass(frozen=True)
class QuantizeProducts:
    """The pass that quantizes products; `ranges` are the largest magnitudes of what they read."""

    name: ClassVar[str] = "quantize_products"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["approximate"]] = "approximate"
    ranges: Mapping[str, float]
    bound: float | None = None

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph with int8 weights and activations."""
        made = _Rewriter(graph, self.ranges)
        for node in graph:
            made.take(node)
        made.b.take_roots(graph, made.nan.outputs(graph))
        return made.b.graph().pruned()


class Quantizable(NamedTuple):
    """A product that can be of int8: its op then, its weight with columns last, its operand."""

    op: Op
    weight: Array
    moved: tuple[Node, ...]
    """The nodes from the value that is quantized to the operand; they only move it."""
    source: str
    """The value that is quantized."""


def quantizable(graph: Graph, node: Node) -> Quantizable | None:
    """Return how a node multiplies int8, or None if it does not multiply by a constant weight."""
    types = [graph[name].type for name in node.inputs]
    form = node.op.product(types)
    if form is None or form.trans_a or not types[0].batched or not types[0].is_float:
        return None
    weight, op = graph[node.inputs[1]].op, node.op
    if not isinstance(weight, Constant):
        return None
    array = weight.array()
    if form.trans_b and array.ndim == 2:
        op, array = MatMul(), array.T
    elif op == Affine():
        op = MatMul()
    factors = types[0].with_dtype("int8"), types[1].with_shape(array.shape).with_dtype("int8")
    try:
        op.infer(factors)
    except ValueError:
        return None
    if op.product(factors) is None:
        return None
    moved: list[Node] = []
    source = graph[node.inputs[0]]
    while _only_moves(graph, source):
        moved.insert(0, source)
        source = graph[source.inputs[0]]
    return Quantizable(op, array, tuple(moved), source.name)


def _only_moves(graph: Graph, node: Node) -> bool:
    """Return whether a node has the same numbers as its operand, and perhaps zeros."""
    if len(node.inputs) != 1:
        return False
    x = graph[node.inputs[0]].type
    moves = node.op.alias or node.op.box_start(x) is not None
    return moves and node.type.size(1) >= x.size(1)


class _Rewriter:
    """One traversal of the graph, which builds the new one."""

    def __init__(self, graph: Graph, ranges: Mapping[str, float]) -> None:
        self.graph, self.ranges, self.b = graph, ranges, Builder.like(graph)
        self.nan = LostNan(self.b)
        self.quantized: dict[str, Value] = {}
        """The int8 value of each value that has one."""
        self.factors: dict[tuple[str, tuple[int, ...]], tuple[Value, Array]] = {}
        """The int8 weight of each weight, and the scales of its columns."""

    def take(self, node: Node) -> None:
        """Build the node, or its product in int8."""
        found, op = quantizable(self.graph, node), node.op
        is_product = found is not None and found.source in self.ranges
        self.nan.take(node, found.source if found is not None and is_product else "")
        if found is not None and is_product:
            with self.b.at(node.locs):
                self._product(node, found)
        elif isinstance(op, Constant):
            self.b.insert(replace(node, op=replace(op, label="")))
        else:
            self.b.insert(node)

    def _product(self, node: Node, found: Quantizable) -> None:
        b, name, dtype = self.b, node.name, node.type.dtype
        step = max(self.ranges[found.source] / LIMIT, SMALLEST)
        x = self._quantized(found, step)
        factor, scales = self._factor(node.inputs[1], found.weight)
        sums = b.apply(found.op, x, factor, name=self._name(f"{name}.sums"))
        units = b.apply(Cast(dtype), sums, name=self._name(f"{name}.units"))
        of_unit = scales / np.dtype(dtype).type(1 / step).astype(np.float64)
        scale = self._constant(f"{name}.scales", of_unit.astype(dtype))
        if len(node.inputs) == 2:
            b.apply(Mul(), units, scale, name=name)
            return
        scaled = b.apply(Mul(), units, scale, name=self._name(f"{name}.scaled"))
        b.apply(Add(), scaled, b.value(node.inputs[2]), name=name)

    def _factor(self, name: str, weight: Array) -> tuple[Value, Array]:
        """Return a weight in int8, once for all its products, and the scales of its columns."""
        key = name, weight.shape + weight.strides  # a transposed one is stored, too
        if key not in self.factors:
            scales, whole = rounded(weight)
            self.factors[key] = self._constant(f"{name}.int8", whole), scales
        return self.factors[key]

    def _quantized(self, found: Quantizable, step: float) -> Value:
        """Return the operand in int8."""
        for name in (found.source, *(node.name for node in found.moved)):
            if name in self.quantized:
                continue
            named, made = self._name(f"{name}.int8"), self.quantized
            if name == found.source:
                made[name] = self.b.apply(Quantize(step), self.b.value(name), name=named)
            else:
                node = self.graph[name]
                made[name] = self.b.apply(node.op, made[node.inputs[0]], name=named)
        return self.quantized[found.moved[-1].name if found.moved else found.source]

    def _constant(self, name: str, array: Array) -> Value:
        return constant(self.b, array, name=self._name(name))

    def _name(self, name: str) -> str:
        while name in self.graph or name in self.b.nodes:
            name += "_"
        return name


def rounded(weight: Array) -> tuple[Array, Array]:
    """Return the scale of each column, the last axis, and the columns in whole numbers of it."""
    wide = weight.astype(np.float64)
    largest = np.abs(wide).max(axis=tuple(range(wide.ndim - 1)))
    scales = np.where(largest > 0, largest, 1.0) / LIMIT
    return scales, np.rint(wide / scales).astype(np.int8)
