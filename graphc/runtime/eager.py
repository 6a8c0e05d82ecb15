"""One op or layer run at once on arrays: its value and its gradients by its own rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from graphc.base.errors import GraphError, Operand
from graphc.base.loc import caller_loc
from graphc.ir.autodiff import vjp
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Layer, Op
from graphc.ir.tensor_type import FLOATS, TensorType
from graphc.ops.source import Input
from graphc.runtime.reference import evaluate


def fail(call: str, sentence: str, arrays: Mapping[str, Any]) -> GraphError:
    """Return an error of an eager call, at the user's line, with the arrays that it was given."""
    operands = [Operand(role, *_describe(array), None) for role, array in arrays.items()]
    return GraphError(f"{call}: {sentence}", operands=operands, loc=caller_loc())


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
    ins = list(arrays.values())
    return np.array(op.reference_in(ins, train) if isinstance(op, Layer) else op.reference(ins))


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
        op.expand(b, "result", ins, train)
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
    from graphc.ops.reduce import broadcast_to
    from graphc.ops.source import constant

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
