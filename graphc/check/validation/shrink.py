"""Finds the smallest graph on which a pass still fails, by trying ever smaller ones.

Roots are dropped, or replaced by a node before them; parts of the graph are replaced by inputs,
in halves, quarters and so on (A. Zeller, R. Hildebrandt, "Simplifying and isolating
failure-inducing input", IEEE TSE 28, 2002); nodes are replaced by an operand of their type;
dimensions are made smaller.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op, Source, attributes
from graphc.ops.source import Constant, Input, constant_op

Fails = Callable[[Graph], bool]
LIMIT = 600
"""The most graphs that are tried."""


def shrunk(graph: Graph, fails: Fails) -> Graph:
    """Return the smallest graph found for which `fails` still holds, as it does for `graph`."""
    trial = _Trial(fails)
    size = None
    while size != (size := (len(graph), _numbers(graph), len(graph.roots))):
        graph = trial.smaller(graph, _fewer_roots)
        graph = trial.smaller(graph, _earlier)
        graph = _cut(graph, trial)
        graph = trial.smaller(graph, _bypassed)
        graph = trial.smaller(graph, _narrower)
    return graph


class _Trial:
    """Tries candidates, but at most LIMIT of them."""

    def __init__(self, fails: Fails) -> None:
        self.fails, self.left = fails, LIMIT

    def __call__(self, graph: Graph) -> bool:
        self.left -= 1
        return self.left >= 0 and self.fails(graph)

    def smaller(self, graph: Graph, candidates: Callable[[Graph], Iterator[Graph]]) -> Graph:
        """Return the graph after every candidate that still fails, one after the other."""
        found: Graph | None = graph
        while found is not None and self.left > 0:
            graph = found
            tried = itertools.islice(candidates(graph), self.left)
            found = next((each for each in tried if self(each)), None)
        return graph


def _fewer_roots(graph: Graph) -> Iterator[Graph]:
    """Yield the graph with each root alone, then with all roots but each."""
    roots = [(kind, key) for kind in _KINDS for key in getattr(graph, kind)]
    if len(roots) > 1:
        for root in roots:
            yield _with_roots(graph, [root])
        for root in roots:
            yield _with_roots(graph, [other for other in roots if other != root])


_KINDS = ("outputs", "gradients", "updates")


def _with_roots(graph: Graph, kept: list[tuple[str, str]]) -> Graph:
    chosen: dict[str, dict[str, str]] = {
        kind: {k: v for k, v in getattr(graph, kind).items() if (kind, k) in kept}
        for kind in _KINDS
    }
    losses = [name for name in graph.losses if name in chosen["outputs"]]
    return Graph(graph.name, graph, losses=losses, **chosen).pruned()


def _earlier(graph: Graph) -> Iterator[Graph]:
    """Yield the graph up to each node, which becomes its only output."""
    key = next(iter(graph.outputs), "result")
    losses = [name for name in graph.losses if name == key]
    for node in graph:
        if not isinstance(node.op, Source) and graph.outputs.get(key) != node.name:
            yield Graph(graph.name, graph, outputs={key: node.name}, losses=losses).pruned()


def _cut(graph: Graph, trial: _Trial) -> Graph:
    """Return the graph with inputs for as many nodes as possible, in ever smaller groups."""
    size = len(graph)
    while size >= 1 and trial.left > 0:
        names = [node.name for node in graph if not isinstance(node.op, (Input, Constant))]
        for start in reversed(range(0, len(names), size)):
            chosen = [name for name in names[start : start + size] if name in graph]
            made = _with_inputs(graph, chosen)
            if made is not None and trial(made):
                graph = made
        size //= 2
    return graph


def _with_inputs(graph: Graph, names: list[str]) -> Graph | None:
    changed: dict[str, Node | None] = {}
    for name in names:
        node = graph[name]
        if name not in graph.updates:
            op = Input(node.type.shape, node.type.dtype)
            changed[name] = Node(name, op, (), node.type, node.locs)
    return graph.replace(changed).pruned() if changed else None


def _bypassed(graph: Graph) -> Iterator[Graph]:
    """Yield the graph without one node, whose users read an operand of the same type."""
    for node in reversed(list(graph)):
        for operand in node.inputs:
            if graph[operand].type == node.type:
                try:
                    yield graph.replace({node.name: None}, reads={node.name: operand}).pruned()
                except GraphError:  # an update of the node itself
                    continue


def _narrower(graph: Graph) -> Iterator[Graph]:
    """Yield the graph with all dimensions of one size made smaller."""
    sizes = {dim for node in graph for dim in node.type.shape if isinstance(dim, int) and dim > 1}
    for size in sorted(sizes, reverse=True):
        for smaller in (1, 2, 3):
            if smaller < size:
                made = _resized(graph, size, smaller)
                if made is not None:
                    yield made


def _resized(graph: Graph, size: int, smaller: int) -> Graph | None:
    """Return the graph with `size` made smaller, or None if an op then refuses its operands."""
    made: dict[str, Node] = {}
    try:
        for node in graph:
            op = _smaller_op(node.op, size, smaller)
            type = op.infer([made[name].type for name in node.inputs])
            made[node.name] = dataclasses.replace(node, op=op, type=type)
        return graph.with_nodes(made.values())
    except Exception:  # an op's own check, whatever it raises
        return None


def _smaller_op(op: Op, size: int, smaller: int) -> Op:
    if isinstance(op, Constant):
        array = op.array()
        kept = tuple(slice(smaller if dim == size else dim) for dim in array.shape)
        return dataclasses.replace(constant_op(np.array(array[kept])), label=op.label)
    fields: Mapping[str, Any] = attributes(op)
    shape = fields.get("shape")
    if isinstance(shape, tuple) and size in shape:
        new = tuple(smaller if dim == size else dim for dim in shape)
        return dataclasses.replace(op, shape=new)  # type: ignore[call-arg]
    return op


def _numbers(graph: Graph) -> int:
    """Return how many bytes the graph's sources have for a batch of one."""
    return sum(node.type.nbytes(1) for node in graph if isinstance(node.op, Source))
