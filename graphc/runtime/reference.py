"""Runs of a graph, an op or a layer by the reference rules of ops alone.

It allocates freely and keeps every value.  Passes, kernels and gradients are checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.base.errors import FeedError, GraphError, Operand
from graphc.ir.build import Builder, Value, expand
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import by_reference, interpret
from graphc.ir.op import Array, Layer, Op
from graphc.ir.tensor_type import FLOATS, TensorType, shape_at, shape_text
from graphc.ops.autodiff import vjp
from graphc.ops.reduce import broadcast_to
from graphc.ops.source import Input, constant
from graphc.runtime.state import initial_value


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


def fail(call: str, sentence: str, arrays: Mapping[str, Any]) -> GraphError:
    """Return an error of an eager call, at the user's line, with its arrays."""
    operands = [Operand(role, *_describe(array), None) for role, array in arrays.items()]
    return GraphError(f"{call}: {sentence}", operands=operands)


def _describe(array: Any) -> tuple[str, str]:
    if isinstance(array, np.ndarray):
        return str(array.dtype), str(array.shape)
    return "a", type(array).__name__


def floats(*arrays: Any) -> list[Array]:
    """Return the arrays in their common float dtype; whole numbers count as float64."""
    known = [np.asarray(array) for array in arrays]
    common = np.result_type(*known)
    dtype = common.name if common.name in FLOATS else "float64"
    return [array.astype(dtype, copy=False) for array in known]


def types_of(arrays: Sequence[Array]) -> tuple[TensorType, ...]:
    """Return the types of arrays."""
    return tuple(TensorType(array.shape, array.dtype.name) for array in arrays)


def operand_names(op: Op, count: int) -> tuple[str, ...]:
    """Return the operands' roles, and numbered names for operands without one."""
    return (*op.roles, *(f"operand {i}" for i in range(len(op.roles), count)))[:count]


def infer(call: str, op: Op, arrays: Mapping[str, Array]) -> TensorType:
    """Return the type of the result; raise GraphError, in the op's words, for unsuitable arrays."""
    try:
        return op.infer(types_of(list(arrays.values())))
    except ValueError as error:
        raise fail(call, str(error).partition("\n")[0], arrays) from None


def forward(call: str, op: Op, arrays: Mapping[str, Array], train: bool = False) -> Array:
    """Return the result of the op's reference rule."""
    infer(call, op, arrays)
    return np.array(op.reference_in(list(arrays.values()), train))


@lru_cache(maxsize=256)
def expanded(op: Op, types: tuple[TensorType, ...], train: bool = False) -> Graph:
    """Return the graph of an op or an expanded layer: inputs named by role, and an output `out`."""
    b = Builder(op.name)
    b.locs = ()
    ins = [
        b.apply(Input(type.shape, type.dtype), name=role)
        for role, type in zip(operand_names(op, len(types)), types, strict=True)
    ]
    out = (
        expand(b, op, "result", ins, train)
        if isinstance(op, Layer)
        else b.apply(op, *ins, name="result")
    )
    b.outputs["out"] = out.name
    return b.graph()


@lru_cache(maxsize=256)
def derivative(op: Op, types: tuple[TensorType, ...], train: bool, wrt: tuple[str, ...]) -> Graph:
    """Return the graph of the gradients, named by `wrt` roles, from an input `cotangent`."""
    b = Builder.extending(expanded(op, types, train))
    out = b.value(b.outputs.pop("out"))
    dout = b.apply(Input(out.shape, out.dtype), name="cotangent")
    found = vjp(b, {out.name: dout}, wrt)
    b.outputs.update({role: _gradient(found, role, b).name for role in wrt})
    graph = b.graph()
    needed = graph.upstream(graph.outputs.values())
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
    graph = derivative(op, types_of(ins), train, wrt)
    feeds = dict(zip(operand_names(op, len(ins)), ins, strict=True)) | {"cotangent": dout}
    values = evaluate(graph, feeds, {}, 1)
    return [np.array(values[graph.outputs[role]]) for role in wrt]
