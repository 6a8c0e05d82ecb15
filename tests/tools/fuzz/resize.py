"""The same graph with other sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import Batch, Dim, Shape, TensorType, count
from graphc.ops.index import OneHot
from graphc.ops.losses.classes import SoftmaxLoss, SvmLoss
from graphc.ops.shape import Reshape
from graphc.ops.slicing import Slice
from graphc.ops.source import Constant, Input, Parameter, State
from graphc.ops.sums import BroadcastTo
from tests.tools.generate import CLASSES

LEAST = (1, 2, 3)


def smaller_sizes(graph: Graph) -> Iterator[Graph]:
    """Graphs in which every dimension of some length is 1, 2 or 3 instead."""
    dims = {dim for node in graph for dim in node.type.shape if isinstance(dim, int)}
    for old in sorted(dims, reverse=True):
        for new in (size for size in LEAST if size < old):
            made = resized(graph, old, new)
            if made is not None:
                yield made


def resized(graph: Graph, old: int, new: int) -> Graph | None:
    """The graph with `new` wherever a length is `old`; None where that does not fit."""
    types: dict[str, TensorType] = {}
    nodes: list[Node] = []
    try:
        for node in graph:
            ins = [types[name] for name in node.inputs]
            op = _resized_op(node.op, ins, {old: new})
            types[node.name] = op.infer(ins)
            if not _has_classes(op, ins):
                return None
            nodes.append(replace(node, op=op, type=types[node.name]))
        return graph.with_nodes(nodes)
    except (ValueError, IndexError, AssertionError):
        return None


def _has_classes(op: Op, ins: list[TensorType]) -> bool:
    """Whether the labels that are fed stay below what they index."""
    bounds = list(op.index_bounds(ins).values())
    if isinstance(op, (SoftmaxLoss, SvmLoss)):
        bounds += [dim for dim in ins[0].shape[1:] if isinstance(dim, int)]
    return all(bound >= CLASSES for bound in bounds)


def _resized_op(op: Op, ins: list[TensorType], new: Mapping[int, int]) -> Op:
    def length(dim: Dim) -> Dim:
        return new.get(dim, dim) if isinstance(dim, int) else dim

    if isinstance(op, (Input, Parameter, State, BroadcastTo)):
        return replace(op, shape=tuple(map(length, op.shape)))  # type: ignore[arg-type]
    if isinstance(op, Constant) and any(length(dim) != dim for dim in op.shape):
        raise ValueError("a constant keeps its shape")
    if isinstance(op, OneHot):
        return replace(op, depth=new.get(op.depth, op.depth))
    if isinstance(op, Reshape):
        return Reshape(_reshaped(tuple(map(length, op.shape)), ins[0]))
    if isinstance(op, Slice):
        cuts = []
        for axis, start, stop, step in op.cuts:
            dim = ins[0].shape[axis]
            if isinstance(dim, int) and isinstance(stop, int) and isinstance(start, int):
                last = (dim if step < 0 else min(new.get(stop, stop), dim)) - 1
                start = min(start, last)
                stop = stop if step < 0 else last + 1
            cuts.append((axis, start, stop, step))
        return Slice(tuple(cuts))
    return op


def _reshaped(shape: Shape, x: TensorType) -> Shape:
    """The wanted shape, or one whose last fixed dimension takes what is left."""
    if count(shape) == count(x.shape):
        return shape
    total = count(x.shape)
    elements = total.factor if isinstance(total, Batch) else total
    fixed = [i for i, dim in enumerate(shape) if isinstance(dim, int)]
    last = fixed[-1]
    rest = 1
    for i, dim in enumerate(shape):
        if i != last:
            rest *= dim.factor if isinstance(dim, Batch) else dim
    return (*shape[:last], elements // rest, *shape[last + 1 :])
