"""Runs of a graph, an op or a layer by the reference rules of ops alone.

It allocates freely and keeps every value.  Passes, kernels and gradients are checked against it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import signature
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


Build = Callable[..., Mapping[str, Value]]
"""A function of values that returns outputs by name."""


def parameter_names(build: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return tuple(signature(build).parameters)


@lru_cache(maxsize=256)
def composed(build: Build, types: tuple[TensorType, ...]) -> Graph:
    """Return the graph of a function from values to outputs by name; its parameters are inputs."""
    b = Builder(build.__name__)
    b.locs = ()
    ins = [
        b.apply(Input(type.shape, type.dtype), name=name)
        for name, type in zip(parameter_names(build), types, strict=True)
    ]
    b.outputs.update({name: value.name for name, value in build(*ins).items()})
    return Specialize(train=False)(b.graph())


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


# ---------------------------------------------------------------- calls with a cache


def check_range(
    call: str, what: str, numbers: Array, of: tuple[int, str], arrays: Mapping[str, Any]
) -> None:
    """Raise GraphError if a number is below 0 or not below the count of `of`."""
    count, name = of
    if numbers.size and (numbers.min() < 0 or numbers.max() >= count):
        worst = int(numbers.min() if numbers.min() < 0 else numbers.max())
        message = f"{what} {worst} is not one of the {count} {name}, 0 to {count - 1}"
        raise fail(call, message, arrays)


def checked_backward(
    call: str, op: Op, ins: Sequence[Any], dout: Array, wrt: tuple[str, ...], train: bool = False
) -> list[Array]:
    """Return the gradients by operands of these roles; raise GraphError if dout does not fit."""
    *arrays, dout = floats(*ins, dout)
    check_dout(call, dout, op.infer(types_of(arrays)).shape)
    return backward(op, arrays, dout, wrt, train)


def unpack(call: str, cache: Any, parts: int) -> tuple[Any, ...]:
    """Return the cache; raise GraphError unless it has that many parts."""
    if not isinstance(cache, tuple) or len(cache) != parts:
        raise fail(call, "the cache is not one that the forward function returned", {})
    return cache


def check_dout(call: str, dout: Array, shape: tuple[Any, ...]) -> None:
    """Raise GraphError unless dout has the output's shape."""
    if dout.shape != shape:
        raise fail(call, f"dout has shape {dout.shape}, the output has {shape}", {})


def composed_forward(
    call: str, build: Build, shapes: str, arrays: Sequence[Any]
) -> tuple[list[Array], tuple[Any, ...]]:
    """Return the outputs of a function of values, and the arrays as the cache.

    Raise GraphError unless they have the shapes, see `check_sizes`.
    """
    given = dict(zip(parameter_names(build), arrays, strict=True))
    ins = floats(*check_sizes(call, given, shapes))
    graph = composed(build, types_of(ins))
    values = evaluate(graph, dict(zip(given, ins, strict=True)), {}, 1)
    return [np.array(values[name]) for name in graph.outputs.values()], tuple(arrays)


def composed_backward(call: str, build: Build, cache: Any, *douts: Array) -> tuple[Array, ...]:
    """Return the gradients of a function of values with respect to all that it reads."""
    roles = parameter_names(build)
    arrays = floats(*unpack(call, cache, len(roles)), *douts)
    ins, outs = arrays[: len(roles)], arrays[len(roles) :]
    graph = composed(build, types_of(ins))
    for dout, name in zip(outs, graph.outputs.values(), strict=True):
        check_dout(call, dout, graph[name].type.shape)
    return tuple(gradients(graph, dict(zip(roles, ins, strict=True)), outs, roles))


def check_sizes(call: str, given: Mapping[str, Any], shapes: str) -> list[Array]:
    """Return the arrays; raise GraphError unless they have shapes such as "N D, N H, D 4H".

    A letter is one size everywhere; the first array that has it decides.
    """
    arrays, known = {name: np.asarray(array) for name, array in given.items()}, dict[str, int]()
    for (name, array), text in zip(arrays.items(), shapes.split(", "), strict=True):
        dims = [(int(dim[:-1] or 1), dim[-1]) for dim in text.split()]
        for (_, letter), size in zip(dims, array.shape, strict=False):
            known.setdefault(letter, size)
        wanted = tuple(factor * known.get(letter, 0) for factor, letter in dims)
        if array.shape != wanted:
            what = f"({text.replace(' ', ', ')}{',' * (len(dims) == 1)})"
            seen = f" = {wanted}" if array.ndim == len(dims) else ""
            message = f"{name} has shape {array.shape}, it should have {what}{seen}"
            raise fail(call, message, given)
    if known.get("T") == 0:
        raise fail(call, "x has no steps", given)
    return list(arrays.values())
