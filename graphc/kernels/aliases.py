"""Values without memory of their own: users read another value's bytes, or recompute them."""

from __future__ import annotations

from collections.abc import Iterator

from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Shape, TensorType, count
from graphc.kernels.borders import Borders
from graphc.kernels.matrix import matrix
from graphc.kernels.traits import TraitsOf
from graphc.kernels.turned import is_readable, turned_strides
from graphc.kernels.views import View, sliced_columns
from graphc.ops.shape import Transpose


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
        return name if name in self.views else self.roots.get(name, name)

    def type(self, name: str) -> TensorType:
        """Return the type of a node."""
        return self.graph[name].type

    def reads(self, node: Node) -> Iterator[str]:
        """Yield the nodes whose bytes a node reads when it runs in a kernel."""
        roots, padded = self.roots, self.borders.padded
        for operand in node.inputs:
            if operand in self.inlined:
                yield from map(self.root, self.graph[operand].inputs)
            else:
                name = padded[operand].inputs[0] if operand in padded else operand
                yield roots.get(name, name)

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
        if fit is None or traits.along == "all" or node.type.rank < 2 or traits.reader is not None:
            return False
        if traits.space != matrix(node.type.shape) or node.type.shape[0] == 1:
            return False
        return all(
            span == "each"
            for operand, span in zip(user.inputs, fit.operands, strict=True)
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
        strides = turned_strides(self.type(source).shape, node.op.axes)
        if not is_readable(strides) or not all(self.reads_stacks(user) for user in users):
            return False
        self.strides[node.name] = strides
        self.roots[node.name] = self.root(source)
        return True

    def is_splat(self, node: Node) -> bool:
        """Return whether a node only repeats numbers, and only kernels read it."""
        if not self.traits(node).repeats or node.name in self.graph.roots:
            return False
        return all(self._is_fusable(self.graph[user]) for user in self.graph.users[node.name])

    def _is_fusable(self, node: Node) -> bool:
        traits = self.traits(node)
        return traits.product is None and traits.along != "call" and traits.reader is None

    def reads_stacks(self, node: Node) -> bool:
        """Return whether a node is a product of many matrices."""
        product = self.traits(node).product
        return product is not None and product.stacked
