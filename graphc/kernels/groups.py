"""The grouping of nodes that run together: each group becomes one fused kernel.

Nodes are visited in the order of the schedule.  A node joins the group of an operand if the matrix
views agree, and the group then runs at the place of its last node.  It may be delayed like that
until a node outside reads its results, or writes a state that it reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Dim, count
from graphc.kernels.aliases import Aliases
from graphc.kernels.body import Axis, Span
from graphc.kernels.borders import Borders
from graphc.kernels.feed_masks import feed_masks
from graphc.kernels.fit import Fit, Seen, in_epilogue, is_number, product_fit, stands_as
from graphc.kernels.gathers import places_of
from graphc.kernels.group import Group, Joined, Unit
from graphc.kernels.matrix import by_last
from graphc.kernels.traits import TraitsOf
from graphc.kernels.turned import is_storable
from graphc.kernels.views import joined_columns
from graphc.ops.again import After
from graphc.ops.exchange import Send
from graphc.ops.shape import Transpose


class Grouping(Aliases):
    """The units of a schedule's nodes, in order; the first `border` of the nodes are forward."""

    def __init__(
        self,
        graph: Graph,
        order: tuple[Node, ...],
        border: int,
        in_place: Mapping[str, str],
        traits: TraitsOf,
    ) -> None:
        place = {node.name: position for position, node in enumerate(order)}
        super().__init__(graph, traits, Borders(graph, traits, place, border))
        self.group_of: dict[str, Group] = {}
        self._in_place = in_place
        self._border = border
        trains = graph.updates or graph.gradients or any(isinstance(n.op, Send) for n in graph)
        self._separate = not trains
        self._feeds = feed_masks(graph) if self._separate else {}
        self._readers: dict[str, list[Group]] = {}
        self._units: dict[int, Unit] = {}
        self._pitches: dict[str, tuple[dict[str, Dim], Dim, bool]] = {}
        for position, node in enumerate(order):
            self._place(position, node)

    def __iter__(self) -> Iterator[Unit]:
        return iter(self._units.values())

    # ------------------------------------------------------------------ one node

    def _place(self, position: int, node: Node) -> None:
        if node.op.alias:
            self.roots[node.name] = self.root(node.inputs[0])
            if isinstance(node.op, After) and self.root(node.name) in self.group_of:
                self.group_of[self.root(node.name)].sealed = True  # nothing later may join it
            return
        if node.name in self.group_of or self.borders.takes_pad(node):
            return
        node = self.borders.with_cut(node)
        if self.is_splat(node):
            self.inlined.add(node.name)
            return
        if self.is_view(node) or self.is_turned(node):
            return
        forward = position < self._border
        group = self._joined(node, forward) or self._opened(node, forward)
        reads = tuple(self.reads(node))
        self._seal(node, group, reads)
        if group is None:
            parts = joined_columns(node.op, node.inputs, self.traits(node).ins)
            self._units[position] = node if parts is None else Joined(node, parts)
            return
        self._register(node, group, reads)
        self._units.pop(group.position, None)
        self._units[position] = group
        group.position = position

    def _register(self, node: Node, group: Group, reads: Iterable[str]) -> None:
        """Record the group of a node, and the values that it reads."""
        self.group_of[node.name] = group
        for root in reads:
            readers = self._readers.setdefault(root, [])
            if group not in readers[-4:]:
                readers.append(group)

    def _seal(self, node: Node, group: Group | None, reads: Iterable[str]) -> None:
        """Close the groups that cannot run after this node, which reads these values."""
        for root in reads:
            other = self.group_of.get(root)
            if other is not None and other is not group:
                other.sealed = True
        state = self._in_place.get(node.name)
        if state is not None:
            for other in self._readers.get(state, ()):
                if other is not group:
                    other.sealed = True

    # ------------------------------------------------------------------ joining

    def _joined(self, node: Node, forward: bool) -> Group | None:
        if isinstance(node.op, Transpose):
            return self._turning(node, forward)
        if self.traits(node).along == "call":
            return None
        for group in self._candidates(node):
            if group.sealed or group.forward != forward or not self._same_feeds(group, node):
                continue
            fit = self._fit(group, node) or self._fit_moved(group, node)
            if fit is not None:
                group.axis = group.axis or fit.axis
                for operand, span in zip(node.inputs, fit.operands, strict=True):
                    self._absorb(group, node, self.root(operand), span, fit.role)
                self._add(group, node, fit)
                return group
        return None

    def _turning(self, node: Node, forward: bool) -> Group | None:
        """Return the stack of products whose result a node stores permuted, with the node added."""
        assert isinstance(node.op, Transpose)
        (source,) = node.inputs
        group = self.group_of.get(source)
        if group is None or group.product is None or group.sealed or group.forward != forward:
            return None
        if not self.reads_stacks(group.product):
            return None
        if not is_storable(node.type.shape, node.op.axes):
            return None
        read = any(len(self.graph.users[member.name]) > 1 for member in group.nodes)
        kept = any(member.name in self.graph.roots for member in group.nodes)
        if read or kept or group.nodes[-1].name != source or not self._same_feeds(group, node):
            return None
        self._add(group, node, Fit("each", ("each",), None))
        group.turned, group.sealed = node, True
        return group

    def _fit_moved(self, group: Group, node: Node) -> Fit | None:
        """Return the fit of a node in its own space, which a group of plain nodes then adopts."""
        before = group.space
        for space in self.traits(node).fits if self._is_plain(group) else ():
            if space != before and count(space) == count(before):
                group.space = space
                fit = self._fit(group, node)
                if fit is not None:
                    return fit
        group.space = before
        return None

    def _is_plain(self, group: Group) -> bool:
        """Return whether a group computes the same in any matrix of as many elements."""
        if group.product is not None or group.axis is not None:
            return False
        return all(
            self.traits(node).plain and not any(operand in self.views for operand in node.inputs)
            for node in group.nodes
        )

    def _absorb(self, group: Group, node: Node, operand: str, span: Seen, role: Span) -> None:
        """Merge the group of an operand of a joining node into this one, if it can run in it.

        `role` is the node's span there.
        """
        other = self.group_of.get(operand)
        if other is None or other is group or other.sealed or other.product or other.axis:
            return
        if span == "elsewhere":
            return
        if other.forward != group.forward or other.feeds != group.feeds:
            return
        if other.places is not None and (
            node.name in self._in_place or not group.takes_places(other.places)
        ):
            return
        if group.places is not None and any(node.op.is_random for node in other.nodes):
            return
        alike = self._is_plain(other) and count(other.space) == count(group.space)
        if other.space == group.space or alike:
            if not all(self._in_epilogue_of(group.product, node) for node in other.nodes):
                return
            span = "each"
        elif not self._is_vector_of(other, group, span):
            return
        self._merge(group, other, node, span, role)

    def _merge(self, group: Group, other: Group, node: Node, span: Span, role: Span) -> None:
        """Move the members of another group here.

        Do nothing if one reads a state that the joining node would overwrite too early.
        """
        taken = []
        for member in other.nodes:
            seen = [span if own == "each" else own for own in other.operands[member.name]]
            if not self._reads_before(node, role, group.product, member, seen):
                return
            taken.append((member, Fit(span, tuple(seen), None)))
        del self._units[other.position]
        other.sealed = True  # no longer a group, but still recorded as a reader of its operands
        for member, fit in taken:
            self._add(group, member, fit)
            self._register(member, group, self.reads(member))

    def _in_epilogue_of(self, product: Node | None, node: Node) -> bool:
        """Return whether a node without reductions can follow the product of a group, if any."""
        return product is None or (not node.op.is_random and self._one_pitch(product, node))

    def _is_vector_of(self, other: Group, group: Group, span: Span) -> bool:
        """Return whether a group of vectors can run among the rows or columns of a matrix."""
        size = {"row": group.space[0], "column": group.space[1]}.get(span)
        axis: Axis = "columns" if span == "row" else "rows"
        if group.product is not None or group.axis != axis or other.space != (1, size):
            return False
        return all(node.type.rank == 1 for node in other.nodes)

    def _candidates(self, node: Node) -> list[Group]:
        """Return the groups of the operands, the latest first, then others that read the same."""
        roots = [self.root(operand) for operand in node.inputs]
        made = [self.group_of[root] for root in roots if root in self.group_of]
        made.sort(key=lambda group: -group.position)
        beside = [g for root in reversed(roots) for g in reversed(self._readers.get(root, ())[-4:])]
        return list(dict.fromkeys([*made, *beside]))

    def _same_feeds(self, group: Group, node: Node) -> bool:
        """Return whether a node needs the feeds of a group; in training always.

        In inference feeds may be missing, so nodes that need other feeds stay apart.
        """
        return not self._separate or self._feeds[node.name] == group.feeds

    def _fit(self, group: Group, node: Node) -> Fit | None:
        for stand in (self._as_matrix, self._as_vector):
            fit = stand(group, node)
            if fit is None or not group.axes_agree(fit.axis):
                continue
            if not self._may_read(group, node, fit):
                continue
            if group.product is not None and (fit.role != "each" or not in_epilogue(node.op, fit)):
                continue
            if group.product is not None and not self._one_pitch(group.product, node):
                continue
            if self._members_agree(group, node, fit) and self._may_write(group, node, fit):
                return fit
        return None

    def _may_read(self, group: Group, node: Node, fit: Fit) -> bool:
        """Return whether a gathering node finds the dimensions that it needs in a group.

        In a group that gathers, nothing may be reduced or drawn.
        """
        reader = self.traits(node).reader
        if reader is not None:
            return group.takes_places(places_of(reader.shape))
        return group.places is None or (fit.axis is None and not node.op.is_random)

    def _one_pitch(self, product: Node, node: Node) -> bool:
        """Return whether a node reads the factors of a product as matrices of as many columns.

        The same bytes may be matrices of several shapes, and a kernel reads them in only one,
        except in a stack of products.
        """
        if self.reads_stacks(product):
            return node is product or node.op.spans(self.traits(node).ins) is None
        pitches = self._pitches.get(product.name)
        if pitches is None:
            pitches = self._pitches[product.name] = self._pitches_of(product)
        columns, own, agree = pitches
        if not agree:
            return False
        others = node.inputs[2:] if node is product else node.inputs
        read = [self.bytes_of(operand) for operand in others if self.type(operand).rank > 1]
        return all([columns.get(name, own) == own for name in read])

    def _pitches_of(self, product: Node) -> tuple[dict[str, Dim], Dim, bool]:
        """Return the columns of a product's factors and of its result, and whether they agree."""
        widths = [(self.bytes_of(name), width) for name, width in self._widths(product)]
        columns = dict(widths)
        agree = all(columns[name] == width for name, width in widths)
        return columns, by_last(product.type.shape)[1], agree

    def _widths(self, product: Node) -> Iterator[tuple[str, Dim]]:
        """Yield the factors of a product that it reads as matrices, with their columns."""
        (a, b), traits = product.inputs[:2], self.traits(product)
        if traits.product is None or traits.product.window is None:
            yield a, by_last(self.type(a).shape)[1]
            yield b, by_last(self.type(b).shape)[1]
        elif not traits.product.trans_b:
            yield b, by_last(self.type(b).shape)[1]

    def _may_write(self, group: Group, node: Node, fit: Fit) -> bool:
        """Return whether a node may overwrite its state in a group.

        The group may read that state only at the element that is written.
        """
        if node.name not in self._in_place:
            return True
        members = [(member, group.operands[member.name]) for member in group.nodes]
        return all(
            self._reads_before(node, fit.role, group.product, member, spans)
            for member, spans in (*members, (node, fit.operands))
        )

    def _reads_before(
        self, writer: Node, role: Span, product: Node | None, member: Node, spans: Sequence[Seen]
    ) -> bool:
        """Return whether a member reads each element of the state that `writer` overwrites in time.

        In time is just before it is written; `spans` are those of the member's operands.  A factor
        of a product is read as a whole, and so are all operands of a stack of products: its threads
        share matrices, not rows.  A loop reads a single number before all else.
        """
        state = self._in_place.get(writer.name)
        if state is None:
            return True
        number = product is None and is_number(self.type(state))
        stacked = product is not None and self.reads_stacks(product)
        for i, operand in enumerate(member.inputs):
            if self.root(operand) != state:
                continue
            if stacked or operand in self.views or (member is product and i < 2):
                return False
            if spans[i] != role and not (number and spans[i] != "elsewhere"):
                return False
        return True

    def _as_matrix(self, group: Group, node: Node) -> Fit | None:
        """Return the fit of a node in the group's space if that is its own; plain ones fit any."""
        traits = self.traits(node)
        if any(operand in self.views for operand in node.inputs):
            return traits.fit if traits.space == group.space else None
        if traits.plain and count(group.space) == count(node.type.shape):
            return traits.fit
        return traits.fits.get(group.space)

    def _as_vector(self, group: Group, node: Node) -> Fit | None:
        """Return the fit of a vector or number among the rows or columns of the group's matrix."""
        traits = self.traits(node)
        if traits.along != "elements" or group.product is not None:
            return None
        if any(operand in self.views for operand in node.inputs):
            return None  # their elements are as far apart as those of a wider matrix
        roles = {
            group.roles[root]
            for root in map(self.root, node.inputs)
            if root in group.roles and group.roles[root] != "each"
        }
        if len(roles) != 1:
            return None
        role = roles.pop()
        if not stands_as(node.type, role, group.space):
            return None
        operands: list[Span] = []
        for type in traits.ins:
            if is_number(type):
                operands.append("one")
            elif stands_as(type, role, group.space) and type.shape == node.type.shape:
                operands.append(role)
            else:
                return None
        return Fit(role, tuple(operands), "columns" if role == "row" else "rows")

    def _members_agree(self, group: Group, node: Node, fit: Fit) -> bool:
        """Return whether the node reads each member of the group by the member's role."""
        for operand, span in zip(node.inputs, fit.operands, strict=True):
            role = group.roles.get(self.root(operand))
            if role is None or (role == span and operand not in self.views):
                continue
            if operand in self.views:
                return False
            if not (role == "row" and span == "one" and group.space[0] == 1):
                return False
        return True

    # ------------------------------------------------------------------ new groups

    def _opened(self, node: Node, forward: bool) -> Group | None:
        traits, feeds = self.traits(node), self._feeds.get(node.name, 0)
        if traits.product is not None and self._one_pitch(node, node):
            group = Group(by_last(node.type.shape), None, node, feeds=feeds, forward=forward)
            self._add(group, node, product_fit(node, traits.ins))
            return group
        if traits.fit is None or traits.space is None:
            return None
        group = Group(traits.space, traits.fit.axis, feeds=feeds, forward=forward)
        self._add(group, node, traits.fit)
        return group

    def _add(self, group: Group, node: Node, fit: Fit) -> None:
        reader = self.traits(node).reader
        if reader is not None:
            group.places = places_of(reader.shape)
        group.add(node, fit)
