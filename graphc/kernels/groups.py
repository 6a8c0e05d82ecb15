"""The grouping of nodes that run together: each group becomes one fused kernel.

Nodes are visited in the order of the schedule.  A node joins the group of an operand if their
placements agree, and the group runs at the position of its last node.  It takes no more nodes
once a node outside reads its results, or writes a state that it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from graphc.ir.expr import Axis, Broadcast
from graphc.ir.forms import places_of
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import count
from graphc.kernels.aliases import Padding, joined_columns
from graphc.kernels.group import Group, GroupRules, Joined, Unit
from graphc.kernels.iteration_space import is_storable
from graphc.kernels.traits import Placement, ReadKind, Traits, TraitsOf, feed_masks

MOST = 60
"""The most nodes that join or merge into one group.

Code of a very long body takes compilers more than linear time.  A chain of equal layers is cut
into equal groups, which share one function; many periods divide this number.
"""


class Grouping(GroupRules):
    """The units of a schedule's nodes, in order; the first `boundary` of the nodes are forward.

    With `optional_feeds`, as in inference, only nodes that need the same feeds run together.
    """

    def __init__(
        self,
        graph: Graph,
        order: tuple[Node, ...],
        boundary: int,
        in_place: Mapping[str, str],
        traits: TraitsOf,
        optional_feeds: bool,
    ) -> None:
        forward = {node.name for node in order[:boundary]}
        super().__init__(graph, traits, Padding(graph, traits, forward), in_place)
        self.group_of: dict[str, Group] = {}
        self._boundary = boundary
        self._separate = optional_feeds
        self._feeds = feed_masks(graph) if optional_feeds else {}
        self._users: dict[str, list[Group]] = {}
        self._units: dict[int, Unit] = {}
        for position, node in enumerate(order):
            self._place(position, node)

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units.values())

    # ------------------------------------------------------------------ one node

    def _place(self, position: int, node: Node) -> None:
        if node.op.alias:
            self.add_alias(node)
            if node.op.is_control and self.root(node.name) in self.group_of:
                self.group_of[self.root(node.name)].sealed = True  # nothing later may join it
            return
        if node.name in self.group_of:
            return
        traits = self.traits(node)
        if traits.moves and self.padding.is_pad(node):
            self.add_pad(node)
            return
        if traits.product is not None:
            cut = self.padding.cut_of(node)
            if cut is not None:
                node = self.padding.joined(node, cut)
                traits = self.traits(node)
        elif traits.broadcasts_numbers and self.is_read_by_loops(node):
            self.inlined.add(node.name)
            return
        if traits.moves and self.add_view(node):
            return
        self._run(position, node, traits)

    def _run(self, position: int, node: Node, traits: Traits) -> None:
        """Add a node to a group, or make a unit of it."""
        forward = position < self._boundary
        group = self._joined(node, traits, forward) or self._opened(node, traits, forward)
        reads = self.reads(node)
        self._seal(node, group, reads)
        if group is None:
            parts = joined_columns(node, traits.ins)
            self._units[position] = node if parts is None else Joined(node, parts)
            return
        self.add_reader(node)
        self._register(node, group, reads)
        self._units.pop(group.position, None)
        self._units[position] = group
        group.position = position

    def _register(self, node: Node, group: Group, reads: Iterable[str]) -> None:
        """Record the group of a node, and the values that it reads."""
        self.group_of[node.name] = group
        for root in reads:
            users = self._users.setdefault(root, [])
            if group not in users[-4:]:  # a search of all would be quadratic
                users.append(group)

    def _seal(self, node: Node, group: Group | None, reads: Iterable[str]) -> None:
        """Seal the groups that cannot run after this node, which reads these values."""
        for root in reads:
            other = self.group_of.get(root)
            if other is not None and other is not group:
                other.sealed = True
        state = self.in_place.get(node.name)
        if state is not None:
            for other in self._users.get(state, ()):
                if other is not group:
                    other.sealed = True

    # ------------------------------------------------------------------ joining

    def _joined(self, node: Node, traits: Traits, forward: bool) -> Group | None:
        if traits.moves and node.op.permutation is not None:
            return self._with_permuted(node, traits, forward)
        if traits.iteration == "call":
            return None
        for group in self._candidates(node):
            if group.sealed or group.forward != forward or not self._same_feeds(group, node):
                continue
            if len(group.nodes) >= MOST:
                continue
            if not self._shared_alike(group, node, traits):
                continue
            found = self.placed(group, node, traits)
            if found is not None:
                group.space, placement = found
                group.axis = group.axis or placement.axis
                group = self._with_operands(group, node, placement)
                self._add(group, node, traits, placement)
                return group
        return None

    def _with_permuted(self, node: Node, traits: Traits, forward: bool) -> Group | None:
        """Return the stack of products whose result a node stores permuted, with the node added."""
        axes, (source,) = node.op.permutation, node.inputs
        group = self.group_of.get(source)
        if axes is None or group is None or group.product is None or group.sealed:
            return None
        if group.forward != forward or not self.reads_stacks(group.product):
            return None
        if not is_storable(node.type.shape, axes):
            return None
        read = any(len(self.graph.users[member.name]) > 1 for member in group.nodes)
        kept = any(member.name in self.graph.roots for member in group.nodes)
        if read or kept or group.nodes[-1].name != source or not self._same_feeds(group, node):
            return None
        self._add(group, node, traits, Placement("each", ("each",), None))
        group.permuted, group.sealed = node, True
        return group

    def _with_operands(self, group: Group, node: Node, placement: Placement) -> Group:
        """Return the group of a joining node with the groups of its operands where they can be."""
        for operand, broadcast in zip(node.inputs, placement.operands, strict=True):
            other = self.group_of.get(self.root(operand))
            if other is None or other is group:
                continue
            how = self._broadcast_in(group, node, other, broadcast)
            if how is not None and self._reads_before_it(group, node, other, how, placement.kind):
                group = self._merged(group, other, how)
        return group

    def _broadcast_in(
        self, group: Group, node: Node, other: Group, broadcast: ReadKind
    ) -> Broadcast | None:
        """Return how the group of an operand of a joining node runs in its group, or None."""
        if other.sealed or other.product or other.axis:
            return None
        if len(group.nodes) + len(other.nodes) >= MOST:  # the joining node comes, too
            return None
        if broadcast == "gathered":
            return None
        if other.forward != group.forward or other.feeds != group.feeds:
            return None
        if other.places is not None and (
            node.name in self.in_place or not group.accepts_places(other.places)
        ):
            return None
        if group.places is not None and any(node.op.is_random for node in other.nodes):
            return None
        alike = self.is_reshapable(other) and count(other.space) == count(group.space)
        if other.space == group.space or alike:
            return "each" if self._in_epilogue_of(group.product, other) else None
        return broadcast if self._is_vector_of(other, group, broadcast) else None

    def _reads_before_it(
        self, group: Group, node: Node, other: Group, how: Broadcast, kind: Broadcast
    ) -> bool:
        """Return whether another group, merged, reads in time what is overwritten.

        The joining node overwrites a state, or a member of the other group does: that is a loop,
        which reads a single number before all else, and may become part of a product.
        """
        written = [(node, kind)]
        if group.product is not None:
            written += [(one, how) for one in other.nodes if one.name in self.in_place]
        return all(
            self._reads_before(writer, at, group.product, member, _operands(other, member, how))
            for writer, at in written
            for member in self.readers(writer, other)
        )

    def _merged(self, group: Group, other: Group, how: Broadcast) -> Group:
        """Return a group with the members of both, those of `group` first.

        The smaller one moves: otherwise a long sum, one group that each term joins, would move as
        often as it has terms.
        """
        del self._units[other.position]
        larger = len(other.nodes) > len(group.nodes)
        if how == "each" and other.uniform and larger:
            moved, group = group, other
            group.prepend(moved)
            self._units[group.position] = group
        else:
            moved = other
            for member in other.nodes:
                placement = Placement(how, _operands(other, member, how), None)
                self._add(group, member, self.traits(member), placement)
        moved.sealed = True  # no longer a group, but still recorded as a user of its operands
        for member in moved.nodes:
            self._register(member, group, self.reads(member))
        return group

    def _in_epilogue_of(self, product: Node | None, group: Group) -> bool:
        """Return whether a group without reductions can follow a product, if there is one."""
        return product is None or all(
            not node.op.is_random and self.one_pitch(product, node) for node in group.nodes
        )

    def _is_vector_of(self, other: Group, group: Group, broadcast: Broadcast) -> bool:
        """Return whether a group of vectors can run among the rows or columns of a matrix.

        Random numbers cannot: theirs are those of a row and a column of their own space.
        """
        size = {"row": group.space[0], "column": group.space[1]}.get(broadcast)
        axis: Axis = "columns" if broadcast == "row" else "rows"
        if group.product is not None or group.axis != axis or other.space != (1, size):
            return False
        return all(node.type.rank == 1 and not node.op.is_random for node in other.nodes)

    def _candidates(self, node: Node) -> Iterator[Group]:
        """Yield the groups of the operands, the latest first, then other users of these."""
        roots, groups = [self.root(operand) for operand in node.inputs], self.group_of
        made = dict.fromkeys([groups[root] for root in roots if root in groups])
        latest = sorted(made, key=lambda group: -group.position)
        if latest and latest[0].axis is None:
            latest.sort(key=lambda group: group.product is None)  # a product can take in the others
        yield from latest
        for root in reversed(roots):
            # Only the latest four, as in _register: a search of all would be quadratic.
            yield from [group for group in self._users.get(root, ())[:-5:-1] if group not in made]

    def _shared_alike(self, group: Group, node: Node, traits: Traits) -> bool:
        """Return whether threads may share a node and a loop alike: both sum rows, or neither does.

        Threads share the columns of what sums rows, and mostly the rows of all else.  A node that
        reads a member of the group has no choice.
        """
        reads = {self.group_of.get(self.root(operand)) for operand in node.inputs}
        if group.product is not None or group.axis == "columns" or group in reads:
            return True
        users = [self.graph[name] for name in self.graph.users[node.name]]
        sums = "rows" in (traits.iteration, *[self.traits(user).iteration for user in users])
        return sums == (group.axis == "rows")

    def _same_feeds(self, group: Group, node: Node) -> bool:
        """Return whether a node needs the feeds of a group; in training always.

        In inference feeds may be missing, so nodes that need other feeds are not joined.
        """
        return not self._separate or self._feeds[node.name] == group.feeds

    # ------------------------------------------------------------------ new groups

    def _opened(self, node: Node, traits: Traits, forward: bool) -> Group | None:
        feeds = self._feeds.get(node.name, 0)
        if traits.epilogue is not None and self.one_pitch(node, node):
            space, placement = traits.epilogue
            group = Group(space, None, node, feeds=feeds, forward=forward)
        elif traits.placement is not None and traits.space is not None:
            placement = traits.placement
            group = Group(traits.space, placement.axis, feeds=feeds, forward=forward)
        else:
            return None
        self._add(group, node, traits, placement)
        return group

    def _add(self, group: Group, node: Node, traits: Traits, placement: Placement) -> None:
        if traits.gather is not None:
            group.places = places_of(traits.gather.shape)
        group.add(node, placement, traits.reshapable and not self.reads_views(node))


def _operands(group: Group, member: Node, how: Broadcast) -> tuple[ReadKind, ...]:
    """Return the ways in which a member reads its operands if its group is broadcast."""
    return tuple([how if own == "each" else own for own in group.operands[member.name]])
