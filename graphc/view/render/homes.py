"""The declared layer that each node of a compiled graph belongs to."""

from __future__ import annotations

from collections.abc import Container, Mapping

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Source


class Homes:
    """The layers of a picture, and the layer of every node that is drawn in them.

    Names decide: `bn1.mean` is a part of `bn1`, `d_bn1` and `d_bn1.x` are gradients at `bn1`.  A
    source is drawn with the layer it is named after, or with the first that reads it.
    """

    def __init__(self, declared: Graph, compiled: Graph, forward: Container[str]) -> None:
        self.known: Mapping[str, Node] = _declared_nodes(declared, compiled, forward)
        self.declared = declared
        self.merged: dict[str, str] = {}
        self.merged = _merged(declared, _working(self, compiled, forward))

    def origin(self, name: str) -> str:
        """Return the declared node that a compiled node is a part or a gradient of, else `name`."""
        rest = name
        while True:
            found = _longest(rest, self.known)
            if found is not None:
                return found
            if not rest.startswith("d_"):
                return name
            rest = rest[2:]

    def layer(self, name: str) -> str:
        """Return the layer that a compiled node is drawn in."""
        origin = self.origin(name)
        node = self.known.get(origin)
        if node is not None and isinstance(node.op, Source):
            origin = self._source_layer(origin)
        return self.merged.get(origin, origin)

    def _source_layer(self, name: str) -> str:
        if self.known[name].op.name == "input":
            return name
        owner = _longest(name.rpartition(".")[0], self.known)
        if owner is not None:
            return owner
        readers = self.declared.users.get(name, ()) if name in self.declared else ()
        return readers[0] if readers else name

    def made_of(self, layer: str) -> list[str]:
        """Return the layers that a fused layer is made of, in declared order, itself last."""
        return [*(name for name, into in self.merged.items() if into == layer), layer]


def _longest(name: str, known: Container[str]) -> str | None:
    """Return the longest path prefix of `name` that is known, or None."""
    while name:
        if name in known:
            return name
        name = name.rpartition(".")[0]
    return None


def _declared_nodes(
    declared: Graph, compiled: Graph, forward: Container[str]
) -> Mapping[str, Node]:
    """Return the declared nodes.

    Of a compiled graph alone, return the forward nodes that are not parts of others.
    """
    if declared is not compiled:
        return declared.nodes
    return {
        node.name: node
        for node in compiled
        if node.name in forward and not _is_part(node, compiled)
    }


def _is_part(node: Node, graph: Graph) -> bool:
    whole = _longest(node.name.rpartition(".")[0], graph)
    return whole is not None and not isinstance(node.op, Source)


def _working(homes: Homes, compiled: Graph, forward: Container[str]) -> dict[str, str]:
    """Return the layers that have forward nodes, each with the op of the node of its name."""
    found: dict[str, str] = {}
    for node in compiled:
        if node.name in forward and not isinstance(node.op, Source):
            layer = homes.layer(node.name)
            found.setdefault(layer, "")
            if node.name == layer:
                found[layer] = node.op.name
    return found


def _merged(declared: Graph, working: Mapping[str, str]) -> dict[str, str]:
    """Return the layers that were fused into their only user, whose op then includes their name."""
    into: dict[str, str] = {}
    for node in reversed(list(declared)):
        users = set(declared.users[node.name])
        if node.name in working or isinstance(node.op, Source) or len(users) != 1:
            continue
        user = users.pop()
        target = into.get(user, user)
        if node.op.name in working.get(target, ""):
            into[node.name] = target
    return dict(reversed(into.items()))
