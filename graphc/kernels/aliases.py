"""Values without memory of their own: users read another value's bytes, or recompute them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import Shape, TensorType, count, normal_axis
from graphc.kernels.iteration_space import is_number, is_readable, matrix, permuted_strides
from graphc.kernels.padding import Borders
from graphc.kernels.traits import TraitsOf
from graphc.ops.concat import Concat
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Cut, Slice, SliceGrad


@dataclass(frozen=True, slots=True)
class View:
    """Columns of `root` from `start` on; rows are `pitch` elements apart."""

    root: str
    start: int
    pitch: int


@dataclass(frozen=True, slots=True)
class Part:
    """Columns `start` to before `stop` of a result, and the operand copied there; None is 0."""

    start: int
    stop: int
    operand: str | None


def sliced_columns(op: Op, x: TensorType) -> tuple[int, int] | None:
    """Return the first and the end of the neighbouring columns that a slice takes, or None."""
    return _columns(op.cuts, x.shape) if isinstance(op, Slice) else None


def joined_columns(op: Op, names: tuple[str, ...], ins: list[TensorType]) -> list[Part] | None:
    """Return the columns of each operand of an op that puts them side by side, or None."""
    if isinstance(op, Concat):
        return _concatenated(op, names, ins)
    if not isinstance(op, SliceGrad):
        return None
    columns, width = _columns(op.cuts, op.shape), count(op.shape[1:])
    if columns is None or not isinstance(width, int):
        return None
    start, stop = columns
    parts = [Part(0, start, None), Part(start, stop, names[0]), Part(stop, width, None)]
    return [part for part in parts if part.start < part.stop]


def _concatenated(op: Concat, names: tuple[str, ...], ins: list[TensorType]) -> list[Part] | None:
    if ins[0].rank < 2 or normal_axis(op.axis, ins[0].rank) != 1:
        return None
    parts: list[Part] = []
    start = 0
    for name, type in zip(names, ins, strict=True):
        width = count(type.shape[1:])
        if not isinstance(width, int):
            return None
        parts.append(Part(start, start + width, name))
        start += width
    return parts


def _columns(cuts: tuple[Cut, ...], shape: Shape) -> tuple[int, int] | None:
    if len(cuts) != 1 or len(shape) < 2:
        return None
    axis, start, stop, step = cuts[0]
    rest = count(shape[2:])
    if axis != 1 or step != 1 or not isinstance(rest, int):
        return None
    if not isinstance(start, int) or not isinstance(stop, int):
        return None
    return start * rest, stop * rest


class Aliases:
    """The memory of each node, as far as nodes were visited in order."""

    def __init__(self, graph: Graph, traits: TraitsOf, borders: Borders) -> None:
        self.graph, self.traits, self.borders = graph, traits, borders
        self.roots: dict[str, str] = {}
        """For an alias the node whose bytes it shares."""
        self.views: dict[str, View] = {}
        """For an alias of only some columns of its root, those columns."""
        self.strides: dict[str, Shape] = {}
        """For an alias that permutes the axes of its root, its strides in elements."""
        self.inlined: set[str] = set()
        """The broadcast numbers, which each user recomputes."""

    def root(self, name: str) -> str:
        """Return the node whose bytes `name` shares."""
        return self.roots.get(name, name)

    def bytes_of(self, name: str) -> str:
        """Return the buffer that a kernel reads for `name`: its root, or its view of columns."""
        name = self.borders.source(name)
        return name if name in self.views else self.root(name)

    def type(self, name: str) -> TensorType:
        """Return the type of a node."""
        return self.graph[name].type

    def reads(self, node: Node) -> Iterator[str]:
        """Yield the nodes whose bytes a node reads when it runs in a kernel."""
        for operand in node.inputs:
            if operand in self.inlined:
                yield from map(self.root, self.graph[operand].inputs)
            else:
                yield self.root(self.borders.source(operand))

    def is_view(self, node: Node) -> bool:
        """Return whether users can read a node as columns of its operand; record it if so."""
        x = self.type(node.inputs[0]) if len(node.inputs) == 1 else None
        columns = sliced_columns(node.op, x) if x is not None else None
        if x is None or columns is None or node.name in self.graph.roots:
            return False
        if not all(
            self._reads_each(self.graph[user], node) for user in self.graph.users[node.name]
        ):
            return False
        width = count(x.shape[1:])
        assert isinstance(width, int), "sliced columns are counted"
        self.roots[node.name] = self.root(node.inputs[0])
        outer = self.views.get(node.inputs[0])
        if outer is not None or columns != (0, width):  # all columns are the value itself
            outer = outer or View(self.root(node.inputs[0]), 0, width)
            self.views[node.name] = View(outer.root, outer.start + columns[0], outer.pitch)
        return True

    def _reads_each(self, user: Node, node: Node) -> bool:
        """Return whether a node reads another element by element of its own matrix."""
        traits, flat = self.traits(user), user.type.rank == 2
        if traits.product is not None:
            return node.name in user.inputs[:2] and node.name not in user.inputs[2:] and flat
        fit = traits.fit
        if (
            fit is None
            or traits.iteration == "all"
            or node.type.rank < 2
            or traits.reader is not None
        ):
            return False
        if traits.space != matrix(node.type.shape) or node.type.shape[0] == 1:
            return False
        return all(
            broadcast == "each"
            for operand, broadcast in zip(user.inputs, fit.operands, strict=True)
            if operand == node.name
        )

    def is_turned(self, node: Node) -> bool:
        """Return whether users can read a node as a permuted view of another; record it if so."""
        if not isinstance(node.op, Transpose) or node.name in self.graph.roots:
            return False
        (source,) = node.inputs
        users = [self.graph[user] for user in self.graph.users[node.name]]
        if source in self.views or source in self.strides or not users:
            return False
        strides = permuted_strides(self.type(source).shape, node.op.axes)
        if not is_readable(strides) or not all(self.reads_stacks(user) for user in users):
            return False
        self.strides[node.name] = strides
        self.roots[node.name] = self.root(source)
        return True

    def is_splat(self, node: Node) -> bool:
        """Return whether a node only repeats numbers, and only kernels read it."""
        traits = self.traits(node)
        small = all(is_number(type) for type in traits.ins)
        if not small or is_number(node.type) or traits.iteration != "elements":
            return False
        if node.op.is_random or traits.reader is not None:
            return False
        if node.name in self.graph.roots or not node.inputs:
            return False
        return all(self._is_fusable(self.graph[user]) for user in self.graph.users[node.name])

    def _is_fusable(self, node: Node) -> bool:
        traits = self.traits(node)
        return traits.product is None and traits.iteration != "call" and traits.reader is None

    def reads_stacks(self, node: Node) -> bool:
        """Return whether a node is a product of many matrices."""
        product = self.traits(node).product
        return product is not None and product.stacked
