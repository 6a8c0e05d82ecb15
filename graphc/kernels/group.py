"""The units that run: a fused kernel of several nodes, copies, or a node by itself."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.ir.expr import Axis, Broadcast
from graphc.ir.forms import Sizes
from graphc.ir.graph import Node
from graphc.kernels.aliases import Part
from graphc.kernels.iteration_space import Access, Placement, Space


@dataclass(eq=False)
class Group:
    """Nodes that one kernel computes: over `space`, with reductions over `axis`.

    `kinds` gives the broadcast kind of each node's value in the space; `operands` the way a node
    reads each of its operands.
    """

    space: Space
    axis: Axis | None
    product: Node | None = None
    nodes: list[Node] = field(default_factory=list)
    places: Sizes | None = None
    """The dimensions of the rows after the first, if nodes gather."""
    permuted: Node | None = None
    """The node that stores the result of a stack of products with its axes permuted."""
    kinds: dict[str, Broadcast] = field(default_factory=dict)
    operands: dict[str, tuple[Access, ...]] = field(default_factory=dict)
    feeds: int = 0
    forward: bool = True
    position: int = -1
    sealed: bool = False
    """Whether the group may no longer be delayed."""

    def add(self, node: Node, placement: Placement) -> None:
        """Add a node."""
        self.nodes.append(node)
        self.kinds[node.name] = placement.kind
        self.operands[node.name] = placement.operands

    def axes_agree(self, axis: Axis | None) -> bool:
        """Return whether nothing in the group is reduced over another axis."""
        return axis is None or self.axis is None or axis == self.axis

    def takes_places(self, places: Sizes) -> bool:
        """Return whether the rows may be those of several dimensions."""
        if self.product is not None or self.axis is not None:
            return False
        return self.places in (None, places) and not any(node.op.is_random for node in self.nodes)


@dataclass(frozen=True)
class Joined:
    """A node whose columns are copies of its operands."""

    node: Node
    parts: list[Part]


Unit = Group | Joined | Node
"""A unit that runs: a fused kernel, copies, or a single node that the backend itself implements."""
