"""Compute what depends only on constants, and remove what changes nothing.

    a = constant(2.0)
    b = exp(a)                 ->    b = constant(7.389056)
    c = mul(x, one)                  d = neg(x)
    d = neg(c)

Only rewrites that keep every bit are made: x * 1, x / 1, x - 0 and x ** 1 are x, and so is
-(-x); x + 0 is not, since -0.0 + 0 is 0.0.  Reshapes of reshapes and transposes of transposes
are joined; those to the same shape, dtype or order are deleted.  A result is not folded if it is
large and larger than what it is computed from, or if computing it takes long.

Frozen weights are constants with a label.  New weights may replace them later, so nothing
here depends on their numbers, and what is computed from them has a label, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import TensorType
from graphc.ops.exchange import Send
from graphc.ops.source import Constant, constant_op
from passes.identities import KINDS, simplify
from passes.pins import pinned
from passes.pipeline import graph_pass

SMALL = 4096
"""A result of at most so many bytes is worth folding."""
WORK, WORK_EACH = 1 << 26, 64
"""The operations that may be done for a graph, and for each byte of its constants."""


@graph_pass(preserves="bitwise")
def fold_constants(graph: Graph) -> Graph:
    """Return the graph with constant parts computed and identities left out."""
    seen: dict[str, Node] = {}
    same: dict[str, str] = {}
    changed: dict[str, Node | None] = {}
    pins = pinned(graph)
    sizes = (len(node.op.data) for node in graph if isinstance(node.op, Constant))
    left = WORK + WORK_EACH * sum(sizes)
    for node in graph:
        made = _reading(node, same)
        if pins and (node.name in pins or not pins.isdisjoint(node.inputs)):
            pass  # Backward differentiates by it or by an operand
        elif isinstance(made.op, Send):
            pass  # other shards have other constants
        elif isinstance(made.op, KINDS) or _reads_constant(made, seen):
            operands = [seen[operand] for operand in made.inputs]
            folded = _folded(made, operands, left)
            left -= 0 if folded is None else _work(made, operands)
            made = folded or simplify(made, operands, seen)
        if made.name != node.name:
            same[node.name] = made.name
        if made is not node:
            changed[node.name] = made if made.name == node.name else None
        seen[node.name] = made
    return graph.replace(changed, reads=same) if changed else graph


def _reading(node: Node, same: Mapping[str, str]) -> Node:
    """Return the node, or one that reads the nodes that its operands equal."""
    if not same or not any(operand in same for operand in node.inputs):
        return node
    inputs = tuple(same.get(operand, operand) for operand in node.inputs)
    return Node(node.name, node.op, inputs, node.type, node.locs)


def _reads_constant(node: Node, seen: Mapping[str, Node]) -> bool:
    """Return whether the first operand, and so perhaps every one, is a constant."""
    return bool(node.inputs) and isinstance(seen[node.inputs[0]].op, Constant)


def _folded(node: Node, operands: list[Node], left: int) -> Node | None:
    """Return the node as a constant, or None if an operand varies or the work exceeds `left`."""
    op = node.op
    constants = [operand.op for operand in operands if isinstance(operand.op, Constant)]
    if len(constants) < len(operands):
        return None
    if node.type.batched or op.at(1) is not op or not _worth_it(node.type, operands):
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
    folded = replace(constant_op(value), label=label)
    return Node(node.name, folded, (), node.type, node.locs)


def _work(node: Node, operands: list[Node]) -> int:
    """Return the operations that computing the node takes, moving its bytes included."""
    flops = node.op.flops([operand.type for operand in operands], node.type, 1)
    return node.type.nbytes(1) + sum(flops)


def _worth_it(type: TensorType, operands: list[Node]) -> bool:
    limit = max(SMALL, sum(operand.type.nbytes(1) for operand in operands))
    return type.nbytes(1) <= limit
