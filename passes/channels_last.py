"""Keep the channels of images last between the layers that need them there.

    a = transpose(p, (0, 3, 1, 2))          a.pixels = reshape(p, (N*h*w, c))
    b = relu(a)                       ->    b.pixels = relu(a.pixels)
    c = transpose(b, (0, 2, 3, 1))          c = reshape(b.pixels, (N, h, w, c))

Ops on elements, joins, slices and pads whose operands were transposed to channels first run before
the transpose instead.  They run on a matrix with a row for each pixel if each operand is one number
for each pixel and channel, for each channel, or one number, which kernels fuse best; else on the
image with its channels last.  A value that is transposed back is then available already.  If only
some of the operands were transposed, the others are transposed to channels last, provided that the
result is to be transposed back.

Each number is computed as before; but a gradient summed over all pixels is summed in another
order.
"""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Op
from graphc.ir.tensor_type import Shape, TensorType, normal_axis
from graphc.ops import shape
from graphc.ops.conv import Convolution
from graphc.ops.elementwise import Binary, Unary
from graphc.ops.pad import Pad
from graphc.ops.pool import Pooling
from graphc.ops.select import ReluGrad, Where
from graphc.ops.shape import Cast, Reshape, StopGradient, Transpose, reshape
from graphc.ops.slicing import Concat, Slice
from passes.contract import graph_pass, pinned

ON_ELEMENTS = Unary, Binary, Where, ReluGrad, Cast, StopGradient


@graph_pass(preserves="reassociated")
def channels_last(graph: Graph) -> Graph:
    """Return the graph in which images keep their layout from one convolution to the next."""
    if not any(isinstance(node.op, (Convolution, Pooling)) for node in graph):
        return graph
    rewriter = _Rewriter(graph)
    for node in graph:
        rewriter.take(node)
    rewriter.b.take_roots(graph, rewriter.new)
    return rewriter.b.graph() if rewriter.changed else graph


@dataclass(frozen=True)
class _Image:
    """An image in other layouts: `last` has its channels last, `matrix` a row for each pixel."""

    last: Value
    matrix: Value | None


class _Rewriter:
    """One traversal of the graph, which builds the new one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.b = Builder.like(graph)
        self.new: dict[str, str] = {}
        """The replacement of each node that is left out, by name."""
        self.images: dict[str, _Image] = {}
        self.matrices: dict[str, Value] = {}
        """The matrix of each image with channels last that is a reshape of a matrix."""
        self.pins = pinned(graph)
        self.wanted = _wanted(graph)
        self.changed = False

    def take(self, node: Node) -> None:
        """Build the node, or its replacement."""
        node = node.reading(self.new)
        if node.name in self.pins:
            self.b.insert(node)
            return
        with self.b.at(node.locs):
            same = self._known(node)
            if same is not None:
                self.new[node.name] = same.name
                self.changed = True
            elif not self._moved(node):
                self.b.insert(node)
                self._note(node)

    def _known(self, node: Node) -> Value | None:
        """Return the value that a node equals if it transposes an image back, or None."""
        image = self.images.get(node.inputs[0]) if node.inputs else None
        if image is None or node.type != image.last.type:
            return None
        back = isinstance(node.op, Transpose) and node.op.axes == _last_axes(node.type.rank)
        same = back or (isinstance(node.op, Reshape) and _moves_nothing(node.type))
        return image.last if same else None

    def _note(self, node: Node) -> None:
        """Record an image that is transposed to channels first, or a matrix that is an image."""
        if not isinstance(node.op, (Transpose, Reshape)) or node.type.rank < 2:
            return
        x = self.b.value(node.inputs[0])
        if isinstance(node.op, Transpose):
            if node.type.rank > 2 and node.op.axes == _first_axes(node.type.rank):
                self.images[node.name] = _Image(x, self.matrices.get(x.name))
        elif x.type.rank == 2 < node.type.rank and x.shape[1] == node.type.shape[-1]:
            self.matrices[node.name] = x
        elif x.type.rank > 2 and node.type == shape.first(x.type) and _moves_nothing(x.type):
            made = isinstance(x.node.op, (Convolution, Pooling))
            if made or x.name in self.matrices:
                self.images[node.name] = _Image(x, self.matrices.get(x.name))

    # ------------------------------------------------------------------ before the transpose

    def _moved(self, node: Node) -> bool:
        """Build the node before the transpose of its operands; return whether that is possible."""
        whole = [name for name in node.inputs if self.b.value(name).shape == node.type.shape]
        parts = node.inputs if isinstance(node.op, (Concat, Slice, Pad)) else whole
        if node.type.rank < 3 or not any(name in self.images for name in parts):
            return False
        if node.name not in self.wanted and not all(name in self.images for name in parts):
            return False
        made = self._of_pixels(node) or self._of_image(node)
        if made is None:
            return False
        first = shape.channels_first(made.last, name=node.name)
        self.images[first.name] = made
        self.changed = True
        return True

    def _of_pixels(self, node: Node) -> _Image | None:
        """Return the node on matrices, or None if its op or an operand has no such form."""
        op = _on_matrix(node.op, node.type.rank)
        if op is None:
            return None
        values = [self.b.value(name) for name in node.inputs]
        joins = isinstance(op, (Concat, Slice))
        if not joins and any(_matrix_shape(v.type, node.type) is None for v in values):
            return None
        operands = [
            self._matrix(v) if joins or v.shape == node.type.shape else self._vector(v, node.type)
            for v in values
        ]
        matrix = self.b.apply(op, *operands, name=self._free_name(f"{node.name}.pixels"))
        last = self._free_name(f"{node.name}.channels_last")
        image = reshape(matrix, shape.last(node.type).shape, name=last)
        self.matrices[image.name] = matrix
        return _Image(image, matrix)

    def _of_image(self, node: Node) -> _Image | None:
        """Return the node on images with their channels last, or None."""
        op = _on_image(node.op, node.type.rank)
        if op is None:
            return None
        operands = [self._last(self.b.value(name), node.type.rank) for name in node.inputs]
        name = self._free_name(f"{node.name}.channels_last")
        return _Image(self.b.apply(op, *operands, name=name), None)

    def _last(self, x: Value, rank: int) -> Value:
        """Return `x`, padded to that rank, with its channels last; a number as it is."""
        if x.name in self.images:
            return self.images[x.name].last
        if x.type.rank == 0:
            return x
        if x.type.rank < rank:
            x = reshape(x, (*(1,) * (rank - x.type.rank), *x.shape), name=self._part(x, "ranked"))
        return shape.channels_last(x, name=self._part(x, "channels_last"))

    def _matrix(self, x: Value) -> Value:
        """Return `x` with a row for each pixel."""
        image = self.images.get(x.name)
        if image is not None and image.matrix is not None:
            return image.matrix
        last = self._last(x, x.type.rank)
        matrix = shape.pixels(last, name=self._part(x, "pixels"))
        self.images[x.name] = _Image(last, matrix)
        return matrix

    def _vector(self, x: Value, image: TensorType) -> Value:
        """Return `x` as one number for each channel, or one for all."""
        if x.type.rank == 0:
            return x
        vector = _matrix_shape(x.type, image)
        assert vector is not None
        return reshape(x, vector, name=self._part(x, "channels"))

    def _part(self, x: Value, part: str) -> str:
        return self._free_name(f"{x.name}.{part}")

    def _free_name(self, base: str) -> str:
        """Return a name that is in neither graph."""
        name, number = base, 2
        while name in self.graph or name in self.b.nodes:
            name, number = f"{base}_{number}", number + 1
        return name


def _wanted(graph: Graph) -> set[str]:
    """Return the values that are transposed to channels last, and what they are computed from."""
    found: set[str] = set()
    for node in reversed(list(graph)):
        op = node.op
        if isinstance(op, Transpose):
            back = node.type.rank > 2 and op.axes == _last_axes(node.type.rank)
        elif isinstance(op, Reshape):
            x = graph[node.inputs[0]].type
            back = x.rank == node.type.rank > 2 and _moves_nothing(x) and node.type == shape.last(x)
        else:
            back = isinstance(op, (*ON_ELEMENTS, Concat, Slice, Pad)) and node.name in found
        if back:
            found.update(node.inputs)
    return found


def _first_axes(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1))


def _last_axes(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def _moves_nothing(image: TensorType) -> bool:
    """Return whether transposing an image moves nothing: one pixel, or one channel and one line."""
    return sum(dim != 1 for dim in image.shape[1:]) <= 1


def _matrix_shape(x: TensorType, image: TensorType) -> Shape | None:
    """Return an operand's shape in a matrix of pixels (full, by channel, or one), or None."""
    if x.shape == image.shape:
        return x.shape
    padded = (1,) * (image.rank - x.rank) + x.shape
    if all(dim == 1 for dim in padded):
        return ()
    alone = padded[0] == 1 and all(dim == 1 for dim in padded[2:])
    return (padded[1],) if alone and padded[1] == image.shape[1] else None


def _on_matrix(op: Op, rank: int) -> Op | None:
    """Return the same op for matrices of pixels, or None if there is none."""
    if isinstance(op, ON_ELEMENTS):
        return op
    if isinstance(op, Concat) and normal_axis(op.axis, rank) == 1:
        return Concat(1)
    if isinstance(op, Slice) and all(axis == 1 for axis, *_ in op.cuts):
        return op
    return None


def _on_image(op: Op, rank: int) -> Op | None:
    """Return the same op for images with their channels last, or None if there is none."""
    to = dict(zip(_last_axes(rank), range(rank), strict=True))
    if isinstance(op, ON_ELEMENTS):
        return op
    if isinstance(op, Concat):
        return Concat(to[normal_axis(op.axis, rank)])
    if isinstance(op, Slice):
        return Slice(tuple(sorted((to[axis], *rest) for axis, *rest in op.cuts)))  # type: ignore[misc]
    if isinstance(op, Pad):
        return Pad(tuple(op.pads[axis] for axis in _last_axes(rank)), op.value)
    return None
