"""A node whose operands are all known is computed when the model is read."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphc.build import Builder, Value
from graphc.graph import Graph, Node
from graphc.net import Net
from graphc.onnx.call import ITEM, Call, Result
from graphc.onnx.expand import expanded
from graphc.onnx.known import NotSupported, Operand, is_symbolic
from graphc.onnx.symbolic import SYMBOLIC
from graphc.ops.source import Input
from graphc.profile.cost import op_flops
from graphc.reference import evaluate
from graphc.tensor_type import shape_at
from graphc.work import spend_array, spend_bytes, spend_elements

if TYPE_CHECKING:
    from graphc.onnx.scope import Scope

PRODUCTS = 8
"""The operations of products of matrices in the time of another one."""

Converter = Callable[[Call], Result]


def folded(call: Call, converter: Converter) -> Result:
    """The numbers that a node gives."""
    symbolic = any(isinstance(o, np.ndarray) and is_symbolic(o) for o in call.operands)
    if symbolic and call.op in SYMBOLIC:
        spend_array(ITEM * _most(call))
        return SYMBOLIC[call.op](call)
    if symbolic:
        return converter(call)
    scratch = _scratch(call.scope)
    result = converter(_over(call, scratch))
    results: list[Operand] = (
        list(result) if isinstance(result, (list, tuple)) else [result]  # type: ignore[list-item]
    )
    if not any(isinstance(r, Value) for r in results):
        return result
    b = scratch.reading.net.builder
    return _evaluated(b, results)


def _most(call: Call) -> int:
    """The most items that an op on shapes can have to do with."""
    arrays = [operand for operand in call.operands if isinstance(operand, np.ndarray)]
    if call.op in ("Concat", "Reshape", "Slice"):
        return sum(array.size for array in arrays)
    if call.op == "Gather":
        return prod(array.size for array in arrays)
    return prod(np.broadcast_shapes(*(array.shape for array in arrays)))


def _scratch(scope: Scope) -> Scope:
    from graphc.onnx.scope import Reading, Scope

    reading = scope.reading
    net = Net("constants")
    net.builder.locs = reading.net.builder.locs
    own = Reading(net, reading.file, reading.functions, as_written=True)
    scratch = Scope(own, scope.opsets, scope.prefix, scope.attributes, scope.depth)
    scratch.read = scope.read
    return scratch


def _over(call: Call, scope: Scope) -> Call:
    return Call(scope, call.op, call.version, call.operands, call.attributes, call.outputs)


def _evaluated(b: Builder, results: list[Operand]) -> list[Operand]:
    for value in results:
        if isinstance(value, Value):
            b.outputs[value.name] = value.name
    graph = expanded(b.graph(), train=False)  # of ops it is known what they cost
    if any(isinstance(node.op, Input) for node in graph):
        raise NotSupported("its constants depend on an input")
    spend_elements(sum(_numbers(graph, node) for node in graph))
    spend_bytes(sum(node.type.nbytes(1) for node in graph if node.inputs))
    values = evaluate(graph, {}, {}, 1)
    found = {name: np.asarray(values[node]) for name, node in graph.outputs.items()}
    return [found[r.name] if isinstance(r, Value) else r for r in results]


def _numbers(graph: Graph, node: Node) -> int:
    """The numbers that are computed for a node, or that take as long: BLAS is quicker."""
    operands = [graph[name].type for name in node.inputs]
    plain, products = op_flops(node.op, operands, node.type, 1)
    return prod(shape_at(node.type.shape, 1)) + plain + products // PRODUCTS
