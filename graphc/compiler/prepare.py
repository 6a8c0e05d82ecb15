"""Values of parameters and states alone, which inference prepares and keeps.

    weight (out, in, 3, 3)                   before a run, if a parameter has changed:
    kernel = transpose(weight)                   kernel: weight, copied in another order
    y = conv(x, kernel)               ->         scale = div(gamma, deviation)
    z = mul(y, div(gamma, deviation))        at every run:
                                                 y = conv(x, kernel)
                                                 z = mul(y, scale)

The code of `infer` finds them where it finds constants: in memory that no run writes to, in the
order in which it reads them.  So inference costs what that of a frozen net costs, and the bits are
those of a program that computes all at every run.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

from graphc.backends.backend import backend
from graphc.ir.graph import Graph, Node
from graphc.kernels.program import Program
from graphc.ops.source import State
from passes.fold_constants import worth_it

LARGE = 1 << 18
"""The most bytes of a parameter that a run reads as fast in any order: measured."""


class Moved(NamedTuple):
    """A parameter or state, read in another shape and then with its axes in another order."""

    state: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]


def prepared(graph: Graph) -> tuple[str, ...]:
    """Return the values that depend on parameters and states alone, and that other values read.

    What has the bytes of a parameter is read where it lies.
    """
    fixed: set[str] = set()
    of_state: set[str] = set()
    for node in graph if not graph.updates else ():
        if node.op.persistent or node.op.is_constant or _is_fixed(node, graph, fixed):
            fixed.add(node.name)
            if node.op.persistent or not of_state.isdisjoint(node.inputs):
                of_state.add(node.name)
    read: set[str] = set()
    for name in reversed([*graph.nodes]):  # users follow their operands
        users = graph.users[name]
        if name in graph.roots or any(u not in fixed or _in_place(u, graph, read) for u in users):
            read.add(name)
    computed = (n for n in graph.nodes if n in of_state and n in read)
    return tuple(n for n in computed if not (graph[n].op.persistent or graph[n].op.alias))


def _is_fixed(node: Node, graph: Graph, fixed: Collection[str]) -> bool:
    """Return whether a node depends on nothing else, and takes no more memory than its operands."""
    op, operands = node.op, [graph[name] for name in node.inputs]
    if not operands or node.type.batched or not all(x.name in fixed for x in operands):
        return False
    return op.at(1) is op and worth_it(node.type, operands)


def _in_place(user: str, graph: Graph, read: Collection[str]) -> bool:
    return user in read and graph[user].op.alias


def moved(graph: Graph, name: str) -> Moved | None:
    """Return a value as a parameter or state that is only read otherwise, or None."""
    node, axes = graph[name], None
    if node.op.permutation is not None:
        axes, node = node.op.permutation, graph[node.inputs[0]]
    shape = tuple(dim for dim in node.type.shape if isinstance(dim, int))
    while node.op.alias:
        node = graph[node.inputs[0]]
    if not node.op.persistent:
        return None
    return Moved(node.name, shape, tuple(range(len(shape))) if axes is None else axes)


def prepare_graph(graph: Graph) -> Graph | None:
    """Return the graph of the values to prepare that have to be computed; None without any."""
    names = [name for name in prepared(graph) if moved(graph, name) is None]
    needed = graph.upstream(names)
    nodes = (node for node in graph if node.name in needed)
    return Graph(graph.name, nodes, outputs={n: n for n in names}) if names else None


def given(graph: Graph, names: Sequence[str]) -> Graph:
    """Return the graph in which values are states, so that what they are computed from is left."""
    changed: dict[str, Node | None] = {}
    for node in map(graph.__getitem__, names):
        shape = tuple(dim for dim in node.type.shape if isinstance(dim, int))
        changed[node.name] = Node(node.name, State(shape, node.type.dtype), (), node.type)
    return graph.replace(changed).pruned() if names else graph


def keeping(
    program: Program, graph: Graph, names: Collection[str], trains: bool = False
) -> Program:
    """Return a program of `given(graph, names)` as one of the graph, which finds them prepared.

    Unless the plan trains, so it does large parameters that it reads in another order than they
    lie in: to write them once more takes longer than a run that orders parts of them near the core.
    """
    buffers = program.buffers.values()
    large = {b.key for b in buffers if b.space == "state" and b.type.nbytes(1) > LARGE}
    if not trains and large:
        large &= backend(program.backend).orders(_with_constants(program, large)).keys()
    kept = {*names} if trains else {*names, *large}
    return replace(_with_constants(program, kept), graph=graph)


def _with_constants(program: Program, names: Collection[str]) -> Program:
    buffers = {
        name: b._replace(space="constant") if b.space == "state" and b.key in names else b
        for name, b in program.buffers.items()
    }
    return replace(program, buffers=buffers)
