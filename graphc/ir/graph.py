"""The immutable graph: nodes in an order in which operands precede their users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from graphc.base.docstrings import with_shared
from graphc.base.errors import GraphError, Operand
from graphc.base.loc import Loc
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, slots=True)
class Node:
    """One application of an op.  It yields one value, which has the node's name.

    Parameters
    ----------
    name
        The name, unique in a graph.
    op
        The op with its attributes.
    inputs
        The names of the operands, in the op's order.
    type
        The type of the value.
    locs
        The lines of your code that declared it, the first one first; empty if none did.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> net.input("x", (gc.N, 3)).node.type
    TensorType(shape=(N, 3), dtype='float32')
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    type: TensorType
    locs: tuple[Loc, ...] = ()
    recomputes: str = field(default="", compare=False)
    """The node whose value it recomputes, or delays for nodes that do."""
    origin: str = field(default="", compare=False)
    """The node whose derivative, of first or higher order, it is a part of, if it is."""

    @property
    def loc(self) -> Loc | None:
        """The line that declared it, if one did."""
        return self.locs[0] if self.locs else None

    def reading(self, new: Mapping[str, str]) -> Node:
        """Return the node with other names in place of some of its operands.

        Parameters
        ----------
        new
            For names of operands, the names to read instead.

        Returns
        -------
        Node
            The node itself if it reads none of them.
        """
        for operand in self.inputs:
            if operand in new:
                inputs = tuple(new.get(name, name) for name in self.inputs)
                made = self.name, self.op, inputs, self.type, self.locs
                return Node(*made, self.recomputes, self.origin)
        return self

    def described(self, role: str) -> Operand:
        """Return the node as an error shows it.

        Parameters
        ----------
        role
            What the node is to the op that fails, such as `x` or `operand 1`.

        Returns
        -------
        Operand
            The role, the name, the type and the line of the node.
        """
        return Operand(role, self.name, str(self.type), self.loc)


class Graph:
    """An immutable graph: nodes in an order in which operands precede their users, and the roots.

    Parameters
    ----------
    name
        The name of the net.
    nodes
        The nodes in order, or another graph with the nodes to take.
    outputs
        The node of each public output.
    losses
        The outputs that training minimises; it minimises their sum.
    gradients
        The node of each gradient, by the name of its value.
    updates
        The next value of each parameter and state.

    Raises
    ------
    GraphError
        If names are not unique, a node precedes its operand, or a root is not in the graph.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> x = net.input("x", (gc.N, 3))
    >>> y = net.output("y", gc.relu(x, name="positive"))
    >>> graph = net.graph()
    >>> graph["positive"].inputs, graph.users["x"]
    (('x',), ('positive',))
    """

    __slots__ = ("__dict__", "gradients", "losses", "name", "nodes", "outputs", "updates")

    def __init__(
        self,
        name: str,
        nodes: Iterable[Node],
        *,
        outputs: Mapping[str, str] | None = None,
        losses: Iterable[str] = (),
        gradients: Mapping[str, str] | None = None,
        updates: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.nodes: MappingProxyType[str, Node] = (
            nodes.nodes if isinstance(nodes, Graph) else MappingProxyType(_ordered(nodes))
        )
        self.outputs: Mapping[str, str] = MappingProxyType(dict(outputs or {}))
        self.losses: tuple[str, ...] = tuple(losses)
        self.gradients: Mapping[str, str] = MappingProxyType(dict(gradients or {}))
        self.updates: Mapping[str, str] = MappingProxyType(dict(updates or {}))
        self._check_roots()

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __contains__(self, name: object) -> bool:
        return name in self.nodes

    def __str__(self) -> str:
        from graphc.ir.text.graph import graph_text

        return graph_text(self)

    @cached_property
    def users(self) -> Mapping[str, tuple[str, ...]]:
        """The users of each node: the nodes that read it, once for each reading."""
        found: dict[str, tuple[str, ...]] = dict.fromkeys(self.nodes, ())
        many: dict[str, list[str]] = {}
        for node in self:
            for operand in node.inputs:
                users = found[operand]
                if len(users) < 4:  # most nodes have few: a tuple costs less than a list
                    found[operand] = (*users, node.name)
                else:
                    many.setdefault(operand, []).append(node.name)
        found.update({name: (*found[name], *users) for name, users in many.items()})
        return found

    @cached_property
    def roots(self) -> frozenset[str]:
        """The nodes that are read from outside the graph."""
        losses = (self.outputs[name] for name in self.losses)
        return frozenset(
            [*self.outputs.values(), *losses, *self.gradients.values(), *self.updates.values()]
        )

    @cached_property
    def dag(self) -> networkx.MultiDiGraph[str]:
        """The networkx view, made when first asked for."""
        import networkx

        view: networkx.MultiDiGraph[str] = networkx.MultiDiGraph(name=self.name)
        view.add_nodes_from((node.name, {"node": node}) for node in self)
        for node in self:
            for position, operand in enumerate(node.inputs):
                view.add_edge(operand, node.name, operand=position)
        return view

    def feeds_only(self, name: str, user: str) -> bool:
        """Return whether one node alone reads another, once, and nothing outside the graph does.

        Parameters
        ----------
        name
            The node that is read.
        user
            The node that reads it.

        Returns
        -------
        bool
            False also if `user` reads it twice.
        """
        return self.users[name] == (user,) and name not in self.roots

    def upstream(self, names: Iterable[str]) -> set[str]:
        """Return the named nodes and all that they depend on.

        Parameters
        ----------
        names
            Names of nodes.

        Returns
        -------
        set
            Names.
        """
        seen = set(names)
        for node in reversed(list(self)):  # operands precede their users
            if node.name in seen:
                seen.update(node.inputs)
        return seen

    @with_shared(upstream.__doc__)
    def downstream(self, names: Iterable[str]) -> set[str]:
        """Return the named nodes and all that depend on them."""
        seen: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                stack.extend(self.users[name])
        return seen

    def forward(self) -> set[str]:
        """Return the nodes that the outputs need.

        Returns
        -------
        set
            Names; none in a graph without outputs.
        """
        return self.upstream(self.outputs.values()) if self.outputs else set()

    def replace(
        self, changed: Mapping[str, Node | None], reads: Mapping[str, str] | None = None
    ) -> Graph:
        """Return a new graph in which some nodes are exchanged or removed.

        Parameters
        ----------
        changed
            For names of nodes, the nodes to put in their place, or None to remove them.
        reads
            For names of nodes, those that their users, roots included, read instead.

        Returns
        -------
        Graph
            The nodes keep their order.
        """
        nodes = (changed.get(node.name, node) for node in self)
        kept = (node for node in nodes if node is not None)
        return self._renamed(kept, reads) if reads else self.with_nodes(kept)

    def pruned(self) -> Graph:
        """Return the graph of the nodes that roots and updates need.

        Returns
        -------
        Graph
            The graph itself if it needs all of its nodes.
        """
        live = {*self.roots, *self.updates}
        dead: list[str] = []
        for node in reversed(list(self)):  # operands precede their users
            if node.name in live:
                live.update(node.inputs)
            else:
                dead.append(node.name)
        if not dead:
            return self
        nodes = self.nodes.copy()
        for name in dead:
            del nodes[name]
        return self._over(nodes)

    def _over(self, nodes: dict[str, Node]) -> Graph:
        """Return the same roots over nodes that are known to be in order and to include them."""
        made = Graph.__new__(Graph)
        made.name, made.nodes = self.name, MappingProxyType(nodes)
        made.outputs, made.losses = self.outputs, self.losses
        made.gradients, made.updates = self.gradients, self.updates
        return made

    def with_nodes(self, nodes: Iterable[Node], **roots: Mapping[str, str]) -> Graph:
        """Return the graph over other nodes.

        Parameters
        ----------
        nodes
            The nodes in order.
        **roots
            New `outputs`, `gradients` or `updates`; the others stay.

        Returns
        -------
        Graph
            A new graph with the same losses.
        """
        kept = {"outputs": self.outputs, "gradients": self.gradients, "updates": self.updates}
        return Graph(self.name, nodes, losses=self.losses, **{**kept, **roots})

    def rename_reads(self, new: Mapping[str, str]) -> Graph:
        """Return a new graph in which users of some nodes, roots included, read others instead.

        Parameters
        ----------
        new
            For names of nodes, the names to read instead.

        Returns
        -------
        Graph
            The graph itself if `new` is empty.
        """
        return self._renamed(self, new) if new else self

    def _renamed(self, nodes: Iterable[Node], new: Mapping[str, str]) -> Graph:
        return self.with_nodes(
            (node.reading(new) for node in nodes),
            outputs={k: new.get(v, v) for k, v in self.outputs.items()},
            gradients={k: new.get(v, v) for k, v in self.gradients.items()},
            updates={k: new.get(v, v) for k, v in self.updates.items()},
        )

    def _check_roots(self) -> None:
        kinds = ("outputs", self.outputs), ("gradients", self.gradients), ("updates", self.updates)
        for kind, roots in kinds:
            if not all(map(self.nodes.__contains__, roots.values())):
                key, name = next(pair for pair in roots.items() if pair[1] not in self.nodes)
                raise GraphError(f"{kind} {key!r} reads {name!r}, which is not in the graph")
        if not all(map(self.nodes.__contains__, self.updates)):
            state = next(state for state in self.updates if state not in self.nodes)
            raise GraphError(f"update of {state!r}, which is not in the graph")
        for loss in self.losses:
            if loss not in self.outputs:
                raise GraphError(f"loss {loss!r} is not an output of the graph")


def _ordered(nodes: Iterable[Node]) -> dict[str, Node]:
    """Return the nodes by name; names must be unique, and operands first, which excludes cycles."""
    found: dict[str, Node] = {}
    for node in nodes:
        for operand in node.inputs:
            if operand not in found:
                raise GraphError(
                    f"{node.name!r} reads {operand!r}, which is not declared before it"
                )
        if node.name in found:
            raise GraphError(f"two nodes are named {node.name!r}")
        found[node.name] = node
    return found


def boundary(graph: Graph, order: Iterable[Node]) -> int:
    """Return the position in this order of the last node that an output depends on."""
    forward = graph.forward()
    return max((i for i, node in enumerate(order) if node.name in forward), default=-1)


def joint_results(nodes: Iterable[Node]) -> list[list[Node]]:
    """Return the nodes of each joint computation, such as a loop: `Op.joint` says which."""
    found: dict[object, list[Node]] = {}
    for node in nodes:
        if node.op.is_joint:
            found.setdefault((node.op.joint, node.inputs), []).append(node)
    return [*found.values()]
