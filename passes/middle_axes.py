"""Give ops over axes between others a form that has a kernel.

    m = sum(x)  axes=(1, 2)           m.reshape_1 = reshape(x, (N, h*w, c))
                                ->    m.matmul_1 = matmul(ones, m.reshape_1)
                                      m = reshape(m.matmul_1, (N, c))

    m = max(x)  axes=(1, 2)           m.reshape_1 = reshape(x, (N, h, w, c))
                                ->    m.max_1 = max(m.reshape_1)  axes=(2,)
                                      m = max(m.max_1)  axes=(1,)

    y = mul(x, k)                     y.broadcast_to_1 = broadcast_to(k, x.shape)
                                ->    y = mul(x, y.broadcast_to_1)

A kernel runs over a matrix, so it reduces leading or trailing axes, and repeats operands over
leading or trailing axes.  Over others a sum is a product with ones, and an extreme is that of a few
gathered elements, again and again; if no number divides theirs, they are transposed.  Reductions
over several runs of axes reduce one after the other, the last first.  A softmax becomes an extreme,
a sum, and ops on elements.  An operand of these is broadcast by itself: a kernel gathers it where
it computes the op, so that nothing more is stored.  What has a kernel already stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import singledispatch
from itertools import islice

import numpy as np

from graphc.ir.build import Builder, Value
from graphc.ir.forms import MOST
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import count, normal_axis
from graphc.kernels.iteration_space import broadcast_kind, leads
from graphc.kernels.traits import iteration_of
from graphc.ops.argmax import ExtremeIndex
from graphc.ops.elementwise import div, mul, sub
from graphc.ops.functions import LogSoftmax, Softmax, exp, log
from graphc.ops.linalg import matmul
from graphc.ops.reduce import Extreme, Mean, max_, split_at
from graphc.ops.shape import reshape, transpose
from graphc.ops.source import Constant
from graphc.ops.sums import BroadcastTo, Reduction, Sum, broadcast_to, is_reducible, sum_
from passes.contract import graph_pass

Run = tuple[int, ...]
"""Axes that follow each other."""


@graph_pass(preserves="reassociated")
def middle_axes(graph: Graph) -> Graph:
    """Return the graph in which fewer ops are called."""
    b: Builder | None = None
    made: dict[str, list[Node]] = {}
    for node in graph:
        if _is_called(graph.nodes, node):
            b = b or Builder.extending(graph)
            made[node.name] = list(_rewritten(b, node))
    if all(nodes == [graph[name]] for name, nodes in made.items()):
        return graph
    return graph.with_nodes([new for node in graph for new in made.get(node.name, [node])])


def _is_called(nodes: Mapping[str, Node], node: Node) -> bool:
    ins = [nodes[name].type for name in node.inputs]
    if not ins or iteration_of(node, ins) != "call" or node.op.alias or node.op.permutation:
        return False
    return node.op.gather(ins, node.type) is None


def _rewritten(b: Builder, node: Node) -> Iterator[Node]:
    """Yield the nodes that replace one that is called; the last has its name."""
    before, b.scope = len(b.nodes), f"{node.name}."
    with b.at(node.locs):
        value = _value(node.op, node, [b.value(name) for name in node.inputs])
    if value is None:
        yield node
        return
    *first, last = islice(list(b.nodes.values()), before, None)
    del b.nodes[last.name]
    for new in (*first, replace(last, name=node.name)):
        if _is_called(b.nodes, new):
            yield from _rewritten(b, new)
        else:
            yield new


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
def _(op: ExtremeIndex, node: Node, ins: Sequence[Value]) -> Value | None:
    (x,), last = ins, replace(op, axis=-1)
    order = _order(x, (normal_axis(op.axis, x.type.rank),))
    if last.iteration([x.type.with_shape(tuple(x.shape[i] for i in order))]) == "call":
        return None
    return x.builder.apply(last, transpose(x, order))


@_value.register
def _(op: Softmax, node: Node, ins: Sequence[Value]) -> Value | None:
    (x,) = ins
    if not _is_counted(x):
        return None
    powers = exp(sub(x, max_(x, op.axis, keepdims=True)))
    return mul(powers, div(1.0, sum_(powers, op.axis, keepdims=True)))


@_value.register
def _(op: LogSoftmax, node: Node, ins: Sequence[Value]) -> Value | None:
    (x,) = ins
    if not _is_counted(x):
        return None
    below = sub(x, max_(x, op.axis, keepdims=True))
    return sub(below, log(sum_(exp(below), op.axis, keepdims=True)))


def _is_counted(x: Value) -> bool:
    """Return whether only the first dimension may be the batch, as gathers need it."""
    return all(isinstance(dim, int) for dim in x.shape[1:])


# ------------------------------------------------------------------ reductions


@_value.register
def _(op: Reduction, node: Node, ins: Sequence[Value]) -> Value | None:
    (x,), runs = ins, _runs(op.axes)
    if not is_reducible(x.type):
        return None
    if len(runs) == 1 and not op.keepdims:
        return _between(op, x, runs[0])
    for run in reversed(runs):
        x = _over(op, x, run)
    return reshape(x, node.type.shape) if op.keepdims or not runs else x


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
    return x.builder.apply(replace(op, axes=axes, keepdims=False), x)


def _transposed(op: Reduction, x: Value, run: Run) -> Value:
    """Return x reduced over axes that are made the last."""
    rank = x.type.rank
    return _over(op, transpose(x, _order(x, run)), tuple(range(rank - len(run), rank)))


_between = singledispatch(_transposed)
"""The function that reduces x over a run of axes that are neither the first nor the last."""


@_between.register
def _(op: Extreme, x: Value, run: Run) -> Value:
    rows, size, rest = split_at(x.shape, run[0], run[-1] + 1)
    if not _is_counted(x) or not isinstance(size, int):
        return _transposed(op, x, run)
    few = max(number for number in range(1, MOST + 1) if size % number == 0)
    if few in (1, size):
        return _transposed(op, x, run)
    once = _over(op, reshape(x, (rows, size // few, few, rest)), (2,))
    return reshape(_over(op, once, (1,)), op.infer([x.type]).shape)


@_between.register
def _(op: Sum, x: Value, run: Run) -> Value:
    rows, size, rest = split_at(x.shape, run[0], run[-1] + 1)
    if not x.type.is_float or not isinstance(size, int) or not isinstance(rest, int):
        return _transposed(op, x, run)
    ones = Constant((1, size), x.dtype, np.ones(size, x.dtype).tobytes())
    total = matmul(x.builder.apply(ones), reshape(x, (rows, size, rest)))
    return reshape(total, op.infer([x.type]).shape)


@_between.register
def _(op: Mean, x: Value, run: Run) -> Value:
    size = count(tuple(x.shape[axis] for axis in run))
    return div(_over(Sum(()), x, run), size) if isinstance(size, int) else _transposed(op, x, run)


def _order(x: Value, axes: Run) -> Run:
    """Return the order of x's axes in which these are the last."""
    return *(axis for axis in range(x.type.rank) if axis not in axes), *axes
