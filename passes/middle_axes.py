"""Give ops over axes between others a form that has a kernel.

    m = mean(x)  axes=(1, 2)          m.transpose = transpose(x)  axes=(0, 3, 1, 2)
                                ->    m = mean(m.transpose)  axes=(2, 3)

    y = mul(x, k)                     y.b = broadcast_to(k)
                                ->    y = mul(x, y.b)

A kernel runs over a matrix, so it reduces leading or trailing axes, and repeats operands over
leading or trailing axes.  Reductions over both reduce the trailing axes first.  An operand of an op
on elements is broadcast by itself: a kernel gathers it where it computes the op, so that nothing
more is stored.  What has a kernel already stays as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from functools import singledispatch

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType, normal_axis
from graphc.kernels.iteration_space import broadcast_kind, iteration_of, leads
from graphc.ops.functions import AlongAxis
from graphc.ops.reduce import BroadcastTo, Reduction
from graphc.ops.shape import Reshape, Transpose
from passes.pipeline import graph_pass


@graph_pass(preserves="reassociated")
def middle_axes(graph: Graph) -> Graph:
    """Return the graph in which fewer ops are called."""
    made = {node.name: list(_rewritten(graph, node)) for node in graph}
    if not any(made.values()):
        return graph
    return graph.with_nodes([new for node in graph for new in made[node.name] or (node,)])


def _rewritten(graph: Graph, node: Node) -> Iterator[Node]:
    """Yield the nodes that replace one that is called; the last has its name."""
    ins = [graph[name].type for name in node.inputs]
    if not ins or iteration_of(node, ins) != "call" or node.op.gather(ins, node.type) is not None:
        return
    if node.op.broadcasts:
        yield from _with_whole_operands(graph, node, ins)
    else:
        yield from _in_turn(graph, node, _steps(node.op, ins[0]))


# ------------------------------------------------------------------ operands


def _with_whole_operands(graph: Graph, node: Node, ins: Sequence[TensorType]) -> Iterator[Node]:
    """Yield a broadcast of each operand without a broadcast kind, and the node that reads them."""
    shape, found = node.type.shape, list(ins)
    spaces = [[broadcast_kind(x.shape, shape, lead) for x in ins] for lead in leads(shape)]
    kinds = min(spaces, key=lambda kinds: kinds.count(None))
    whole, new = BroadcastTo(shape), {}
    for i, (name, kind) in enumerate(zip(node.inputs, kinds, strict=True)):
        if kind is None:
            found[i] = ins[i].with_shape(shape)
            if whole.gather([ins[i]], found[i]) is None:
                return
            called = _free(f"{node.name}.{node.op.roles[i]}", graph)
            new[name] = Node(called, whole, (name,), found[i], node.locs)
    if new and node.op.iteration(found) != "call":
        yield from new.values()
        yield node.reading({name: made.name for name, made in new.items()})


# ------------------------------------------------------------------ reductions


@singledispatch
def _steps(op: Op, x: TensorType) -> Sequence[Op]:
    """Return ops that compute in turn what an op computes over some axes of x; none by default."""
    return ()


@_steps.register
def _(op: Reduction, x: TensorType) -> Sequence[Op]:
    first = next(axis for axis in range(x.rank + 1) if axis not in op.axes)
    leading, others = op.axes[:first], op.axes[first:]
    found = _moving(x, others)
    if others:
        found.append(replace(op, axes=tuple(range(x.rank - len(others), x.rank)), keepdims=False))
    if leading:
        found.append(replace(op, axes=leading, keepdims=False))
    return [*found, Reshape(op.infer([x]).shape)] if op.keepdims or not found else found


@_steps.register
def _(op: AlongAxis, x: TensorType) -> Sequence[Op]:
    axis, own = normal_axis(op.axis, x.rank), replace(op, axis=-1)
    if x.rank == 1:
        return Reshape((1, *x.shape)), own, Reshape(x.shape)
    back = (*range(axis), x.rank - 1, *range(axis, x.rank - 1))
    return *_moving(x, (axis,)), own, Transpose(back)


def _moving(x: TensorType, axes: Sequence[int]) -> list[Op]:
    """Return the transpose that makes these axes the last, if they are not."""
    order = *(axis for axis in range(x.rank) if axis not in axes), *axes
    return [] if order == tuple(range(x.rank)) else [Transpose(order)]


def _in_turn(graph: Graph, node: Node, ops: Sequence[Op]) -> Iterator[Node]:
    """Yield a node for each op, which reads the one before, unless one of them is called, too."""
    made: dict[str, Node] = {}
    source = graph[node.inputs[0]]
    for op in ops:
        if op.permutation is None and not op.alias and op.iteration([source.type]) == "call":
            return
        name = node.name if op is ops[-1] else _free(f"{node.name}.{op.name}", graph, made)
        type = op.infer([source.type])
        source = made[name] = Node(name, op, (source.name,), type, node.locs)
    yield from made.values()


def _free(name: str, *taken: Container[str]) -> str:
    """Return a name that is not taken."""
    number = itertools.count(2)
    found = name
    while any(found in names for names in taken):
        found = f"{name}_{next(number)}"
    return found
