"""The interpreter of graphs: computes nodes in order, each from the values of its operands.

All that computes a graph node by node does it by `interpret`: reference runs, eager layers, checks
of gradients, validation of passes, the search for a NaN, and replay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from graphc.base.errors import GraphError, RuleError
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import numpy_dtype, shape_at

T = TypeVar("T")
Rule = Callable[[Node, Sequence[Array]], Array]
"""Computes a node from the values of its operands."""


def interpret(
    nodes: Iterable[Node],
    rule: Callable[[Node, list[T]], T],
    known: Mapping[str, T],
    after: Callable[[Node, T], T] | None = None,
) -> dict[str, T]:
    """Return the values of all nodes by name, the known ones too; operands must come first.

    A node that is known is not computed; `rule` computes the others from their operands' values.
    `after` is called with each node and its value, and returns the value that its users read.
    """
    values = dict(known)
    for node in nodes:
        if node.name not in known:
            values[node.name] = rule(node, [values[name] for name in node.inputs])
        if after is not None:
            values[node.name] = after(node, values[node.name])
    return values


def by_reference(n: int, train: bool = False) -> Rule:
    """Return the rule that computes nodes for a batch of `n` rows as their ops define them.

    `train` selects the meaning of layers.
    """
    return partial(computed, n=n, train=train)


def computed(node: Node, ins: Sequence[Array], n: int, train: bool) -> Array:
    """Return the result of a node's reference rule; raise RuleError if it is of another type."""
    if node.op.needs_expansion:
        raise GraphError(
            f"{node.op.name} {node.name!r} has no value before it is expanded",
            loc=node.loc,
            hint="specialize first: Specialize(train=True)(graph)",
        )
    value = np.asarray(node.op.at(n).reference_in(ins, train))
    wanted = shape_at(node.type.shape, n)
    if value.shape != wanted or value.dtype != numpy_dtype(node.type.dtype):
        fault = wrong_result(value, wanted, node.type.dtype)
        raise RuleError(node.op.name, "reference", fault, node.name, node.loc)
    return value


def wrong_result(value: Array, shape: tuple[int, ...], dtype: str) -> str:
    """Return what is wrong with the result of a reference rule that is not of its type."""
    if value.dtype == object:
        kind = "an array of objects" if value.ndim else type(value.item()).__name__
        return f"returns {kind}, not an array of {dtype}"
    says = f"its infer rule says {dtype}{list(shape)}"
    return f"gives {value.dtype}{list(value.shape)}, {says}"
