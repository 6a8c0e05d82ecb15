"""Give ops over axes between others a form that has a kernel.

    m = sum(x)  axes=(1, 2)           m.reshape_1 = reshape(x, (N, h*w, c))
                                ->    m.matmul_1 = matmul(ones, m.reshape_1)
                                      m = reshape(m.matmul_1, (N, c))

    m = max(x)  axes=(1, 2)           m.transpose_1 = transpose(x, (0, 3, 1, 2))
                                ->    m = max(m.transpose_1)  axes=(2, 3)

    y = mul(x, k)                     y.broadcast_to_1 = broadcast_to(k, x.shape)
                                ->    y = mul(x, y.broadcast_to_1)

A kernel runs over a matrix, so it reduces leading or trailing axes, and repeats operands over
leading or trailing axes.  A sum between others is a product with ones, which are read for every
matrix of a stack, and exact; others are transposed.  Reductions over several runs of axes reduce
one after the other, the last first.  An operand of an op on elements is broadcast by itself: a
kernel gathers it where it computes the op, so that nothing more is stored.  What has a kernel
already stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import singledispatch
from itertools import islice

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import count, normal_axis
from graphc.kernels.iteration_space import broadcast_kind, leads
from graphc.kernels.traits import iteration_of
from graphc.ops.elementwise import div
from graphc.ops.functions import AlongAxis
from graphc.ops.index import ExtremeIndex
from graphc.ops.linalg import matmul
from graphc.ops.reduce import BroadcastTo, Mean, Reduction, Sum, broadcast_to
from graphc.ops.shape import reshape, transpose
from graphc.ops.source import Constant
from passes.pipeline import graph_pass

Run = tuple[int, ...]
"""Axes that follow each other."""


@graph_pass(preserves="reassociated")
def middle_axes(graph: Graph) -> Graph:
    """Return the graph in which fewer ops are called."""
    called = [node for node in graph if _is_called(graph, node)]
    if not called:
        return graph
    b, made = Builder.extending(graph), {}
    for node in called:
        made[node.name] = list(_rewritten(b, node))
    if not any(made.values()):
        return graph
    return graph.with_nodes([new for node in graph for new in made.get(node.name) or (node,)])


def _is_called(graph: Graph, node: Node) -> bool:
    ins = [graph[name].type for name in node.inputs]
    if not ins or iteration_of(node, ins) != "call":
        return False
    return node.op.gather(ins, node.type) is None


def _rewritten(b: Builder, node: Node) -> Iterator[Node]:
    """Yield the nodes that replace one that is called; the last has its name."""
    before, b.scope = len(b.nodes), f"{node.name}."
    with b.at(node.locs):
        value = _value(node.op, node, [b.value(name) for name in node.inputs])
    if value is not None:
        *first, last = islice(list(b.nodes.values()), before, None)
        del b.nodes[last.name]
        yield from first
        yield replace(last, name=node.name)


@singledispatch
def _value(op: Op, node: Node, ins: Sequence[Value]) -> Value | None:
    """Return what a node computes, by other nodes; None if they would be called, too.

    By default it is an op on elements whose operands broadcast.
    """
    if not op.broadcasts:
        return None
    shape, whole = node.type.shape, BroadcastTo(node.type.shape)
    spaces = [[broadcast_kind(x.shape, shape, lead) for x in ins] for lead in leads(shape)]
    kinds = min(spaces, key=lambda kinds: kinds.count(None))
    middle = {x.name: x for x, kind in zip(ins, kinds, strict=True) if kind is None}
    types = [x.type.with_shape(shape) if x.name in middle else x.type for x in ins]
    gathered = all(whole.gather([x.type], node.type) for x in middle.values())
    if not gathered or op.iteration(types) == "call":
        return None
    new = {name: broadcast_to(x, shape) for name, x in middle.items()}
    return ins[0].builder.apply(op, *(new.get(x.name, x) for x in ins))


@_value.register
def _(op: Reduction, node: Node, ins: Sequence[Value]) -> Value | None:
    (x,) = ins
    if not op.takes(x.type):
        return None
    for run in _runs(op.axes)[::-1]:
        at_end = run[0] == 0 or run[-1] == x.type.rank - 1
        x = (_over if at_end else _between)(op, x, run)
    return reshape(x, node.type.shape) if op.keepdims or not op.axes else x


@_value.register
def _(op: AlongAxis, node: Node, ins: Sequence[Value]) -> Value:
    (x,) = ins
    rank, last = x.type.rank, replace(op, axis=-1)
    if rank == 1:
        return reshape(x.builder.apply(last, reshape(x, (1, *x.shape))), x.shape)
    axis = normal_axis(op.axis, rank)
    back = (*range(axis), rank - 1, *range(axis, rank - 1))
    return transpose(x.builder.apply(last, _moved(x, (axis,))), back)


@_value.register
def _(op: ExtremeIndex, node: Node, ins: Sequence[Value]) -> Value | None:
    (x,), last = ins, replace(op, axis=-1)
    axis = normal_axis(op.axis, x.type.rank)
    order = _order(x, (axis,))
    if last.iteration([x.type.with_shape(tuple(x.shape[i] for i in order))]) == "call":
        return None
    return x.builder.apply(last, transpose(x, order))


# ------------------------------------------------------------------ reductions


def _runs(axes: Run) -> list[Run]:
    """Return the runs of axes that follow each other."""
    runs: list[Run] = []
    for axis in sorted(axes):
        if runs and runs[-1][-1] == axis - 1:
            runs[-1] += (axis,)
        else:
            runs.append((axis,))
    return runs


def _over(op: Reduction, x: Value, axes: Run) -> Value:
    """Return x reduced over the first axes, or the last ones."""
    return x.builder.apply(replace(op, axes=axes, keepdims=False), x)


def _transposed(op: Reduction, x: Value, axes: Run) -> Value:
    """Return x reduced over axes that are made the last."""
    rank = x.type.rank
    return _over(op, _moved(x, axes), tuple(range(rank - len(axes), rank)))


_between = singledispatch(_transposed)
"""The function that reduces x over axes that are neither the first nor the last."""


@_between.register
def _(op: Sum, x: Value, run: Run) -> Value:
    first, end = run[0], run[-1] + 1
    lead, size, rest = count(x.shape[:first]), count(x.shape[first:end]), count(x.shape[end:])
    if not x.type.is_float or not isinstance(size, int) or not isinstance(rest, int):
        return _transposed(op, x, run)
    ones = Constant((1, size), x.dtype, np.ones(size, x.dtype).tobytes())
    total = matmul(x.builder.apply(ones), reshape(x, (lead, size, rest)))
    return reshape(total, (*x.shape[:first], *x.shape[end:]))


@_between.register
def _(op: Mean, x: Value, run: Run) -> Value:
    size = count(tuple(x.shape[axis] for axis in run))
    if not isinstance(size, int):
        return _transposed(op, x, run)
    return div(_between(Sum(run), x, run), size)


def _moved(x: Value, axes: Run) -> Value:
    """Return x with these axes last."""
    return transpose(x, _order(x, axes))


def _order(x: Value, axes: Run) -> Run:
    return *(axis for axis in range(x.type.rank) if axis not in axes), *axes
