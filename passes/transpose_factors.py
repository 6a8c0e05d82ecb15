"""Transpose the factors of products in loops once, before the loop.

    d_h = scan: d_a @ u.T      ->      t = transpose(u)
                                       d_h = scan: d_a @ t

A product reads a transposed factor by packing it, at each step; one that is the same at all steps
is read in place if it is transposed before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from graphc.ir.graph import Graph, Node, joint_results
from graphc.ir.op import step_of, with_step
from graphc.ops.linalg import MatMul
from graphc.ops.shape import Transpose
from graphc.ops.source import Input
from passes.contract import graph_pass


@graph_pass(preserves="reassociated")
def transpose_factors(graph: Graph) -> Graph:
    """Return the graph whose loops read the factors of their products as they are stored."""
    made: dict[str, list[Node]] = {}
    for nodes in joint_results(graph):
        taken = {one.name for several in made.values() for one in several}
        made.update(_transposed(graph, nodes, taken))
    if not made:
        return graph
    return graph.with_nodes(one for node in graph for one in made.get(node.name, [node]))


def _transposed(graph: Graph, nodes: Sequence[Node], taken: set[str]) -> dict[str, list[Node]]:
    """Return the nodes of a loop; the first comes after the factors that are transposed for it.

    Names that are `taken` are not given to them.
    """
    step = step_of(nodes[0].op)
    if step is None or not step.carried:
        return {}
    inner = {node.name: node for node in step.nodes}
    operands = dict(zip(step.inputs, nodes[0].inputs, strict=True))
    factors: dict[str, Node] = {}
    inputs: dict[str, Node] = {}
    for node in step.nodes:
        if _reads_transposed(node, step.whole, inner):
            name = node.inputs[1]
            if name not in factors:
                factors[name] = _factor(graph, graph[operands[name]], taken)
                taken.add(factors[name].name)
                inputs[name] = _input(step.nodes, name, factors[name])
            inner[node.name] = _product(node, inputs[name].name)
    if not factors:
        return {}
    given = {inputs[name].name: node.name for name, node in factors.items()}
    new = replace(step, nodes=(*inputs.values(), *inner.values()), whole=(*step.whole, *given))
    order = tuple({**operands, **given}[name] for name in new.inputs)
    found = {n.name: [replace(n, op=with_step(n.op, new), inputs=order)] for n in nodes}
    found[nodes[0].name][:0] = factors.values()
    return found


def _reads_transposed(node: Node, whole: Sequence[str], inner: dict[str, Node]) -> bool:
    """Return whether a node is a product with a matrix that is whole and read transposed."""
    if not isinstance(node.op, MatMul) or not node.op.trans_b:
        return False
    factor = inner[node.inputs[1]]
    return factor.name in whole and factor.type.rank == 2 and not factor.type.batched


def _product(node: Node, factor: str) -> Node:
    """Return the product with a factor that is transposed already."""
    assert isinstance(node.op, MatMul), "a product"
    return replace(node, op=replace(node.op, trans_b=False), inputs=(node.inputs[0], factor))


def _factor(graph: Graph, matrix: Node, taken: Collection[str]) -> Node:
    """Return the transpose of a matrix, under a free name."""
    name = f"{matrix.name}.transposed"
    while name in graph or name in taken:
        name += "_"
    op = Transpose((1, 0))
    return Node(name, op, (matrix.name,), op.infer([matrix.type]), matrix.locs)


def _input(nodes: Sequence[Node], name: str, factor: Node) -> Node:
    """Return the input of the step for a transposed factor."""
    taken = {node.name for node in nodes}
    name = f"{name}.transposed"
    while name in taken:
        name += "_"
    type = factor.type
    return Node(name, Input(type.shape, type.dtype), (), type, factor.locs)
