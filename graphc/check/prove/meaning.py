"""The meaning of graphs over the reals, for every size: a value as a function of its indices.

Ops on elements, reductions and products mean what their rules for kernels say: `scalar`, `product`
and `epilogue`.  `other_ops` says what the others mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial, reduce, singledispatch
from operator import mul
from typing import Any

from graphc.check.prove.constants import elements, shape_of
from graphc.check.prove.poly import Index, Poly, Sizes, number, reindexed, symbol
from graphc.check.prove.sizes import ROWS, poly_of
from graphc.check.prove.terms import (
    FUNCTIONS,
    Meaning,
    Term,
    Unknown,
    World,
    any_function,
    array_of,
    cast,
    literal,
    real,
    whole,
)
from graphc.ir.expr import OTHER_STEPS, BodyBuilder, Expr, Step
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import Batch, Dim, Shape
from graphc.ops.linalg import MatrixProduct
from graphc.ops.norm import ByFeature, feature_axes
from graphc.ops.source import Constant
from graphc.ops.sums import Reduction

# ------------------------------------------------------------------ graphs


@dataclass(frozen=True)
class Value:
    """The meaning of a node: its sizes, and its element at an index."""

    shape: Sizes
    at: Meaning

    def broadcast(self, index: Index) -> Term:
        """Return the element for an index of a result that the value broadcasts to."""
        own = zip(reversed(index), reversed(self.shape), strict=False)
        at = [number(0) if size.constant == 1 else i for i, size in own]
        return self.at(tuple(reversed(at)))


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
    batch: Side | None = None
    """The side of the whole batch, if it is one of a shard."""
    train: bool = True
    """The meaning of layers."""
    _values: dict[str, Value] = field(default_factory=dict)

    def size(self, dim: Dim) -> Poly:
        """Return a dimension, in rows of this side."""
        return poly_of(dim).replaced({ROWS: self.rows}).replaced(self.world.equal)

    def sizes(self, shape: Shape) -> Sizes:
        """Return the sizes of a shape."""
        return tuple(map(self.size, shape))

    def value(self, name: str) -> Value:
        """Return the meaning of a node."""
        found = self._values.get(name)
        if found is None:
            node = self.graph[name]
            at = cache(meaning(node.op, node, self, list(map(self.value, node.inputs))))
            found = self._values[name] = Value(self.sizes(shape_of(node)), at)
        return found


@singledispatch
def meaning(op: Op, node: Node, side: Side, ins: list[Value]) -> Meaning:
    """Return the elements of a node, from the meanings of its operands."""
    if isinstance(op, Constant):
        return elements(op)
    if op.is_source:
        return _array(node, side)
    if op.alias:
        shape, ranges = side.sizes(node.type.shape), side.world.ranges
        return lambda index: ins[0].at(reindexed(index, shape, ins[0].shape, ranges))
    types = [side.graph[name].type for name in node.inputs]
    reduces = op.iteration(types) in ("rows", "columns", "all")
    if reduces or op.broadcast_kinds(types) is not None:
        raise Unknown(f"op {op.name} is not one on elements")
    return _body(op, node, side, [value.broadcast for value in ins])


def _array(node: Node, side: Side) -> Meaning:
    """Return the elements of an array of any numbers; those of a shard are its rows."""
    array = array_of(node.name, node.type.rank, node.type.dtype)
    starts = [
        side.first * poly_of(dim.factor) if isinstance(dim, Batch) else number(0)
        for dim in node.type.shape
    ]
    return lambda index: array(*(whole(i + s) for i, s in zip(index, starts, strict=True)))


# ------------------------------------------------------------------ rules for kernels


class _Steps(BodyBuilder):
    """The steps of a scalar rule, with sizes as they are."""

    def dim(self, dim: Dim, dtype: str) -> Expr:
        return self.step(Step("size", (), "one", dtype, value=dim))


Read = Callable[[Index], Term]


@dataclass
class _Body:
    """The terms of a rule for kernels at an index of the first operand."""

    side: Side
    steps: list[Step]
    loads: Sequence[Read]
    product: Read | None = None
    shape: Sizes = ()
    axes: tuple[int, ...] = ()
    """The first operand's shape, and the axes that are reduced."""

    def at(self, place: int, index: Index) -> Term:
        """Return the value of a step."""
        step, world = self.steps[place], self.side.world
        if step.op == "load":
            return self.loads[int(step.buffer)](index)
        if step.op == "product" and self.product is not None:
            return self.product(index)
        if step.op == "const":
            return literal(step.value)  # type: ignore[arg-type]
        if step.op == "size":
            return self._size(step.value)
        if step.op in ("sum", "max"):
            body = partial(self.at, step.args[0])
            return world.over(step.op, self.shape, self.axes, index, body)
        if step.op in OTHER_STEPS:
            raise Unknown(f"the meaning of {step.op!r} in a kernel is not known")
        args = [self.at(arg, index) for arg in step.args]
        if step.op == "cast":
            return cast(args[0], self.steps[step.args[0]].dtype, step.dtype)
        if step.op not in ("add", "sub", "mul", "neg", "select"):
            args = list(map(world.normal, args))
        known = FUNCTIONS.get(step.op)
        return known(*args) if known else any_function(step.op, args)

    def _size(self, value: Any) -> Term:
        if isinstance(value, str):  # the number of rows or columns: of what is reduced
            return real(reduce(mul, (self.shape[axis] for axis in self.axes), number(1)))
        return real(self.side.size(value))


def _body(
    op: Op,
    node: Node,
    side: Side,
    loads: Sequence[Read],
    shape: Sizes = (),
    axes: tuple[int, ...] = (),
    product: Read | None = None,
) -> Meaning:
    """Return what an op computes at an index of the first operand, or in an element of a product.

    `loads` reads its operands, those after the factors of a product.
    """
    builder = _Steps()
    names = node.inputs[len(node.inputs) - len(loads) :]
    types = [side.graph[name].type for name in names]
    exprs = [builder.load(str(i), "each", type.dtype) for i, type in enumerate(types)]
    try:
        last = (
            op.scalar(exprs, "rows")
            if product is None
            else op.epilogue(builder.product(node.type.dtype), exprs)
        )
    except NotImplementedError:
        raise Unknown(f"op {op.name} has no scalar rule") from None
    return partial(_Body(side, builder.steps, loads, product, shape, axes).at, last.number)


@meaning.register
def _(op: Reduction, node: Node, side: Side, ins: list[Value]) -> Meaning:
    body = _body(op, node, side, [ins[0].at], ins[0].shape, op.axes)
    if op.keepdims:
        return body

    def at(index: Index) -> Term:
        kept = iter(index)
        axes = range(len(ins[0].shape))
        return body(tuple(number(0) if axis in op.axes else next(kept) for axis in axes))

    return at


@meaning.register
def _(op: ByFeature, node: Node, side: Side, ins: list[Value]) -> Meaning:
    def by_column(value: Value) -> Read:
        return lambda index: value.at((index[1],))

    kinds = zip(ins, op.kinds, strict=True)
    loads = [value.at if kind == "each" else by_column(value) for value, kind in kinds]
    rank = len(ins[0].shape)
    body = _body(op, node, side, loads, ins[0].shape, feature_axes(rank))
    if node.type.rank == rank:
        return body
    return lambda index: body((number(0), index[0], *(number(0),) * (rank - 2)))


@meaning.register
def _(op: MatrixProduct, node: Node, side: Side, ins: list[Value]) -> Meaning:
    form = op.product([side.graph[name].type for name in node.inputs])
    if form is None or len(ins[0].shape) > node.type.rank:
        raise Unknown(f"{node.name} is not a product of matrices")
    a, b = ins[:2]
    inner = side.size(form.inner)

    def product(index: Index) -> Term:
        """Return the sum of products at an index."""
        *lead, i, j = index

        def term(k: Poly) -> Term:
            left, right = ((k, i) if form.trans_a else (i, k)), ((j, k) if form.trans_b else (k, j))
            return a.broadcast((*lead, *left)) * b.broadcast((*lead, *right))

        return side.world.fold("sum", inner, term)

    return _body(op, node, side, [value.broadcast for value in ins[2:]], product=product)
