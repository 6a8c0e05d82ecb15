"""Borders of images, handled by the window products themselves.

    padded = pad(x)           y = conv(padded, w)          y = conv(x, w), 0 around x
    dp = conv_dx(dy, w)       dx = dp[inside]              dx = conv_dx(dy, w), inside alone

The padded value then needs no memory, and elements that would be cut away are not computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.ir.forms import Product, Sizes
from graphc.ir.graph import Graph, Node
from graphc.kernels.traits import TraitsOf
from graphc.ops.pad import Pad
from graphc.ops.slicing import Slice


class Borders:
    """The pads and slices of a graph that become part of its window products.

    `place` is the number of each node in the order, of which the first `boundary` are forward.
    """

    def __init__(
        self, graph: Graph, traits: TraitsOf, place: Mapping[str, int], boundary: int
    ) -> None:
        self._graph, self._traits, self._place, self._border = graph, traits, place, boundary
        self.padded: dict[str, Node] = {}
        """The pads that only windows read, by name."""
        self._cut: dict[str, Slice] = {}

    def takes_pad(self, node: Node) -> bool:
        """Return whether a node is a pad that the windows over it can handle; record it if so."""
        found = isinstance(node.op, Pad) and self._is_around_images(node.op)
        users = self._graph.users[node.name]
        if not found or not users or node.name in self._graph.roots:
            return False
        if not all(self._looks_at(self._graph[user], node.name) for user in users):
            return False
        self.padded[node.name] = node
        return True

    def with_cut(self, node: Node) -> Node:
        """Return the node, joined with the slice of its inside if only that reads it.

        Only a product is joined.  The result has the name of the slice, and its type.
        """
        inside = self._inside_of(node)
        if inside is None:
            return node
        assert isinstance(inside.op, Slice)
        self._cut[inside.name] = inside.op
        locs = tuple(dict.fromkeys((*node.locs, *inside.locs)))
        return Node(inside.name, node.op, node.inputs, inside.type, locs)

    def product(self, node: Node) -> Product | None:
        """Return a node's form as a product, borders included, or None if it is not a product."""
        product = self._traits(node).product
        if product is None or product.window is None:
            return product
        window, pad = product.window, self.padded.get(node.inputs[0])
        if pad is not None:
            assert isinstance(pad.op, Pad)
            space = _fixed(self._graph[pad.inputs[0]].type.shape[1:-1])
            pads = [before for before, _ in pad.op.pads[1:-1]]
            terms = zip(window.before, pads, window.divisor, strict=True)
            before = tuple(b + p * apart for b, p, apart in terms)
            window = replace(window, space=space, before=before)
        cut = self._cut.get(node.name)
        if cut is not None:
            starts = {axis: start for axis, start, _, _ in cut.cuts}
            before = tuple(b - _whole(starts.get(i + 1, 0)) for i, b in enumerate(window.before))
            window = replace(window, places=_fixed(node.type.shape[1:-1]), before=before)
        return replace(product, window=window)

    def source(self, name: str) -> str:
        """Return the operand of a pad that windows handle, or the name itself."""
        pad = self.padded.get(name)
        return name if pad is None else pad.inputs[0]

    def _is_around_images(self, op: Pad) -> bool:
        return op.value == 0 and len(op.pads) > 2 and not any((*op.pads[0], *op.pads[-1]))

    def _looks_at(self, user: Node, name: str) -> bool:
        product = self._traits(user).product
        windowed = product is not None and product.window is not None
        return windowed and user.inputs.index(name) == 0 and name not in user.inputs[1:]

    def _inside_of(self, node: Node) -> Node | None:
        product, users = self._traits(node).product, self._graph.users[node.name]
        if product is None or product.window is None or product.trans_a or len(users) != 1:
            return None
        user = self._graph[next(iter(users))]
        if not isinstance(user.op, Slice) or node.name in self._graph.roots:
            return None
        forward = [self._place[name] < self._border for name in (node.name, user.name)]
        inner = all(0 < axis < node.type.rank - 1 for axis, *_ in user.op.cuts)
        dense = all(step == 1 for *_, step in user.op.cuts)
        return user if forward[0] == forward[1] and inner and dense else None


def _fixed(dims: tuple[object, ...]) -> Sizes:
    return tuple(map(_whole, dims))


def _whole(dim: object) -> int:
    assert isinstance(dim, int), "the dimensions of space are counted"
    return dim
