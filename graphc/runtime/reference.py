"""Runs of a graph, an op or a layer by the reference rules of ops alone.

It allocates freely and keeps every value.  Passes, kernels and gradients are checked against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any

import numpy as np

from graphc.base.errors import FeedError
from graphc.ir.build import Builder, Value, expand
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import by_reference, interpret
from graphc.ir.op import Array, Layer, Op
from graphc.ir.tensor_type import TensorType, shape_at, shape_text
from graphc.ops.autodiff import vjp
from graphc.ops.source import Input, constant
from graphc.ops.sums import broadcast_to
from graphc.runtime.state import initial_value
from passes.specialize import Specialize


def evaluate(
    graph: Graph,
    feeds: Mapping[str, Any],
    state: Mapping[str, Any],
    n: int,
    train: bool = False,
    known: Mapping[str, Array] | None = None,
) -> dict[str, Array]:
    """Return the value of every node, by name, for a batch of `n` rows.

    `feeds` holds an array for each input, `state` one for each parameter and state; both are
    read, never written.  `train` selects the meaning of layers that are not specialized yet.
    Nodes whose values are `known` are not computed.
    Raise FeedError for a missing or misshapen array; GraphError if a rule gives another type than
    the op inferred, or for a `gc.grad` that has not been expanded.
    """
    values = dict(known or {})
    for node in graph:
        if node.name not in values and (node.op.is_input or node.op.persistent):
            arrays, what = (feeds, "feed") if node.op.is_input else (state, "state")
            values[node.name] = _given(node, arrays, what, n)
    return interpret(graph, by_reference(n, train), values)


def next_state(
    graph: Graph, values: Mapping[str, Array], state: Mapping[str, Array]
) -> dict[str, Array]:
    """Return the state after the graph's updates, all of which read the state from before."""
    after = {name: np.array(array) for name, array in state.items()}
    after.update({name: np.array(values[value]) for name, value in graph.updates.items()})
    return after


def initial_state(graph: Graph, seed: int) -> dict[str, Array]:
    """Return every parameter and state of the graph as a new executor would initialise it."""
    return {node.name: np.array(initial_value(node, seed)) for node in graph if node.op.persistent}


def _given(node: Node, arrays: Mapping[str, Any], what: str, n: int) -> Array:
    if node.name not in arrays:
        raise FeedError(f"{node.op.name} {node.name!r} has no {what} array", loc=node.loc)
    value = np.asarray(arrays[node.name])
    wanted = shape_at(node.type.shape, n)
    if value.shape != wanted:
        raise FeedError(
            f"{node.op.name} {node.name!r} takes {shape_text(node.type.shape)}, with N = {n} that "
            f"is {wanted}; the array has shape {value.shape}",
            loc=node.loc,
        )
    return value.astype(node.type.dtype, copy=False)


def types_of(arrays: Sequence[Array]) -> tuple[TensorType, ...]:
    """Return the types of arrays."""
    return tuple(TensorType(array.shape, array.dtype.name) for array in arrays)


Build = Callable[..., Mapping[str, Value]]
"""A function of values that returns outputs by name."""
Rule = Op | Build
"""An op or a function of values, which is computed and differentiated by the rules of ops."""


def operand_names(rule: Rule, count: int) -> tuple[str, ...]:
    """Return a function's parameters, or an op's roles; operands without a role are numbered."""
    if not isinstance(rule, Op):
        return tuple(signature(rule).parameters)
    return (*rule.roles, *(f"operand {i}" for i in range(len(rule.roles), count)))[:count]


@lru_cache(maxsize=256)
def expanded(rule: Rule, types: tuple[TensorType, ...], train: bool = False) -> Graph:
    """Return the graph of an op, an expanded layer, or a function of values without its layers.

    Inputs are named as `operand_names` says; the output of an op or a layer is `out`.
    """
    b = Builder(rule.name if isinstance(rule, Op) else rule.__name__)
    b.locs = ()
    ins = [
        b.apply(Input(type.shape, type.dtype), name=role)
        for role, type in zip(operand_names(rule, len(types)), types, strict=True)
    ]
    if not isinstance(rule, Op):
        b.outputs.update({name: value.name for name, value in rule(*ins).items()})
        return Specialize(train)(b.graph())
    out = (
        expand(b, rule, "result", ins, train)
        if isinstance(rule, Layer)
        else b.apply(rule, *ins, name="result")
    )
    b.outputs["out"] = out.name
    return b.graph()


@lru_cache(maxsize=256)
def derivative(graph: Graph, wrt: tuple[str, ...]) -> Graph:
    """Return the graph of the gradients, named by `wrt`, from inputs `cotangent.<output>`."""
    b = Builder.extending(graph)
    douts = {}
    for output, name in graph.outputs.items():
        out = b.value(name)
        cotangent = b.apply(Input(out.shape, out.dtype), name=f"cotangent.{output}")
        douts[name] = cotangent
    b.outputs.clear()
    found = vjp(b, douts, wrt)
    b.outputs.update({role: _gradient(found, role, b).name for role in wrt})
    needed = b.graph().upstream(b.outputs.values())
    b.updates.clear()
    b.nodes = {name: node for name, node in b.nodes.items() if name in needed}
    return b.graph()


def _gradient(found: Mapping[str, Value], role: str, b: Builder) -> Value:
    if role in found:
        return found[role]
    type = b.nodes[role].type
    return broadcast_to(constant(b, 0.0, type.dtype), type.shape)


def backward(
    op: Op, ins: Sequence[Array], dout: Array, wrt: tuple[str, ...], train: bool = False
) -> list[Array]:
    """Return the gradients with respect to the operands of these roles, by the op's own rules."""
    feeds = dict(zip(operand_names(op, len(ins)), ins, strict=True))
    return gradients(expanded(op, types_of(ins), train), feeds, [dout], wrt)


def gradients(
    graph: Graph, feeds: Mapping[str, Array], douts: Sequence[Array], wrt: tuple[str, ...]
) -> list[Array]:
    """Return the gradients of a graph with respect to inputs, given those of its outputs."""
    slope = derivative(graph, wrt)
    given = {f"cotangent.{name}": d for name, d in zip(graph.outputs, douts, strict=True)}
    values = evaluate(slope, {**feeds, **given}, {}, 1)
    return [np.array(values[slope.outputs[role]]) for role in wrt]
