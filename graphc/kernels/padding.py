"""Pads and crops of images that products over windows handle themselves.

    padded = pad(x)           y = conv(padded, w)          y = conv(x, w), 0 around x
    dp = conv_dx(dy, w)       dx = dp[inside]              dx = conv_dx(dy, w), inside alone

The padded value then needs no memory, and elements that would be cut away are not computed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from graphc.ir.forms import Product, Sizes
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Shape
from graphc.kernels.traits import TraitsOf


class Padding:
    """The pads and cuts of a graph that became part of its window products.

    `forward` are the nodes of the forward part.
    """

    def __init__(self, graph: Graph, traits: TraitsOf, forward: Collection[str]) -> None:
        self._graph, self._traits, self._forward = graph, traits, forward
        self.pads: dict[str, Node] = {}
        """The pads that only windows read, by name."""
        self._cuts: dict[str, Sizes] = {}
        """For each product joined with a cut, where its result starts in each dimension."""

    def is_pad(self, node: Node) -> bool:
        """Return whether a node is a pad that the windows over it can handle."""
        start = self._image_start(node)
        users = self._graph.users[node.name]
        if start is None or not users or node.name in self._graph.roots:
            return False
        if not all(self._looks_at(self._graph[user], node.name) for user in users):
            return False
        x = self._graph[node.inputs[0]].type
        return _is_inside(tuple(-at for at in start), x.shape, node.type.shape)

    def cut_of(self, node: Node) -> Node | None:
        """Return the cut that alone reads a window product, if the product can make it itself."""
        product, users = self._traits(node).product, self._graph.users[node.name]
        if product is None or product.window is None or product.trans_a or len(users) != 1:
            return None
        user = self._graph[next(iter(users))]
        start = self._image_start(user)
        if start is None or node.name in self._graph.roots:
            return None
        together = (node.name in self._forward) == (user.name in self._forward)
        return user if together and _is_inside(start, user.type.shape, node.type.shape) else None

    def joined(self, node: Node, cut: Node) -> Node:
        """Return a product that makes the cut of its result itself; it has the name of the cut."""
        start = self._image_start(cut)
        assert start is not None, "it was found by cut_of"
        self._cuts[cut.name] = start
        locs = tuple(dict.fromkeys((*node.locs, *cut.locs)))
        return Node(cut.name, node.op, node.inputs, cut.type, locs)

    def product(self, node: Node) -> Product | None:
        """Return a node's form as a product, padding included, or None if it is not a product."""
        product = self._traits(node).product
        if product is None or product.window is None:
            return product
        window, pad, cut = product.window, self.pads.get(node.inputs[0]), self._cuts.get(node.name)
        if pad is not None:
            start = self._image_start(pad)
            assert start is not None, "it was found by is_pad"
            space = _counted(self._graph[pad.inputs[0]].type.shape[1:-1])
            terms = zip(window.before, start[1:-1], window.divisor, strict=True)
            before = tuple(b - at * divisor for b, at, divisor in terms)
            window = replace(window, space=space, before=before)
        if cut is not None:
            before = tuple(b - at for b, at in zip(window.before, cut[1:-1], strict=True))
            window = replace(window, places=_counted(node.type.shape[1:-1]), before=before)
        return replace(product, window=window)

    def source(self, name: str) -> str:
        """Return the operand of a pad that windows handle, or the name itself."""
        pad = self.pads.get(name)
        return name if pad is None else pad.inputs[0]

    def _image_start(self, node: Node) -> Sizes | None:
        """Return where a box of whole images and channels starts, or None for other nodes."""
        if len(node.inputs) != 1 or node.type.rank < 3:
            return None
        x = self._graph[node.inputs[0]].type
        start = node.op.box_start(x)
        if start is None or start[0] or start[-1]:
            return None
        whole = (x.shape[0], x.shape[-1]) == (node.type.shape[0], node.type.shape[-1])
        return start if whole else None

    def _looks_at(self, user: Node, name: str) -> bool:
        product = self._traits(user).product
        windowed = product is not None and product.window is not None
        return windowed and user.inputs.index(name) == 0 and name not in user.inputs[1:]


def _is_inside(start: Sizes, part: Shape, whole: Shape) -> bool:
    """Return whether a box of shape `part` lies in `whole` if it starts there."""
    sizes = zip(start[1:-1], _counted(part[1:-1]), _counted(whole[1:-1]), strict=True)
    return all(at >= 0 and at + size <= space for at, size, space in sizes)


def _counted(dims: Shape) -> Sizes:
    sizes = tuple(dim for dim in dims if isinstance(dim, int))
    assert len(sizes) == len(dims), "the dimensions of space are counted"
    return sizes
