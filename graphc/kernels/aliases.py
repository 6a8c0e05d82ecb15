"""Values without memory of their own: users read another value's bytes, or recompute them.

Products over windows handle pads and crops of images themselves:

    padded = pad(x)           y = conv(padded, w)          y = conv(x, w), 0 around x
    dp = conv_dx(dy, w)       dx = dp[inside]              dx = conv_dx(dy, w), inside alone

The padded value then needs no memory, and elements that would be cut away are not computed.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from graphc.ir.forms import BatchedProduct, Product, Sizes, WindowProduct
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Shape, TensorType, count
from graphc.kernels.iteration_space import is_readable, matrix, permuted_strides
from graphc.kernels.traits import TraitsOf


class Padding:
    """The pads and cuts that became part of window products; `forward` are the forward nodes."""

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
        if not isinstance(product, WindowProduct) or product.trans_a or len(users) != 1:
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
        if not isinstance(product, WindowProduct):
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

    def _image_start(self, node: Node) -> Sizes | None:
        """Return where a box of whole images and channels starts, or None for other nodes.

        None also if the box is empty, or its operand: there is nothing to multiply.
        """
        if len(node.inputs) != 1 or node.type.rank < 3:
            return None
        x = self._graph[node.inputs[0]].type
        start = node.op.box_start(x)
        if start is None or start[0] or start[-1] or 0 in (*x.shape, *node.type.shape):
            return None
        whole = (x.shape[0], x.shape[-1]) == (node.type.shape[0], node.type.shape[-1])
        return start if whole else None

    def _looks_at(self, user: Node, name: str) -> bool:
        product = self._traits(user).product
        windowed = isinstance(product, WindowProduct)
        return windowed and user.inputs.index(name) == 0 and name not in user.inputs[1:]


def _is_inside(start: Sizes, part: Shape, whole: Shape) -> bool:
    """Return whether a box of shape `part` lies in `whole` if it starts there."""
    sizes = zip(start[1:-1], _counted(part[1:-1]), _counted(whole[1:-1]), strict=True)
    return all(at >= 0 and at + size <= space for at, size, space in sizes)


def _counted(dims: Shape) -> Sizes:
    sizes = tuple(dim for dim in dims if isinstance(dim, int))
    assert len(sizes) == len(dims), "the dimensions of space are counted"
    return sizes


@dataclass(frozen=True, slots=True)
class View:
    """Columns of `root` from `start` on; rows are `pitch` elements from each other."""

    root: str
    start: int
    pitch: int


@dataclass(frozen=True, slots=True)
class Part:
    """Columns `start` to before `stop` of a result, and the operand copied there; None is 0."""

    start: int
    stop: int
    operand: str | None


class Aliases:
    """The memory of the nodes visited so far, in the order of the schedule."""

    def __init__(self, graph: Graph, traits: TraitsOf, padding: Padding) -> None:
        self.graph, self.traits, self.padding = graph, traits, padding
        self.roots: dict[str, str] = {}
        """For an alias the node whose bytes it shares."""
        self.views: dict[str, View] = {}
        """For an alias of only some columns of its root, those columns."""
        self.strides: dict[str, Shape] = {}
        """For an alias that permutes the axes of its root, its strides in elements."""
        self._buffers: dict[str, str] = {}
        """For a node that kernels do not read by its name, the buffer that they read."""
        self.inlined: set[str] = set()
        """The broadcast numbers, which each user recomputes."""

    def root(self, name: str) -> str:
        """Return the node whose bytes `name` shares."""
        return self.roots.get(name, name)

    def bytes_of(self, name: str) -> str:
        """Return the buffer that a kernel reads for `name`: its root, or its view of columns."""
        return self._buffers.get(name, name)

    def reads_views(self, node: Node) -> bool:
        """Return whether a node reads only some columns of an operand's root."""
        return not self.views.keys().isdisjoint(node.inputs)

    def type(self, name: str) -> TensorType:
        """Return the type of a node."""
        return self.graph[name].type

    def reads(self, node: Node) -> list[str]:
        """Return the nodes whose bytes a node reads when it runs in a kernel."""
        found: list[str] = []
        roots, pads = self.roots, self.padding.pads
        for operand in node.inputs:
            if operand in self.inlined:
                found.extend(map(self.root, self.graph[operand].inputs))
            else:
                source = pads[operand].inputs[0] if operand in pads else operand
                found.append(roots.get(source, source))
        return found

    def add_alias(self, node: Node) -> None:
        """Record a node that shares the bytes of its operand."""
        self.roots[node.name] = self._buffers[node.name] = self.root(node.inputs[0])

    def add_pad(self, node: Node) -> None:
        """Record a pad that the windows which read it handle."""
        self.padding.pads[node.name] = node
        self._buffers[node.name] = self.bytes_of(node.inputs[0])

    def add_view(self, node: Node) -> bool:
        """Record a node that users can read from its operand's bytes; return whether it is one."""
        columns, strides = self.columns_of(node), self.strides_of(node)
        if columns is not None:
            self._add_columns(node, columns)
        elif strides is not None:
            self.strides[node.name] = strides
            self.add_alias(node)
        return columns is not None or strides is not None

    def columns_of(self, node: Node) -> tuple[int, int] | None:
        """Return the columns of a node's operand that users can read in its place, or None."""
        x = self.type(node.inputs[0]) if len(node.inputs) == 1 else None
        columns = sliced_columns(node, x) if x is not None else None
        if columns is None or node.name in self.graph.roots:
            return None
        users = [self.graph[user] for user in self.graph.users[node.name]]
        return columns if all(self._reads_each(user, node) for user in users) else None

    def _add_columns(self, node: Node, columns: tuple[int, int]) -> None:
        source = node.inputs[0]
        width = count(self.type(source).shape[1:])
        assert isinstance(width, int), "sliced columns are counted"
        self.add_alias(node)
        outer = self.views.get(source)
        if outer is not None or columns != (0, width):  # all columns are the value itself
            outer = outer or View(self.root(source), 0, width)
            self.views[node.name] = View(outer.root, outer.start + columns[0], outer.pitch)
            self._buffers[node.name] = node.name

    def _reads_each(self, user: Node, node: Node) -> bool:
        """Return whether a node reads another at the same elements of its own matrix."""
        traits, flat = self.traits(user), user.type.rank == 2
        if traits.product is not None:
            return node.name in user.inputs[:2] and node.name not in user.inputs[2:] and flat
        placement = traits.placement
        if placement is None or traits.iteration == "all" or traits.gather is not None:
            return False
        shape = node.type.shape
        if node.type.rank < 2 or traits.space != matrix(shape) or shape[0] == 1:
            return False
        return all(
            broadcast == "each"
            for operand, broadcast in zip(user.inputs, placement.operands, strict=True)
            if operand == node.name
        )

    def strides_of(self, node: Node) -> Shape | None:
        """Return the strides by which users can read a node in its operand, or None."""
        axes = node.op.permutation
        if axes is None or node.name in self.graph.roots:
            return None
        (source,) = node.inputs
        users = [self.graph[user] for user in self.graph.users[node.name]]
        if source in self.views or source in self.strides or not users:
            return None
        strides = permuted_strides(self.type(source).shape, axes)
        readable = is_readable(strides) and all(self.reads_stacks(user) for user in users)
        return strides if readable else None

    def is_read_by_loops(self, node: Node) -> bool:
        """Return whether only loops read a node, and none of them gathers."""
        if node.name in self.graph.roots:
            return False
        users = [self.traits(self.graph[user]) for user in self.graph.users[node.name]]
        return all(
            user.product is None and user.iteration != "call" and user.gather is None
            for user in users
        )

    def reads_stacks(self, node: Node) -> bool:
        """Return whether a node is a product of many matrices."""
        return isinstance(self.traits(node).product, BatchedProduct)


def sliced_columns(node: Node, x: TensorType) -> tuple[int, int] | None:
    """Return the range of columns of x that a node is a slice of, or None."""
    start, width = node.op.box_start(x), count(x.shape[1:])
    columns = None if start is None else _columns(start, node.type.shape, x.shape)
    if columns is None or not isinstance(width, int):
        return None
    return columns if columns[0] >= 0 and columns[1] <= width else None


def joined_columns(node: Node, ins: list[TensorType]) -> list[Part] | None:
    """Return the columns of each operand that a node concatenates, and of zeros, or None."""
    starts, shape = node.op.operand_starts(ins), node.type.shape
    width = count(shape[1:])
    if starts is None or not isinstance(width, int):
        return None
    parts: list[Part] = []
    end = 0
    for name, type, start in zip(node.inputs, ins, starts, strict=True):
        columns = _columns(start, type.shape, shape)
        if columns is None:
            return None
        parts += [Part(end, columns[0], None), Part(*columns, name)]
        end = columns[1]
    parts.append(Part(end, width, None))
    return [part for part in parts if part.start < part.stop] or None


def _columns(start: tuple[int, ...], part: Shape, whole: Shape) -> tuple[int, int] | None:
    """Return the range of columns of a matrix that a box covers, or None."""
    if len(whole) < 2 or (part[0], *part[2:]) != (whole[0], *whole[2:]):
        return None
    size, rest = part[1], count(whole[2:])
    if start[0] or any(start[2:]) or not isinstance(size, int) or not isinstance(rest, int):
        return None
    return start[1] * rest, (start[1] + size) * rest
