"""The facts about a node that fusion needs often, computed once for all nodes that are alike."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Along
from graphc.ir.tensor_type import TensorType
from graphc.kernels.fit import Fit, fits_of, is_plain, reader_fit
from graphc.kernels.gathers import Reader
from graphc.kernels.matrix import Space, by_last
from graphc.kernels.products import Product


@dataclass(frozen=True, slots=True)
class Traits:
    """The form of a node in kernels, which does not depend on its name and its operands' names."""

    ins: list[TensorType]
    """The types of its operands."""
    along: Along
    product: Product | None
    """The form of a matrix product that has a kernel, else None."""
    fits: dict[Space, Fit]
    """Its fit in each of its own spaces, its first choice first; empty without a kernel."""
    reader: Reader | None
    """The rule of an op that gathers its operands, else None."""
    plain: bool
    """Whether it computes the same in any matrix of as many elements."""

    @property
    def fit(self) -> Fit | None:
        """The fit in the space of its choice."""
        return next(iter(self.fits.values()), None)

    @property
    def space(self) -> Space | None:
        """The space of its choice."""
        return next(iter(self.fits), None)


class TraitsOf:
    """The traits of a graph's nodes.

    Ops and types count by identity, as the layers of a deep net share them; comparing them would
    cost more than it saves.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._of_node: dict[tuple[str, int], Traits] = {}
        self._of_kind: dict[Hashable, Traits] = {}

    def __call__(self, node: Node) -> Traits:
        """Return the traits of a node that is not a source.

        A product and the slice of it have one name: the op distinguishes them.
        """
        known = self._of_node.get((node.name, id(node.op)))
        if known is None:
            ins = [self._graph[operand].type for operand in node.inputs]
            kind = (id(node.op), id(node.type), *map(id, ins))
            known = self._of_kind.get(kind)
            if known is None:
                known = self._of_kind[kind] = _traits(node, ins)
            self._of_node[node.name, id(node.op)] = known
        return known


def _traits(node: Node, ins: list[TensorType]) -> Traits:
    reader = node.op.gather(ins, node.type)
    fits = fits_of(node, ins) if reader is None else {by_last(reader.shape): reader_fit(ins)}
    along = node.op.along(ins) if reader is None else "elements"
    product = node.op.product(ins)
    return Traits(ins, along, product, fits, reader, is_plain(node, fits))
