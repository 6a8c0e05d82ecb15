"""Compute what depends only on constants, and remove what changes nothing.

    a = constant(2.0)
    b = exp(a)                 ->    b = constant(7.389056)
    c = mul(x, one)                  d = neg(x)
    d = neg(c)

Only rewrites that keep every bit are made: what `IDENTITIES` lists is x, but x + 0 is not, since
-0.0 + 0 is 0.0.  Reshapes of reshapes and transposes of transposes are joined; those to the same
shape, dtype or order are deleted.  A transpose that moves only axes of one entry is a reshape, and
a slice of joined values reads one part if it lies in it.  A result is not folded if it is large and
larger than its operands, or if computing it takes long.

Frozen weights are constants with a label.  New weights may replace them later, so nothing
here depends on their numbers, and what is computed from them has a label, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from graphc.base.formula import Term, parsed
from graphc.ir.graph import Graph, Node
from graphc.ir.op import BUILT_IN, Op, attributes
from graphc.ir.tensor_type import Shape, TensorType, normal_axis
from graphc.ops.elementwise import Div, Mul, Neg, Power, Sub
from graphc.ops.shape import Cast, Reshape, Transpose
from graphc.ops.slicing import Concat, Slice
from graphc.ops.source import Constant, constant_op
from graphc.ops.sums import BroadcastTo
from passes.contract import graph_pass, pinned

IDENTITIES = {
    "mul_one": "x * 1",
    "one_mul": "1 * x",
    "div_one": "x / 1",
    "sub_zero": "x - 0",
    "neg_neg": "-(-x)",
    "power_one": "x ** 1",
}
"""Formulas that are x if they have x's type, by the names that `graphc prove` has for them.

A number is a constant of that number everywhere, and 0 is not -0.0.
"""
MOVES: Mapping[type[Op], Callable[[Any], bool]] = {
    Transpose: lambda op: op.axes == tuple(range(len(op.axes))),
    Slice: lambda op: all(step > 0 for *_, step in op.cuts),
    **dict.fromkeys((Reshape, BroadcastTo, Cast, Concat), lambda op: True),
}
"""The ops that return their only operand if the result has its type, and this holds."""
KINDS = Mul, Div, Sub, Neg, Power, *MOVES
"""The ops for which `_simplified` has a rewrite."""
SMALL = 4096
"""The bytes up to which a result is always worth folding."""
WORK, WORK_EACH = 1 << 26, 64
"""The most operations that are done for a graph, and for each byte of its constants."""


@graph_pass(preserves="bitwise")
def fold_constants(graph: Graph) -> Graph:
    """Return the graph with constant parts computed and identities left out."""
    seen: dict[str, Node] = {}
    same: dict[str, str] = {}
    changed: dict[str, Node | None] = {}
    pins = pinned(graph)
    sizes = [len(node.op.data) for node in graph if isinstance(node.op, Constant)]
    left = WORK + WORK_EACH * sum(sizes)
    for node in graph:
        made = node.reading(same) if same else node
        if not isinstance(made.op, KINDS) and not _reads_constant(made, seen):
            pass
        elif pins and (node.name in pins or not pins.isdisjoint(node.inputs)):
            pass  # Backward differentiates by it or by an operand
        elif made.op.transfer is None:  # other shards have other constants
            operands = [seen[operand] for operand in made.inputs]
            folded = _folded(made, operands, left)
            left -= 0 if folded is None else _work(made, operands)
            made = folded or _simplified(made, seen)
        if made.name != node.name:
            same[node.name] = made.name
        if made is not node:
            changed[node.name] = made if made.name == node.name else None
        seen[node.name] = made
    return graph.replace(changed, reads=same) if changed else graph


def _reads_constant(node: Node, seen: Mapping[str, Node]) -> bool:
    """Return whether the first operand, and so perhaps every one, is a constant."""
    return bool(node.inputs) and seen[node.inputs[0]].op.is_constant


def _folded(node: Node, operands: list[Node], left: int) -> Node | None:
    """Return the node as a constant, or None if an operand varies or the work exceeds `left`."""
    op = node.op
    constants = [operand.op for operand in operands if isinstance(operand.op, Constant)]
    if len(constants) < len(operands):
        return None
    if node.type.batched or op.at(1) is not op or not worth_it(node.type, operands):
        return None
    if _work(node, operands) > left:
        return None
    try:
        with np.errstate(all="ignore"):
            value = np.asarray(op.reference([constant.array() for constant in constants]))
    except NotImplementedError:  # a layer, or an op that only has a kernel
        return None
    if value.shape != node.type.shape or value.dtype.name != node.type.dtype:
        return None  # the op contradicts its infer rule: leave it to be reported later
    label = node.name if any(constant.label for constant in constants) else ""
    return Node(node.name, replace(constant_op(value), label=label), (), node.type, node.locs)


def _work(node: Node, operands: list[Node]) -> int:
    """Return the operations that computing the node takes; a byte of its result counts as four."""
    flops = node.op.flops([operand.type for operand in operands], node.type, 1)
    return 4 * node.type.nbytes(1) + sum(flops)


def worth_it(type: TensorType, operands: list[Node]) -> bool:
    """Return whether a result is small, or no larger than its operands, each counted once.

    A value joined with itself is twice as large: in a chain of such nodes memory would double.
    """
    sizes = {operand.name: operand.type.nbytes(1) for operand in operands}
    return type.nbytes(1) <= max(SMALL, sum(sizes.values()))


# ------------------------------------------------------------------ identities


def _simplified(node: Node, nodes: Mapping[str, Node]) -> Node:
    """Return the node, a simpler node of the same name, or an earlier node that equals it."""
    joined = _joined(node, nodes[node.inputs[0]], nodes)
    equal = _equal_operand(joined, nodes)
    return joined if equal is None or equal.type != node.type else equal


def _equal_operand(node: Node, nodes: Mapping[str, Node]) -> Node | None:
    """Return the node that a result equals, provided that it also has the result's type."""
    for pattern in IDENTITIES.values():
        found = _matched(parsed(pattern), node, nodes)
        if found is not None:
            return found
    moves = len(node.inputs) == 1 and MOVES.get(type(node.op))
    return nodes[node.inputs[0]] if moves and moves(node.op) else None


def _matched(pattern: Term, node: Node, nodes: Mapping[str, Node]) -> Node | None:
    """Return the node that x is if a node matches a pattern, else None."""
    if isinstance(pattern, str):
        return node
    if isinstance(pattern, float) or not isinstance(node.op, BUILT_IN[pattern[0]]):
        return None
    parts, x = pattern[1], None
    for part, operand in zip(parts, node.inputs, strict=False):
        if not isinstance(part, float):
            x = _matched(part, nodes[operand], nodes)
        elif not _is_all(nodes[operand], part):
            return None
    return x if [*attributes(node.op).values()] == [*parts[len(node.inputs) :]] else None


def _is_all(node: Node, number: float) -> bool:
    """Return whether a constant, not a frozen weight, is this number everywhere; -0.0 is not 0."""
    if not isinstance(node.op, Constant) or node.op.label:
        return False
    array = node.op.array()
    return array.size <= 4096 and bool(np.all(array == number) and not np.any(np.signbit(array)))


def _joined(node: Node, x: Node, nodes: Mapping[str, Node]) -> Node:
    """Join two reshapes, two transposes, or a slice and a join; return other nodes as they are."""
    op = node.op
    if isinstance(op, Transpose) and isinstance(x.op, Transpose):
        op = Transpose(tuple(x.op.axes[axis] for axis in op.axes))
        x = nodes[x.inputs[0]]
    if isinstance(op, Transpose) and _moves_single_entries(op, x.type.shape):
        op = Reshape(node.type.shape)
    if isinstance(op, Reshape) and isinstance(x.op, Reshape):
        x = nodes[x.inputs[0]]
    if isinstance(op, Slice) and isinstance(x.op, Concat):
        op, x = _of_part(op, x.op, x, nodes)
    same = op is node.op and x.name == node.inputs[0]
    return node if same else Node(node.name, op, (x.name,), node.type, node.locs)


def _moves_single_entries(op: Transpose, shape: Shape) -> bool:
    """Return whether the axes of more than one entry keep their order, but others do not."""
    long = [axis for axis in op.axes if shape[axis] != 1]
    return long == sorted(long) and op.axes != tuple(range(len(shape)))


def _of_part(op: Slice, join: Concat, x: Node, nodes: Mapping[str, Node]) -> tuple[Slice, Node]:
    """Return a slice of one part of joined values that equals a slice of all, and the part."""
    axis, end = normal_axis(join.axis, x.type.rank), 0
    for part in (nodes[name] for name in x.inputs):
        size = part.type.shape[axis]
        if not isinstance(size, int):
            break
        start, end = end, end + size
        inside = op.within(axis, start, end)
        if inside is not None:
            return inside, part
    return op, x
