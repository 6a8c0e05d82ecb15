"""Move transposes behind what may as well come first, so that they meet others and cancel.

    t = transpose(x)  axes=(1, 0, 2)        m.matmul_1 = matmul(x, w)
    m = matmul(t, w)                  ->    a.exp_1 = exp(m.matmul_1)
    a = exp(m)                              y = tanh(a.exp_1)
    b = transpose(a)  axes=(1, 0, 2)
    y = tanh(b)

Reshapes, slices, ops on elements, and products with a matrix may come first.  A value behind a
transpose is known as a base, whose axes are cut as finely as reshapes need, and their order.  What
comes first is computed of the base; a transpose is made only for nodes that need it.  If the
result transposes as many bytes as before, the graph stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import Batch, Dim, Shape, count
from graphc.ops.linalg import MatMul
from graphc.ops.shape import Reshape, Transpose, reshape, transpose
from graphc.ops.slicing import Slice
from passes.channels_last import ON_ELEMENTS
from passes.contract import graph_pass, pinned

Axes = tuple[int, ...]


@graph_pass(preserves="reassociated")
def join_transposes(graph: Graph) -> Graph:
    """Return the graph in which fewer bytes are transposed."""
    before = _transposed_bytes(graph)
    if before == 0:
        return graph
    rewriter = _Rewriter(graph)
    for node in graph:
        rewriter.take(node)
    result = rewriter.graph().pruned()
    return result if _transposed_bytes(result) < before else graph


def _transposed_bytes(graph: Graph) -> int:
    return sum(node.type.nbytes(1) for node in graph if isinstance(node.op, Transpose))


@dataclass(frozen=True)
class _Moved:
    """A value of `shape` that is a transpose of a base, seen with dimensions of `sizes`.

    No size is 1.  `axes` are those of `sizes`, in the order of the value.
    """

    base: Value
    sizes: Shape
    axes: Axes
    shape: Shape

    def value(self, name: str) -> Value:
        """Add the nodes that compute the value, the last with a name."""
        base, axes = self.base, self.axes
        if not self.is_in_order():
            order = tuple(self.sizes[axis] for axis in axes)
            last = name if order == self.shape else None
            base = transpose(_reshaped(base, self.sizes), axes, name=last)
        return _reshaped(base, self.shape, name)

    def is_in_order(self) -> bool:
        """Return whether nothing is transposed."""
        return self.axes == tuple(range(len(self.axes)))

    def is_like(self, other: _Moved) -> bool:
        """Return whether another base is transposed in the same way."""
        return (self.sizes, self.axes) == (other.sizes, other.axes)

    def split(self, shape: Shape) -> tuple[_Moved, list[Axes]] | None:
        """Return the value in another shape and each dimension's axes; None if no cut fits."""
        parts: list[list[Dim]] = [[] for _ in self.sizes]
        order: list[tuple[int, int]] = []
        groups: list[list[int]] = []
        left = list(self.axes)
        rest: Dim = 1
        for dim in shape:
            groups.append([])
            while dim != 1:
                if rest == 1:
                    rest = self.sizes[left[0]]
                cut = dim if _quotient(rest, dim) is not None else rest
                over, under = _quotient(rest, cut), _quotient(dim, cut)
                if over is None or under is None:
                    return None
                groups[-1].append(len(order))
                order.append((left[0], len(parts[left[0]])))
                parts[left[0]].append(cut)
                rest, dim = over, under
                if rest == 1:
                    del left[0]
        starts = [sum(map(len, parts[:axis])) for axis in range(len(parts))]
        axes = tuple(starts[axis] + number for axis, number in order)
        sizes = tuple(size for part in parts for size in part)
        moved = _Moved(self.base, sizes, axes, shape)
        return moved, [tuple(axes[i] for i in group) for group in groups]


def _quotient(dim: Dim, by: Dim) -> Dim | None:
    """Return a dimension divided by another, or None if that is none."""
    factor, power = (dim.factor, dim.power) if isinstance(dim, Batch) else (dim, 0)
    other, less = (by.factor, by.power) if isinstance(by, Batch) else (by, 0)
    if other == 0 or factor % other or power < less:
        return None
    whole = factor // other
    return Batch(whole, power - less) if power > less else whole


def _reshaped(x: Value, shape: Shape, name: str | None = None) -> Value:
    """Return x in a shape, by one reshape or none."""
    if x.shape == shape:
        return x
    source = x.builder.value(x.node.inputs[0]) if isinstance(x.node.op, Reshape) else x
    return source if source.shape == shape else reshape(source, shape, name=name)


class _Rewriter:
    """One traversal of the graph, which builds the new one."""

    def __init__(self, graph: Graph) -> None:
        self.old = graph
        self.b = Builder.like(graph)
        self.pins = pinned(graph)
        self.scopes = {f"{name.rpartition('.')[0]}." for name in graph.nodes}
        self.moved: dict[str, _Moved] = {}
        """The nodes that come behind a transpose, by name."""
        self.new: dict[str, str] = {}
        """The values of these nodes, as far as others need them, and of those in order again."""

    def graph(self) -> Graph:
        """Return the new graph."""
        old = self.old
        for name in [*old.outputs.values(), *old.gradients.values(), *old.updates.values()]:
            self._value(name)
        self.b.take_roots(old, self.new)
        return self.b.graph()

    def take(self, node: Node) -> None:
        """Build the node, or note that it comes behind a transpose."""
        self.b.scope = self._scope(node.name)
        with self.b.at(node.locs):
            made = None if node.name in self.pins else self._behind(node)
            if made is None:
                self.b.insert(node.reading({x: self._value(x).name for x in node.inputs}))
            elif made.is_in_order():
                self.new[node.name] = made.value(node.name).name
            else:
                self.moved[node.name] = made

    def _scope(self, name: str) -> str:
        """Return the start of names that no node of the old graph has."""
        scope = f"{name}."
        while scope in self.scopes:
            scope += "first."
        return scope

    def _value(self, name: str) -> Value:
        """Return a value of the old graph, for which a transpose may be made."""
        if name in self.moved and name not in self.new:
            with self.b.at(self.old[name].locs):
                self.new[name] = self.moved[name].value(name).name
        return self.b.value(self.new.get(name, name))

    def _shape(self, name: str) -> Shape:
        return self.old[name].type.shape

    def _behind(self, node: Node) -> _Moved | None:
        """Return the node as a transpose of what comes first, or None."""
        op = node.op
        if count(node.type.shape) == 0:
            return None
        if isinstance(op, Transpose):
            (name,) = node.inputs
            return self._transpose(op, self.moved.get(name) or _as_it_is(self._value(name)))
        if isinstance(op, ON_ELEMENTS):
            return self._of_elements(node)
        x = self.moved.get(node.inputs[0]) if node.inputs else None
        if x is None:
            return None
        if isinstance(op, Reshape):
            found = x.split(node.type.shape)
            return None if found is None else found[0]
        if isinstance(op, Slice):
            return self._slice(node, op, x)
        return self._product(node, op, x) if isinstance(op, MatMul) else None

    def _transpose(self, op: Transpose, x: _Moved) -> _Moved | None:
        """Return the transpose of a transpose."""
        found = x.split(x.shape)
        if found is None:
            return None
        fine, groups = found
        order = tuple(axis for number in op.axes for axis in groups[number])
        return _Moved(x.base, fine.sizes, order, tuple(x.shape[axis] for axis in op.axes))

    def _slice(self, node: Node, op: Slice, x: _Moved) -> _Moved | None:
        """Return the slice of the base, if each cut dimension is one of its axes."""
        found = x.split(x.shape)
        if found is None:
            return None
        fine, groups = found
        if any(len(groups[axis]) != 1 for axis, *_ in op.cuts):
            return None
        cuts = tuple((groups[axis][0], a, z, step) for axis, a, z, step in op.cuts)
        part = self.b.apply(Slice(cuts), _reshaped(x.base, fine.sizes))
        return _without_ones(part, fine.axes, node.type.shape)

    # ------------------------------------------------------------------ ops on elements

    def _of_elements(self, node: Node) -> _Moved | None:
        """Return the op on bases that are transposed alike, on numbers, and on rows of columns."""
        shape = node.type.shape
        whole = [name for name in node.inputs if self._shape(name) == shape]
        if not whole or any(name not in self.moved for name in whole):
            return None
        found = [self.moved[name].split(shape) for name in whole]
        if found[0] is None or any(x is None or not x[0].is_like(found[0][0]) for x in found):
            return None
        fine, groups = found[0]
        sizes, axes = fine.sizes, fine.axes
        others = {self._shape(name) for name in node.inputs if name not in whole}
        if not all(count(other[:-1]) == 1 for other in others):
            return None  # one has several rows
        if any(count(other) != 1 for other in others):
            if not _ends(groups[-1], len(sizes)):
                return None
            sizes, axes = _with_last(sizes, axes, groups[-1], shape[-1])
        operands = [
            _reshaped(self.moved[name].base, sizes)
            if name in whole
            else _reshaped(self._value(name), _squeezed(self._shape(name)))
            for name in node.inputs
        ]
        return _Moved(self.b.apply(node.op, *operands), sizes, axes, shape)

    # ------------------------------------------------------------------ products

    def _product(self, node: Node, op: MatMul, x: _Moved) -> _Moved | None:
        """Return the product of the base, if its columns are or become its last axis."""
        weight = node.inputs[1]
        found = x.split(x.shape)
        if found is None or op.trans_a or len(self._shape(weight)) != 2:
            return None
        fine, groups = found
        columns = _columns_last(fine, groups[-1])
        if columns is None:
            return None
        base, sizes, axes = columns
        sizes, axes = _with_last(sizes, axes, _last(len(groups[-1]), len(sizes)), x.shape[-1])
        product = self.b.apply(op, _reshaped(base, sizes), self._value(weight))
        return _without_ones(product, axes, node.type.shape)


def _columns_last(x: _Moved, columns: Axes) -> tuple[Value, Shape, Axes] | None:
    """Return a base, sizes and axes of x with its columns last; None if no rows are moved then."""
    rank = len(x.sizes)
    rows = [axis for axis in range(rank) if axis not in columns]
    if not rows or not columns:
        return None
    if _ends(columns, rank):
        return x.base, x.sizes, x.axes
    if rows == [axis for axis in x.axes if axis in rows]:
        return None
    order = (*rows, *columns)
    base = transpose(_reshaped(x.base, x.sizes), order)
    return base, base.shape, tuple(order.index(axis) for axis in x.axes)


def _squeezed(shape: Shape) -> Shape:
    return tuple(dim for dim in shape if dim != 1)


def _last(number: int, rank: int) -> Axes:
    return tuple(range(rank - number, rank))


def _ends(axes: Axes, rank: int) -> bool:
    """Return whether these are the last axes, in order."""
    return len(axes) > 0 and axes == _last(len(axes), rank)


def _with_last(sizes: Shape, axes: Axes, last: Axes, size: Dim) -> tuple[Shape, Axes]:
    """Return sizes and axes with the last axes joined to one."""
    first = len(sizes) - len(last)
    return (*sizes[:first], size), (*(axis for axis in axes if axis < first), first)


def _as_it_is(base: Value) -> _Moved:
    """Return a value in its own order."""
    return _without_ones(base, range(base.type.rank), base.shape)


def _without_ones(base: Value, axes: Sequence[int], shape: Shape) -> _Moved:
    """Return a transpose of a base, of which axes of one entry are left out."""
    kept = [axis for axis, size in enumerate(base.shape) if size != 1]
    order = tuple(kept.index(axis) for axis in axes if axis in kept)
    return _Moved(base, _squeezed(base.shape), order, shape)
