"""What runs as one: a fused kernel in the making, copies, or a single node."""

from __future__ import annotations

from dataclasses import dataclass, field

from graphc.graph import Node
from graphc.kernels.body import Axis, Span
from graphc.kernels.matrix import Space
from graphc.kernels.views import Part


@dataclass(eq=False)
class Group:
    """Nodes that one kernel computes: over `space`, with reductions along `axis`.

    `roles` says how the value of each node stands in the space; `operands` how a node sees
    each of its operands.
    """

    space: Space
    axis: Axis | None
    product: Node | None = None
    nodes: list[Node] = field(default_factory=list)
    roles: dict[str, Span] = field(default_factory=dict)
    operands: dict[str, tuple[Span, ...]] = field(default_factory=dict)
    turned: Node | None = None
    """What stores the result of a stack of products with its axes in another order."""
    feeds: int = 0
    forward: bool = True
    position: int = -1
    sealed: bool = False
    """Whether the group may not be delayed any more."""


@dataclass(frozen=True)
class Joined:
    """A node whose columns are copies of its operands'."""

    node: Node
    parts: list[Part]


Unit = Group | Joined | Node
"""What runs: a fused kernel, copies, or a single node that the backend has its own way for."""
