"""The units that run: a fused kernel of several nodes, copies, or a node by itself.

A node runs in a group if it has a placement in the group's iteration space, reads the members by
their broadcast kinds there, and overwrites nothing that they still read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from graphc.ir.expr import Axis, Broadcast
from graphc.ir.forms import BatchedProduct, Sizes, places_of
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Dim, count
from graphc.kernels.aliases import Aliases, Padding, Part
from graphc.kernels.iteration_space import Space, by_last, is_number, is_of_kind
from graphc.kernels.traits import Placement, ReadKind, Traits, TraitsOf


@dataclass(eq=False)
class Group:
    """Nodes that one kernel computes: over `space`, with reductions over `axis`.

    `kinds` gives the broadcast kind of each node's value in the space; `operands` the way a node
    reads each of its operands.
    """

    space: Space
    axis: Axis | None
    product: Node | None = None
    nodes: deque[Node] = field(default_factory=deque)
    places: Sizes | None = None
    """The dimensions of the rows after the first, if nodes gather."""
    permuted: Node | None = None
    """The node that stores the result of a stack of products with its axes permuted."""
    kinds: dict[str, Broadcast] = field(default_factory=dict)
    operands: dict[str, tuple[ReadKind, ...]] = field(default_factory=dict)
    feeds: int = 0
    forward: bool = True
    position: int = -1
    sealed: bool = False
    """True if the group takes no more nodes."""
    uniform: bool = True
    """True if every node has an element at each place of the space."""
    reshapable: bool = True
    """True if the nodes compute the same in any matrix of as many elements."""

    def add(self, node: Node, placement: Placement, reshapable: bool) -> None:
        """Add a node that runs in the kernel of the group, at a placement in its space."""
        self.nodes.append(node)
        self.kinds[node.name] = placement.kind
        self.operands[node.name] = placement.operands
        self.uniform = self.uniform and placement.kind == "each"
        self.reshapable = self.reshapable and reshapable

    def prepend(self, other: Group) -> None:
        """Put the nodes of another group before these, and run where and as it does."""
        self.nodes.extendleft(reversed(other.nodes))
        self.kinds.update(other.kinds)
        self.operands.update(other.operands)
        self.space, self.axis, self.product = other.space, other.axis, other.product
        self.position, self.permuted = other.position, other.permuted
        if self.places is None:
            self.places = other.places
        self.uniform = self.uniform and other.uniform
        self.reshapable = self.reshapable and other.reshapable

    def axes_agree(self, axis: Axis | None) -> bool:
        """Return whether nothing in the group is reduced over another axis."""
        return axis is None or self.axis is None or axis == self.axis

    def accepts_places(self, places: Sizes) -> bool:
        """Return whether the group's rows may have these dimensions."""
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


def _may_gather(group: Group, traits: Traits, placement: Placement) -> bool:
    """Return whether a gathering node finds the dimensions that it needs in a group.

    In a group that gathers, nothing may be reduced or drawn.
    """
    if traits.gather is not None:
        return group.accepts_places(places_of(traits.gather.shape))
    return group.places is None or (placement.axis is None and not traits.op.is_random)


class GroupRules(Aliases):
    """The rules by which nodes run in a group; `in_place` maps nodes to states they overwrite."""

    def __init__(
        self, graph: Graph, traits: TraitsOf, padding: Padding, in_place: Mapping[str, str]
    ) -> None:
        super().__init__(graph, traits, padding)
        self.in_place = in_place
        self._overwritten = frozenset(in_place.values())
        self._state_readers: dict[str, list[Node]] = {}
        """For each state that a node overwrites, the nodes that read it."""
        self._odd: dict[str, set[str]] = {}
        """For products, the factors with other columns than the result."""

    def placed(self, group: Group, node: Node, traits: Traits) -> tuple[Space, Placement] | None:
        """Return the space in which a node and a group run together, and its placement there."""
        for space in self._spaces(group, traits):
            placement = self._as_matrix(node, traits, space)
            if placement is None or not self._may_run(group, node, traits, space, placement):
                placement = self._as_vector(group, node, traits, space)
                if placement is None or not self._may_run(group, node, traits, space, placement):
                    continue
            return space, placement
        return None

    def _spaces(self, group: Group, traits: Traits) -> Iterator[Space]:
        """Yield the spaces that a group can run in: its own, and if it is reshapable a node's."""
        yield group.space
        if self.is_reshapable(group):
            for space in traits.placements:
                if space != group.space and count(space) == count(group.space):
                    yield space

    def is_reshapable(self, group: Group) -> bool:
        """Return whether a group computes the same in any matrix of as many elements."""
        return group.product is None and group.axis is None and group.reshapable

    def _as_matrix(self, node: Node, traits: Traits, space: Space) -> Placement | None:
        """Return the placement of a node in a space, or None: any of its size if reshapable."""
        if self.reads_views(node):
            return traits.placement if traits.space == space else None
        if traits.reshapable and count(space) == count(node.type.shape):
            return traits.placement
        return traits.placements.get(space)

    def _as_vector(
        self, group: Group, node: Node, traits: Traits, space: Space
    ) -> Placement | None:
        """Return the placement of a vector or number among the rows or columns of the group."""
        if traits.iteration != "elements" or group.product is not None:
            return None
        if self.reads_views(node):
            return None  # their rows have the pitch of a wider matrix
        if node.op.broadcast_kinds(traits.ins) is not None:
            return None  # it may read the numbers of its own rows and columns
        kinds = {
            group.kinds[root]
            for root in map(self.root, node.inputs)
            if root in group.kinds and group.kinds[root] != "each"
        }
        if len(kinds) != 1:
            return None
        kind = kinds.pop()
        if not is_of_kind(node.type, kind, space):
            return None
        operands: list[Broadcast] = []
        for type in traits.ins:
            if is_number(type):
                operands.append("one")
            elif is_of_kind(type, kind, space) and type.shape == node.type.shape:
                operands.append(kind)
            else:
                return None
        return Placement(kind, tuple(operands), "columns" if kind == "row" else "rows")

    def _may_run(
        self, group: Group, node: Node, traits: Traits, space: Space, placement: Placement
    ) -> bool:
        """Return whether a node may run in a group at a placement in a space."""
        if not group.axes_agree(placement.axis) or not _may_gather(group, traits, placement):
            return False
        if group.product is not None:
            reduces = placement.kind != "each" or placement.axis is not None
            if reduces or node.op.is_random or not self.one_pitch(group.product, node):
                return False
        agree = self._members_agree(group, node, space, placement)
        return agree and self._may_write(group, node, placement)

    def one_pitch(self, product: Node, node: Node) -> bool:
        """Return whether a node reads the factors of a product as matrices of as many columns.

        The same bytes may be matrices of several shapes, and a kernel reads them in only one,
        except in a stack of products.
        """
        traits = self.traits(product)
        if isinstance(traits.product, BatchedProduct):
            return node is product or node.op.broadcast_kinds(self.traits(node).ins) is None
        if not traits.pitches:
            return True
        odd = self._odd.get(product.name)
        if odd is None:
            odd = self._odd[product.name] = self._odd_factors(product, traits)
        others = node.inputs[2:] if node is product else node.inputs
        read = [self.bytes_of(operand) for operand in others if self.type(operand).rank > 1]
        return "" not in odd and odd.isdisjoint(read)

    def _odd_factors(self, product: Node, traits: Traits) -> set[str]:
        """Return the factors with other columns than the result, and "" if two factors disagree."""
        columns: dict[str, Dim] = {}
        odd: set[str] = set()
        for position, width in traits.pitches:
            name = self.bytes_of(product.inputs[position])
            if columns.setdefault(name, width) != width:
                odd.add("")
            if width != by_last(product.type.shape)[1]:
                odd.add(name)
        return odd

    def _members_agree(self, group: Group, node: Node, space: Space, placement: Placement) -> bool:
        """Return whether the node reads each member of the group by the member's kind."""
        kinds, roots = group.kinds, self.roots
        for operand, broadcast in zip(node.inputs, placement.operands, strict=True):
            kind = kinds.get(roots.get(operand, operand))
            if kind is None or (kind == broadcast and operand not in self.views):
                continue
            if operand in self.views:
                return False
            if not (kind == "row" and broadcast == "one" and space[0] == 1):
                return False
        return True

    def _may_write(self, group: Group, node: Node, placement: Placement) -> bool:
        """Return whether a node may overwrite its state: a group reads it only at that element."""
        if node.name not in self.in_place:
            return True
        members = [(member, group.operands[member.name]) for member in self.readers(node, group)]
        return all(
            self._reads_before(node, placement.kind, group.product, member, reads)
            for member, reads in (*members, (node, placement.operands))
        )

    def readers(self, writer: Node, group: Group) -> Iterable[Node]:
        """Return the nodes of a group that read the state which `writer` overwrites, if any."""
        readers = self._state_readers.get(self.in_place.get(writer.name, ""), ())
        return (node for node in readers if node.name in group.operands)

    def add_reader(self, node: Node) -> None:
        """Record the states that a node reads and others overwrite."""
        for root in {self.roots.get(operand, operand) for operand in node.inputs}:
            if root in self._overwritten:
                self._state_readers.setdefault(root, []).append(node)

    def _reads_before(
        self,
        writer: Node,
        kind: Broadcast,
        product: Node | None,
        member: Node,
        reads: Sequence[ReadKind],
    ) -> bool:
        """Return whether a member reads each element of the state that `writer` overwrites in time.

        That is just before it is written; `reads` are the ways in which it reads its operands.
        A factor of a product is read as a whole, and so are all operands of a stack of products:
        its threads share matrices, not rows.  A loop reads a single number before all else.
        """
        state = self.in_place.get(writer.name)
        if state is None:
            return True
        roots = self.roots
        for i, operand in enumerate(member.inputs):
            if roots.get(operand, operand) != state:
                continue
            stacked = product is not None and self.reads_stacks(product)
            if stacked or operand in self.views or (member is product and i < 2):
                return False
            number = product is None and reads[i] != "gathered" and is_number(self.type(state))
            if reads[i] != kind and not number:
                return False
        return True
