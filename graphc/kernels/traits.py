"""The facts about a graph's nodes that fusion needs."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from graphc.ir.forms import GatherRule, Product
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Iteration, Op
from graphc.ir.tensor_type import TensorType
from graphc.kernels.iteration_space import (
    Placement,
    Space,
    by_last,
    gather_placement,
    is_plain,
    placements_of,
)


@dataclass(frozen=True, slots=True)
class Traits:
    """The form of a node in kernels, which does not depend on its name and its operands' names."""

    ins: list[TensorType]
    """The types of its operands."""
    iteration: Iteration
    product: Product | None
    """The form of a matrix product that has a kernel, else None."""
    placements: dict[Space, Placement]
    """Its placement in each of its own spaces, its first choice first; empty without a kernel."""
    gather: GatherRule | None
    """The rule of an op that gathers its operands, else None."""
    plain: bool
    """Whether it computes the same in any matrix of as many elements."""

    @property
    def placement(self) -> Placement | None:
        """The placement in the space of its choice."""
        return next(iter(self.placements.values()), None)

    @property
    def space(self) -> Space | None:
        """The space of its choice."""
        return next(iter(self.placements), None)


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
    gather, product = node.op.gather(ins, node.type), node.op.product(ins)
    if gather is None:
        iteration, placements = node.op.iteration(ins), placements_of(node, ins)
    else:
        iteration, placements = "elements", {by_last(gather.shape): gather_placement(ins)}
    return Traits(ins, iteration, product, placements, gather, is_plain(node, placements))


ROWS = 1
"""The bit of values that depend on the number of rows, but not on a feed that has rows."""


def feed_masks(graph: Graph) -> dict[str, int]:
    """Return for each node, as bits, the feeds that it depends on."""
    masks: dict[str, int] = {}
    bit, batched = 2 * ROWS, 0
    for node in graph:
        if node.op.is_input:
            masks[node.name] = bit
            batched |= bit if node.type.batched else 0
            bit <<= 1
            continue
        mask = ROWS if counts_rows(graph, node) else 0
        for operand in node.inputs:
            mask |= masks[operand]
        masks[node.name] = mask & ~ROWS if mask & batched else mask
    return masks


def counts_rows(graph: Graph, node: Node) -> bool:
    """Return whether a node has as many rows as the batch, and no operand that has them."""
    given = node.op.is_input or any(graph[name].type.batched for name in node.inputs)
    return node.type.batched and not given


def reason_for_call(op: Op, ins: Sequence[TensorType]) -> str:
    """Return, in a few words, why an op is called: what it lacks, or its operands' types."""
    types = ", ".join(map(str, ins))
    if type(op).product is not Op.product:
        if any(type.rank != 2 for type in ins[:2]):
            return f"only products of matrices are generated, not of {types}"
    elif type(op).iteration is Op.iteration:
        return "it has no scalar rule"
    return f"no generated form for {types}"
