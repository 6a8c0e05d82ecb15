"""A node whose operands are all known is computed when the model is read."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from graphc.build import Builder, Value
from graphc.net import Net
from graphc.onnx.call import Call, Result
from graphc.onnx.known import NotSupported, Operand, is_symbolic
from graphc.onnx.symbolic import SYMBOLIC
from graphc.ops.source import Input
from graphc.reference import evaluate

if TYPE_CHECKING:
    from graphc.onnx.scope import Scope

LARGEST = 2**24
"""The elements that may be made; what is larger becomes a node of the net."""

Converter = Callable[[Call], Result]


def folded(call: Call, converter: Converter) -> Result:
    """The numbers that a node gives; values of the net where those would be too many."""
    symbolic = any(isinstance(o, np.ndarray) and is_symbolic(o) for o in call.operands)
    if symbolic and call.op in SYMBOLIC:
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
    if sum(prod(_sizes(b, name)) for name in b.nodes) > LARGEST:
        return converter(call)
    return _evaluated(b, results)


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


def _sizes(b: Builder, name: str) -> tuple[int, ...]:
    return tuple(dim for dim in b.nodes[name].type.shape if isinstance(dim, int))


def _evaluated(b: Builder, results: list[Operand]) -> list[Operand]:
    graph = b.graph()
    if any(isinstance(node.op, Input) for node in graph):
        raise NotSupported("its constants depend on an input")
    values = evaluate(graph, {}, {}, 1)
    return [np.asarray(values[r.name]) if isinstance(r, Value) else r for r in results]
