"""Which outputs of all rows are made up of those of parts, whatever graphc says of it.

One sum or mean over rows, or one loss, of what is computed row by row; perhaps times a constant.
"""

from __future__ import annotations

from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ops.autodiff import Gradient
from graphc.ops.elementwise import Mul, Neg
from graphc.ops.gather import Gather
from graphc.ops.loops.op import Scan
from graphc.ops.losses.base import RowLoss
from graphc.ops.reduce import Mean
from graphc.ops.shape import Reshape
from graphc.ops.source import Constant, Input
from graphc.ops.sums import Sum


def whole_outputs(graph: Graph) -> set[str]:
    """Their names."""
    by_row = _by_row(graph)
    return {
        name
        for name, value in graph.outputs.items()
        if not graph[value].type.rank and _is_reduced(graph, graph[value], by_row)
    }


def _is_reduced(graph: Graph, node: Node, by_row: set[str]) -> bool:
    while isinstance(node.op, (Mul, Neg, Reshape)) and not _reads_rows(graph, node):
        others = [graph[name] for name in node.inputs if not isinstance(graph[name].op, Constant)]
        if len(others) != 1:
            return False
        node = others[0]
    known = isinstance(node.op, (RowLoss, Sum, Mean)) and _reads_rows(graph, node)
    return known and all(name in by_row for name in node.inputs)


def _by_row(graph: Graph) -> set[str]:
    """The values that one row's feeds say for each row, and those that no row matters to."""
    found: set[str] = set()
    for node in graph:
        alone = not node.type.batched and not isinstance(node.op, Input)
        if not all(name in found for name in node.inputs) or isinstance(node.op, Gradient):
            continue
        if alone and _reads_rows(graph, node):
            continue
        if isinstance(node.op, Scan) and not _keeps_rows(node.op.step.graph(())):
            continue
        if not any(_along_rows(node, graph[name].type) for name in node.inputs):
            found.add(node.name)
    return found


def _keeps_rows(step: Graph) -> bool:
    return len(_by_row(step)) == len(step)


def _reads_rows(graph: Graph, node: Node) -> bool:
    return any(graph[name].type.batched for name in node.inputs)


def _along_rows(node: Node, operand: TensorType) -> bool:
    """Whether an op works along the axis of the rows."""
    axes = getattr(node.op, "axes", getattr(node.op, "axis", ()))
    places = [i for i, dim in enumerate(operand.shape) if isinstance(dim, Batch)]
    if not places or node.op.name in ("transpose", "reshape"):
        return False
    named = axes if isinstance(axes, tuple) else (axes,)
    whole = [axis % operand.rank for axis in named if isinstance(axis, int)]
    return places[0] in whole or (isinstance(node.op, Gather) and 0 in whole)
