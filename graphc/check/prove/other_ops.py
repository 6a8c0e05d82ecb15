"""The meaning of ops that no rule for kernels tells, compared with their references by tests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial, reduce
from operator import add

import z3

from graphc.check.prove.constants import any_element
from graphc.check.prove.meaning import Side, Value, meaning
from graphc.check.prove.poly import Index, Sizes, number, place, symbol
from graphc.check.prove.rule import AnyOp, any_name
from graphc.check.prove.sizes import poly_of
from graphc.check.prove.terms import (
    Meaning,
    Term,
    Unknown,
    World,
    any_function,
    inverse,
    literal,
    real,
    whole,
)
from graphc.ir.graph import Node
from graphc.ir.op import Op, attributes
from graphc.ops.conv import Conv
from graphc.ops.dropout import Dropout
from graphc.ops.exchange import Receive, Send, ShardInput, Total
from graphc.ops.norm import BatchNorm, BatchNormTrain, Normalize
from graphc.ops.pad import Pad
from graphc.ops.random_numbers import Drawn
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Concat, Slice, SliceGrad

# ------------------------------------------------------------------ ops that move numbers


@meaning.register
def _(op: Transpose, node: Node, side: Side, ins: list[Value]) -> Meaning:
    places = [op.axes.index(axis) for axis in range(len(op.axes))]
    return lambda index: ins[0].at(tuple(index[place] for place in places))


@meaning.register
def _(op: Slice, node: Node, side: Side, ins: list[Value]) -> Meaning:
    def at(index: Index) -> Term:
        moved = list(index)
        for axis, start, _, step in op.cuts:
            moved[axis] = side.size(start) + index[axis] * poly_of(step)
        return ins[0].at(tuple(moved))

    return at


@meaning.register
def _(op: SliceGrad, node: Node, side: Side, ins: list[Value]) -> Meaning:
    def at(index: Index) -> Term:
        """Return the element of dout that a cut reads, or 0."""
        moved, exact = list(index), []
        for axis, start, _, step in op.cuts:
            offset = index[axis] - side.size(start)
            offset = offset if step > 0 else number(0) - offset
            pace = side.size(abs(step))
            moved[axis] = offset.divided(pace, side.world.ranges)
            exact.append(whole(offset) % whole(pace) == 0)
        return _inside(ins[0], tuple(moved), (axis for axis, *_ in op.cuts), 0, exact)

    return at


@meaning.register
def _(op: Pad, node: Node, side: Side, ins: list[Value]) -> Meaning:
    cut = [axis for axis, pair in enumerate(op.pads) if pair != (0, 0)]

    def at(index: Index) -> Term:
        moved = tuple(i - side.size(before) for i, (before, _) in zip(index, op.pads, strict=True))
        return _inside(ins[0], moved, cut, op.value)

    return at


def _inside(
    x: Value, index: Index, axes: Iterable[int], other: float, also: Sequence[Term] = ()
) -> Term:
    """Return the element at an index if that is inside x by these axes, else another number."""
    known = [z3.And(whole(index[i]) >= 0, whole(index[i]) < whole(x.shape[i])) for i in axes]
    return z3.If(z3.And(*also, *known), x.at(index), literal(other)) if known else x.at(index)


@meaning.register
def _(op: Concat, node: Node, side: Side, ins: list[Value]) -> Meaning:
    axis = op.axis % node.type.rank

    def at(index: Index) -> Term:
        """Return the element of the operand that has the place."""
        found, start = None, number(0)
        for value in ins:
            part = value.at((*index[:axis], index[axis] - start, *index[axis + 1 :]))
            found = part if found is None else z3.If(whole(index[axis]) < whole(start), found, part)
            start += value.shape[axis]
        return found

    return at


@meaning.register
def _(op: Conv, node: Node, side: Side, ins: list[Value]) -> Meaning:
    x, w = ins
    axes, ranges = tuple(range(len(w.shape) - 1)), side.world.ranges
    own = w.shape[-1].divided(side.size(op.groups), ranges)

    def at(index: Index) -> Term:
        """Return the sum over the window at an index."""
        n, *places, channel = index

        def term(full: Index) -> Term:
            *offsets, c, _ = full
            sizes = zip(places, op.stride, offsets, op.dilation, strict=True)
            pixel = (p * poly_of(s) + k * poly_of(d) for p, s, k, d in sizes)
            group = channel.divided(own, ranges)
            return x.at((n, *pixel, group * w.shape[-2] + c)) * w.at((*full[:-1], channel))

        return side.world.over("sum", w.shape, axes, (*(number(0) for _ in axes), channel), term)

    return at


# ------------------------------------------------------------------ shards, layers, any op


@meaning.register
def _(op: ShardInput, node: Node, side: Side, ins: list[Value]) -> Meaning:
    rows = reduce(add, (each.rows for each in side.shards))
    share = real(side.rows) * inverse(real(rows))
    if op.role.kind == "first_row":
        return lambda index: real(side.first)
    if op.role.kind == "divisor":
        assert side.batch is not None
        batch = side.batch.value(node.name)
        return lambda index: batch.at(()) * share
    return lambda index: share if op.role.part == "rows" else z3.RealVal(1)


@meaning.register
def _(op: Send, node: Node, side: Side, ins: list[Value]) -> Meaning:
    return ins[0].at


@meaning.register(Receive)
@meaning.register(Total)
def _(op: Op, node: Node, side: Side, ins: list[Value]) -> Meaning:
    (name,) = node.inputs
    sides = side.shards or [side]
    return lambda index: reduce(add, [each.value(name).at(index) for each in sides])


@meaning.register
def _(op: Drawn, node: Node, side: Side, ins: list[Value]) -> Meaning:
    seed, draws, *first = (value.at(()) for value in ins)

    def at(index: Index) -> Term:
        row, column = real(index[0]), real(place(index[1:], side.sizes(op.shape[1:])))
        of_op = {k: v for k, v in attributes(op).items() if k not in ("shape", "dtype")}
        return any_function(f"{op.name} {of_op}", [seed, draws, sum(first, row), column])

    return at


@meaning.register
def _(op: BatchNorm, node: Node, side: Side, ins: list[Value]) -> Meaning:
    """Mean what its reference rule says: batch statistics in training, else running ones."""
    x, gamma, beta, average, variance = node.inputs
    made: tuple[Op, tuple[str, ...]] = Normalize(op.eps), (x, average, variance, gamma, beta)
    if op.by_batch(side.train):
        made = BatchNormTrain(op.eps), (x, gamma, beta)
    inner = Node(node.name, made[0], made[1], node.type)
    return meaning(made[0], inner, side, [side.value(name) for name in made[1]])


@meaning.register
def _(op: Dropout, node: Node, side: Side, ins: list[Value]) -> Meaning:
    if side.train:
        raise Unknown("dropout in training, before it is expanded")
    return ins[0].at


@meaning.register
def _(op: AnyOp, node: Node, side: Side, ins: list[Value]) -> Meaning:
    return partial(any_element, any_name(op.label, [_key(value, side.world) for value in ins]))


def _key(value: Value, world: World) -> tuple[str, Sizes]:
    """Return a text and sizes that only equal values have in common: those of their term."""
    names = [f"_{i} < {size}" for i, size in enumerate(value.shape)]
    world.ranges.bounds.update(zip(names, value.shape, strict=True))
    term = value.at(tuple(map(symbol, names)))
    read = term.decl().kind() == z3.Z3_OP_UNINTERPRETED
    plain = read and [str(child) for child in term.children()] == names
    return term.decl().name() if plain else term.sexpr(), value.shape
