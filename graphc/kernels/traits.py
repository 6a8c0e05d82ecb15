"""What fusing asks of a node again and again, worked out once for all nodes that are alike."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from graphc.graph import Graph, Node
from graphc.kernels.fit import Fit, fits_of, is_stacked, product_of
from graphc.kernels.matrix import Space
from graphc.op import Along
from graphc.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class Traits:
    """How a node stands by itself, whatever its name and its operands' names are."""

    ins: list[TensorType]
    """The types of its operands."""
    along: Along
    product: tuple[bool, bool] | None
    """For a matrix product that has a kernel: whether each factor is transposed."""
    stacked: bool
    """Whether that is one of many matrices."""
    fits: Mapping[Space, Fit]
    """The spaces that it can run over, its own first; none where it has no kernel."""


class TraitsOf:
    """The traits of a graph's nodes.

    Ops and types count by identity, as the layers of a deep net share them; comparing them would
    cost more than it saves.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._of_node: dict[str, Traits] = {}
        self._of_kind: dict[Hashable, Traits] = {}

    def __call__(self, node: Node) -> Traits:
        """The traits of a node that is no source."""
        known = self._of_node.get(node.name)
        if known is None:
            ins = [self._graph[operand].type for operand in node.inputs]
            kind = (id(node.op), id(node.type), *map(id, ins))
            known = self._of_kind.get(kind)
            if known is None:
                known = self._of_kind[kind] = _traits(node, ins)
            self._of_node[node.name] = known
        return known


def _traits(node: Node, ins: list[TensorType]) -> Traits:
    product = product_of(node.op, ins)
    stacked = product is not None and is_stacked(node.op, ins)
    return Traits(ins, node.op.along(ins), product, stacked, fits_of(node.op, node.type, ins))
