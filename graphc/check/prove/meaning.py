"""The meaning of graphs over the reals, for every size: a value as a function of its indices.

Ops on elements, reductions and products mean what their rules for kernels say: `scalar`, `product`
and `epilogue`.  Ops that move numbers are in `moves`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce, singledispatch
from operator import add, mul
from typing import Any

import numpy as np
import z3

from graphc.check.prove.symbols import ROWS, TRACED, Poly, Traced, number, poly_of, symbol
from graphc.check.prove.terms import (
    FUNCTIONS,
    Index,
    Meaning,
    Term,
    Unknown,
    World,
    any_function,
    array_of,
    cast,
    function,
    inverse,
    literal,
    real,
    reduced,
    reshaped,
    whole,
)
from graphc.ir.expr import BodyBuilder, Expr, Step
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import Dim, Shape
from graphc.ops.exchange import ShardInput
from graphc.ops.linalg import MatrixProduct
from graphc.ops.norm import ByFeature, feature_axes
from graphc.ops.reduce import Reduction

# ------------------------------------------------------------------ graphs


@dataclass(frozen=True)
class Value:
    """The meaning of a node: its sizes, and its element at an index."""

    shape: tuple[Poly, ...]
    at: Meaning


@dataclass
class Side:
    """One graph of a rule, on all rows of the batch or on those of a shard."""

    world: World
    graph: Graph
    rows: Poly = field(default_factory=lambda: symbol(ROWS))
    first: Poly = field(default_factory=lambda: number(0))
    """The index of its first row in the batch."""
    shards: Sequence[Side] = ()
    """The sides of all shards, if it is one."""
    divisor: Callable[[str], Term] | None = None
    """The number of that name that is fed to each shard."""
    train: bool = True
    """The meaning of layers."""
    _values: dict[str, Value] = field(default_factory=dict)

    def size(self, dim: Dim) -> Poly:
        """Return a dimension, in rows of this side."""
        return poly_of(dim).replaced({ROWS: self.rows}).replaced(self.world.equal)

    def sizes(self, shape: Shape) -> tuple[Poly, ...]:
        """Return the sizes of a shape."""
        return tuple(map(self.size, shape))

    def value(self, name: str) -> Value:
        """Return the meaning of a node."""
        found = self._values.get(name)
        if found is None:
            node = self.graph[name]
            ins = [self.value(operand) for operand in node.inputs]
            at = _memo(meaning(node.op, node, self, ins))
            made = TRACED.get((node.type.dtype, getattr(node.op, "data", b"")))
            shape = node.type.shape if made is None else made.sizes
            found = self._values[name] = Value(self.sizes(shape), at)
        return found


def _memo(at: Meaning) -> Meaning:
    known: dict[Index, Term] = {}

    def found(index: Index) -> Term:
        if index not in known:
            known[index] = at(index)
        return known[index]

    return found


@singledispatch
def meaning(op: Op, node: Node, side: Side, ins: list[Value]) -> Meaning:
    """Return the elements of a node, from the meanings of its operands."""
    if op.is_source:
        return _source(node, side)
    if op.alias:
        return reshaped(side.world, ins[0].at, ins[0].shape, side.sizes(node.type.shape))
    return _on_elements(op, node, side, ins)


def _source(node: Node, side: Side) -> Meaning:
    """Return the elements of an array: of any numbers, if it is not a constant of one number."""
    op, rank = node.op, node.type.rank
    if op.is_constant:
        return _constant(op, side)
    array = array_of(node.name, rank, node.type.dtype)
    batched = [poly_of(dim).symbols >= {ROWS} for dim in node.type.shape]
    factors = [dim.factor if hasattr(dim, "factor") else 1 for dim in node.type.shape]

    def at(index: Index) -> Term:
        moved = (
            i + side.first * poly_of(f) if rows else i
            for i, rows, f in zip(index, batched, factors, strict=True)
        )
        return array(*map(whole, moved))

    return at


def _constant(op: Any, side: Side) -> Meaning:
    known = TRACED.get((op.dtype, op.data))
    if known is not None:
        return lambda index: _traced(known, index)
    array = op.array()
    if array.size and np.all(array == array.flat[0]) and not op.label:
        return lambda index: literal(array.flat[0].item())
    name = op.label or f"data {hash(op.data)}"
    return lambda index: function(name, len(index))(*map(whole, index))


def _traced(found: Traced, index: Index) -> Term:
    """Return an element of an array that a pass computed, from those that it was computed from."""
    if not found.args:
        return function(found.function, len(index))(*map(whole, index))
    args = [
        _traced(arg, index[len(index) - arg.ndim :]) if isinstance(arg, Traced) else literal(arg)
        for arg in found.args
    ]
    return FUNCTIONS[found.function](*args)


@meaning.register
def _(op: ShardInput, node: Node, side: Side, ins: list[Value]) -> Meaning:
    role = op.role
    if role.kind == "first_row":
        return lambda index: real(side.first)
    batch = reduce(add, (each.rows for each in side.shards))
    share = real(side.rows) * inverse(real(batch))
    if role.kind == "divisor":
        assert side.divisor is not None
        whole_batch = side.divisor(node.name)
        return lambda index: whole_batch * share
    return lambda index: share if role.part == "rows" else z3.RealVal(1)


# ------------------------------------------------------------------ expressions


class _Steps(BodyBuilder):
    """The steps of a scalar rule, with sizes as they are."""

    def dim(self, dim: Dim, dtype: str) -> Expr:
        return self.step(Step("size", (), "one", dtype, value=dim))


@dataclass
class _Scalar:
    """The evaluation of a scalar rule at an index of the first operand."""

    side: Side
    steps: list[Step]
    loads: Sequence[Callable[[Index], Term]]
    shape: tuple[Poly, ...] = ()
    axes: tuple[int, ...] = ()
    """The first operand's shape, and the axes that are reduced."""
    product: Term = None

    def at(self, index: Index, place: int) -> Term:
        """Return the value of a step."""
        step = self.steps[place]
        if step.op == "load":
            return self.loads[int(step.buffer)](index)
        if step.op == "product":
            return self.product
        if step.op == "const":
            return literal(step.value)  # type: ignore[arg-type]
        if step.op == "size":
            return self._size(step.value)
        if step.op in ("sum", "max"):
            return self._reduced(step, index)
        args = [self.at(index, arg) for arg in step.args]
        if step.op == "cast":
            return cast(args[0], self.steps[step.args[0]].dtype, step.dtype)
        if step.op not in ("add", "sub", "mul", "neg", "select"):
            args = [self.side.world.normal(arg) for arg in args]
        known = FUNCTIONS.get(step.op)
        return known(*args) if known else any_function(step.op, args)

    def _size(self, value: Any) -> Term:
        if isinstance(value, str):
            return real(reduce(mul, (self.shape[axis] for axis in self.axes), number(1)))
        return real(self.side.size(value))

    def _reduced(self, step: Step, index: Index) -> Term:
        return reduced(
            self.side.world,
            step.op,
            self.shape,
            self.axes,
            index,
            lambda full: self.at(full, step.args[0]),
        )


def _evaluated(op: Op, node: Node, side: Side, loads: Sequence[Callable[[Index], Term]]) -> Any:
    """Return the scalar rule of an op as an evaluation, and the number of its last step."""
    builder = _Steps()
    dtypes = [side.graph[name].type.dtype for name in node.inputs]
    exprs = [builder.load(str(i), "each", dtype) for i, dtype in enumerate(dtypes)]
    try:
        last = op.scalar(exprs, "rows").number
    except NotImplementedError:
        raise Unknown(f"op {op.name} has no scalar rule") from None
    return _Scalar(side, builder.steps, loads), last


def broadcast(value: Value) -> Callable[[Index], Term]:
    """Return the reads of an operand by the index of a result that it broadcasts to."""

    def read(index: Index) -> Term:
        own = index[len(index) - len(value.shape) :]
        pairs = zip(own, value.shape, strict=True)
        return value.at(tuple(number(0) if size.constant == 1 else i for i, size in pairs))

    return read


def _on_elements(op: Op, node: Node, side: Side, ins: list[Value]) -> Meaning:
    rule, last = _evaluated(op, node, side, [broadcast(value) for value in ins])
    return lambda index: rule.at(index, last)


@meaning.register
def _(op: Reduction, node: Node, side: Side, ins: list[Value]) -> Meaning:
    rule, last = _evaluated(op, node, side, [ins[0].at])
    rule.shape, rule.axes = ins[0].shape, op.axes

    def at(index: Index) -> Term:
        kept = iter(index)
        full = []
        for axis in range(len(rule.shape)):
            dropped = axis in op.axes and not op.keepdims
            full.append(number(0) if dropped else next(kept))
        return rule.at(tuple(full), last)

    return at


@meaning.register
def _(op: ByFeature, node: Node, side: Side, ins: list[Value]) -> Meaning:
    def by_column(value: Value) -> Callable[[Index], Term]:
        return lambda index: value.at((index[1],))

    loads = [
        value.at if kind == "each" else by_column(value)
        for value, kind in zip(ins, op.kinds, strict=True)
    ]
    rule, last = _evaluated(op, node, side, loads)
    rank = len(ins[0].shape)
    rule.shape, rule.axes = ins[0].shape, feature_axes(rank)
    zeros = (number(0),) * (rank - 2)
    if node.type.rank == rank:
        return lambda index: rule.at(index, last)
    return lambda index: rule.at((number(0), index[0], *zeros), last)


@meaning.register
def _(op: MatrixProduct, node: Node, side: Side, ins: list[Value]) -> Meaning:
    form = op.product([side.graph[name].type for name in node.inputs])
    if form is None:
        raise Unknown(f"{node.name} is not a product of matrices")
    a, b = (broadcast(value) for value in ins[:2])
    inner, world = side.size(form.inner), side.world

    def product(index: Index) -> Term:
        *outer, i, j = index
        left = (lambda k: (k, i)) if form.trans_a else (lambda k: (i, k))
        right = (lambda k: (j, k)) if form.trans_b else (lambda k: (k, j))
        lead = tuple(outer)
        return world.fold("sum", inner, lambda k: a((*lead, *left(k))) * b((*lead, *right(k))))

    builder = _Steps()
    types = [side.graph[name].type for name in node.inputs[2:]]
    rest = [builder.load(str(i), "each", type.dtype) for i, type in enumerate(types)]
    last = op.epilogue(builder.product(node.type.dtype), rest).number
    loads = [broadcast(value) for value in ins[2:]]
    return lambda index: _Scalar(side, builder.steps, loads, product=product(index)).at(index, last)
