"""The meaning of ops that move numbers, of convolution, masks and shards, and of any op."""

from __future__ import annotations

from functools import reduce
from operator import add

import z3

from graphc.check.prove.meaning import Side, Value, meaning
from graphc.check.prove.rule import AnyOp, any_name
from graphc.check.prove.symbols import Poly, number, poly_of, symbol
from graphc.check.prove.terms import (
    Index,
    Meaning,
    Term,
    Unknown,
    World,
    any_function,
    function,
    literal,
    real,
    reduced,
    whole,
)
from graphc.ir.graph import Node
from graphc.ir.op import Op
from graphc.ops.conv import Conv
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.norm import BatchNorm, BatchNormTrain, Normalize
from graphc.ops.pad import Pad
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Concat, Slice, SliceGrad


@meaning.register
def _(op: Transpose, node: Node, side: Side, ins: list[Value]) -> Meaning:
    places = [op.axes.index(axis) for axis in range(len(op.axes))]
    return lambda index: ins[0].at(tuple(index[place] for place in places))


@meaning.register
def _(op: Slice, node: Node, side: Side, ins: list[Value]) -> Meaning:
    cuts = {axis: (side.size(start), poly_of(step)) for axis, start, _, step in op.cuts}

    def moved(axis: int, i: Poly) -> Poly:
        return cuts[axis][0] + i * cuts[axis][1] if axis in cuts else i

    return lambda index: ins[0].at(tuple(moved(axis, i) for axis, i in enumerate(index)))


@meaning.register
def _(op: SliceGrad, node: Node, side: Side, ins: list[Value]) -> Meaning:
    def at(index: Index) -> Term:
        inside, moved = [], list(index)
        for axis, start, _, step in op.cuts:
            offset = index[axis] - side.size(start)
            offset = offset if step > 0 else number(0) - offset
            pace = side.size(abs(step))
            moved[axis] = offset.divided(pace, side.world.ranges)
            inside.append(whole(offset) % whole(pace) == 0)
            inside.append(_is_inside(moved[axis], ins[0].shape[axis]))
        return z3.If(z3.And(*inside), ins[0].at(tuple(moved)), z3.RealVal(0))

    return at


def _is_inside(i: Poly, size: Poly) -> Term:
    return z3.And(whole(i) >= 0, whole(i) < whole(size))


@meaning.register
def _(op: Pad, node: Node, side: Side, ins: list[Value]) -> Meaning:
    def at(index: Index) -> Term:
        moved = [i - side.size(before) for i, (before, _) in zip(index, op.pads, strict=True)]
        cut = [i for i, pair in enumerate(op.pads) if pair != (0, 0)]
        inside = [_is_inside(moved[axis], ins[0].shape[axis]) for axis in cut]
        x = ins[0].at(tuple(moved))
        return z3.If(z3.And(*inside), x, literal(op.value)) if inside else x

    return at


@meaning.register
def _(op: Concat, node: Node, side: Side, ins: list[Value]) -> Meaning:
    axis = op.axis % node.type.rank

    def at(index: Index) -> Term:
        starts = [number(0)]
        for value in ins:
            starts.append(starts[-1] + value.shape[axis])
        parts = [
            value.at((*index[:axis], index[axis] - start, *index[axis + 1 :]))
            for value, start in zip(ins, starts, strict=False)
        ]
        found = parts.pop()
        for part, end in zip(reversed(parts), reversed(starts[1:-1]), strict=True):
            found = z3.If(whole(index[axis]) < whole(end), part, found)
        return found

    return at


@meaning.register
def _(op: Conv, node: Node, side: Side, ins: list[Value]) -> Meaning:
    x, w = ins
    axes, ranges = tuple(range(len(w.shape) - 1)), side.world.ranges
    own = w.shape[-1].divided(side.size(op.groups), ranges)

    def at(index: Index) -> Term:
        n, *places, channel = index

        def term(full: Index) -> Term:
            *offsets, c, _ = full
            sizes = zip(places, op.stride, offsets, op.dilation, strict=True)
            pixel = (p * poly_of(s) + k * poly_of(d) for p, s, k, d in sizes)
            group = channel.divided(own, ranges)
            return x.at((n, *pixel, group * w.shape[-2] + c)) * w.at((*full[:-1], channel))

        start = (*(number(0) for _ in axes), channel)
        return reduced(side.world, "sum", w.shape, axes, start, term)

    return at


# ------------------------------------------------------------------ masks, shards, any op


@meaning.register
def _(op: DropoutMask, node: Node, side: Side, ins: list[Value]) -> Meaning:
    keys = [value.at(()) for value in ins]
    first = keys[2] if len(keys) > 2 else z3.RealVal(0)

    def at(index: Index) -> Term:
        rest = [real(i) for i in index[1:]]
        return any_function(f"mask {op.stream}", [*keys[:2], first + real(index[0]), *rest])

    return at


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
    name = any_name(op.label, [_key(value, side.world) for value in ins])
    return lambda index: function(name, len(index))(*map(whole, index))


def _key(value: Value, world: World) -> str:
    """Return a text that values have in common only if they are equal: their term."""
    names = [f"_{i} < {size}" for i, size in enumerate(value.shape)]
    world.ranges.bounds.update(zip(names, value.shape, strict=True))
    term = value.at(tuple(map(symbol, names)))
    read = term.decl().kind() == z3.Z3_OP_UNINTERPRETED
    plain = read and [str(child) for child in term.children()] == names
    return str(term.decl().name()) if plain else str(term.sexpr())
