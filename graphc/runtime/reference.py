"""The reference interpreter: runs a graph by its ops' reference rules alone.

It allocates freely and keeps every value.  Passes, kernels and gradients are checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphc.base.errors import FeedError, GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at, shape_text
from graphc.ops.gradient import Gradient
from graphc.ops.source import Input, Parameter, State
from graphc.runtime.state import initial_value


def evaluate(
    graph: Graph,
    feeds: Mapping[str, Any],
    state: Mapping[str, Any],
    n: int,
    train: bool = False,
) -> dict[str, Array]:
    """Return the value of every node, by name, for a batch of `n` rows.

    `feeds` holds an array for each input, `state` one for each parameter and state; both are
    read, never written.  `train` selects the meaning of layers that are not specialized yet.
    Raise FeedError for a missing or misshapen array; GraphError if a rule gives another type than
    the op inferred, or for a `gc.grad` that has not been expanded.
    """
    values: dict[str, Array] = {}
    for node in graph:
        if isinstance(node.op, Input):
            value = _given(node, feeds, "feed", n)
        elif isinstance(node.op, (Parameter, State)):
            value = _given(node, state, "state", n)
        else:
            value = computed(node, [values[name] for name in node.inputs], n, train)
        values[node.name] = value
    return values


def next_state(
    graph: Graph, values: Mapping[str, Array], state: Mapping[str, Array]
) -> dict[str, Array]:
    """Return the state after the graph's updates, all of which read the state from before."""
    after = {name: np.array(array) for name, array in state.items()}
    after.update({name: np.array(values[value]) for name, value in graph.updates.items()})
    return after


def initial_state(graph: Graph, seed: int) -> dict[str, Array]:
    """Return every parameter and state of the graph as a new executor would initialise it."""
    return {
        node.name: np.array(initial_value(node, seed))
        for node in graph
        if isinstance(node.op, (Parameter, State))
    }


def _given(node: Node, arrays: Mapping[str, Any], what: str, n: int) -> Array:
    if node.name not in arrays:
        raise FeedError(
            f"{node.op.name} {node.name!r} has no {what} array",
            loc=node.locs[0] if node.locs else None,
        )
    value = np.asarray(arrays[node.name])
    wanted = shape_at(node.type.shape, n)
    if value.shape != wanted:
        raise FeedError(
            f"{node.op.name} {node.name!r} takes {shape_text(node.type.shape)}, with N = {n} that "
            f"is {wanted}; the array has shape {value.shape}",
            loc=node.locs[0] if node.locs else None,
        )
    return value.astype(node.type.dtype, copy=False)


def computed(node: Node, ins: Sequence[Array], n: int, train: bool) -> Array:
    """Return the result of a node's reference rule; raise GraphError if it is of another type."""
    op = node.op.at(n)
    if isinstance(op, Gradient):
        raise GraphError(
            f"grad {node.name!r} has no value before it is expanded",
            loc=node.locs[0] if node.locs else None,
            hint="specialize first: Specialize(train=True)(graph)",
        )
    value = np.asarray(op.reference_in(ins, train))
    wanted = shape_at(node.type.shape, n)
    if value.shape != wanted or value.dtype != node.type.dtype:
        raise GraphError(
            f"{node.op.name} {node.name!r}: its reference gives {value.dtype}{list(value.shape)}, "
            f"its infer rule says {node.type.dtype}{list(wanted)}",
            loc=node.locs[0] if node.locs else None,
        )
    return value
