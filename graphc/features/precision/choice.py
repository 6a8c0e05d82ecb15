"""The choice of the layers whose products take less time in bfloat16, by estimates.

A factor of half the bytes is read in half the time.  But unless inference keeps it, as it does
constants and weights, it is rounded at every run, and unless the rows are few it is packed.  Blocks
are computed in whole tiles, for which both factors are packed, and their sums are stored.  To
update a weight that is far takes the same time in any precision.  The steps of a loop compute their
products anew, but what they share is rounded and packed once.  Convolutions gain in blocks alone:
for pairs they widen their images.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from graphc.ir.forms import BLOCK, BatchedProduct, Product, TermOrder, WindowProduct
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import dim_at
from graphc.kernels.duration import BYTES_A_MICROSECOND, CALL, OPERATIONS_A_MICROSECOND
from graphc.ops.loops.op import loops
from passes.set_precision import ORDERS, Precision, inner_path, products
from passes.specialize import Specialize

Times = Mapping[Precision, float]
"""The time of a layer in each precision of bfloat16, where it is 1 in float32."""
NEAR = 1 << 20
"""The bytes of a factor of float32 from which it is read from far memory."""
WEIGHTS = 1 << 21
"""The bytes of all weights from which each is, and of the weight that a loop reads again."""
FEW = 3
"""The most rows that read the other factor once, where it lies."""
TILE = 16, 32
"""The rows and columns of a tile of results in blocks."""
FAR_BYTES_A_MICROSECOND = 20_000
"""The bytes of far memory that one core reads and writes, in round numbers."""
UPDATED = 8
"""The bytes of far memory that are moved where an element gets its gradient, or is updated."""
NEAR_BYTES = 1
"""The bytes of far memory in whose time an element that is near is stored and loaded."""
SLOWER = 2
"""The time of an operation of a convolution in blocks, where that of a matrix is 1: measured."""
GAIN = 0.9
"""The largest part of the time that is worth other bits: estimates are not exact."""


def relative_times(
    graph: Graph, batch: int, trains: bool, rates: Mapping[TermOrder, float]
) -> dict[str, Times]:
    """Estimate the times of the layers of a declared graph in each precision that has a rate.

    `batch` is the rows of a run.  `trains` is true if the gradients of layers are products too;
    `rates` are those of a backend: see `Backend.rates_of_orders`.
    """
    made = Specialize(train=trains)(graph)
    weights = sum(node.type.nbytes(batch) for node in made if _is_weight(node))
    each = _products(made, batch, _Loop(trains, weights >= WEIGHTS))
    wide = defaultdict[str, float](float)
    narrow = defaultdict[str, dict[Precision, float]](dict)
    for layer, product in each if rates else ():
        wide[layer] += product.microseconds
        for to, order in ORDERS.items():
            rate = rates.get(order) if order else None
            if rate and product.gains(to):
                time = product.rounded_microseconds(to, rate)
                narrow[layer][to] = narrow[layer].get(to, 0.0) + time
    return {layer: {to: of[to] / wide[layer] for to in of} for layer, of in narrow.items()}


def chosen_precision(times: Mapping[str, Times]) -> tuple[tuple[str, Precision], ...]:
    """Return the precision of each layer that takes the least time, given its relative times."""
    return tuple((layer, _chosen(of)) for layer, of in times.items())


def _chosen(times: Times) -> Precision:
    """Return the first precision of the least time, or float32 if that is not worth it."""
    best = min(times, key=times.__getitem__)
    return best if times[best] < GAIN else "float32"


class _Factor(NamedTuple):
    """A factor of a product: its elements, and what is done with it in a run."""

    size: int
    rounded: int
    """The number of times that it is rounded: 0 if it is constant."""
    packed: bool
    """True if it is packed at every step, where products pack."""
    far: bool
    """True if it is read from far memory."""

    @property
    def rounding(self) -> float:
        """The estimated time of rounding it."""
        rate = FAR_BYTES_A_MICROSECOND if self.far else BYTES_A_MICROSECOND
        return self.rounded * (CALL + 6 * self.size / rate)


class _Product(NamedTuple):
    """The size of a product, and of the products that are gradients of its factors."""

    factors: tuple[_Factor, _Factor]
    products: int
    """The number of all these products."""
    steps: int
    """The number of times that it is computed: once for each step of a loop."""
    result: int
    operations: int
    tiled: int
    """The operations of whole tiles; 0 if it is not computed in blocks."""
    whole: bool
    """True if the last block is whole; else a factor that is stored in panels is copied."""
    few: bool
    """True if the second factor is read where it lies, unless it is computed in blocks."""
    windows: int = 0
    """The elements of the windows of a convolution, in whole blocks."""

    def gains(self, to: Precision) -> bool:
        """Return whether it may take less time in a precision."""
        return self.tiled > 0 if to == "bf16_blocks" else self.windows == 0

    @property
    def microseconds(self) -> float:
        """The estimated time of the products of float32."""
        return self._together(4, self.operations / OPERATIONS_A_MICROSECOND)

    def rounded_microseconds(self, to: Precision, rate: float) -> float:
        """Estimate the same of bfloat16, with the rounding of what is not constant."""
        blocks = to == "bf16_blocks"
        operations = self.tiled if blocks else self.operations
        time = self._together(2, operations / OPERATIONS_A_MICROSECOND / rate)
        moved = 4 * self._packed(blocks) + (NEAR_BYTES * self._near if blocks else 0)
        return time + self.steps * moved / BYTES_A_MICROSECOND + self._rounding

    def _together(self, size: int, time: float) -> float:
        """Estimate the time of all products, which read factors of that many bytes an element."""
        far = sum(x.size for x in self.factors if x.far)
        once = CALL + max(time, size * far / BYTES_A_MICROSECOND)
        updated = UPDATED * far / FAR_BYTES_A_MICROSECOND if self.products > 1 else 0
        return self.steps * self.products * once + updated

    def _packed(self, blocks: bool) -> int:
        """Return the elements that are packed; a gradient reads the other factor, and its own."""
        first, second = (x.size if x.packed else 0 for x in self.factors)
        if not blocks:
            return 0 if self.few else self.products * second
        if self.products == 1:
            return first + second
        return 2 * first + (self.products - 1) * (second + self.result)

    @property
    def _near(self) -> int:
        """The elements that are moved near the core: sums, panels that are copied, windows."""
        stored = self.factors if not self.whole else ()
        copied = sum(x.size for x in stored if not (x.rounded or x.far))
        gradients = sum(x.size for x in self.factors[3 - self.products :])
        return self.result + gradients + copied + self.windows // 2

    @property
    def _rounding(self) -> float:
        """The estimated time of rounding the factors, and the gradient of the result."""
        gradient = _Factor(self.result, self.steps, packed=True, far=False)
        return sum(x.rounding for x in (*self.factors, *[gradient] * (self.products > 1)))


class _Loop(NamedTuple):
    """The loop whose steps compute products; a graph outside of loops is one step."""

    trains: bool
    """True if the gradients of layers are products too."""
    far: bool
    """True if weights are far, since all that are read before take too many bytes."""
    path: str = ""
    """The start of its layers' names."""
    steps: int = 1
    whole: Mapping[str, int] = MappingProxyType({})
    """The values that are the same in each step, and how many times they are rounded."""

    def rounded(self, value: Node) -> int:
        """Return how many times a value is rounded in a run."""
        return 0 if self._is_kept(value) else self.whole.get(value.name, self.steps)

    def _is_kept(self, value: Node) -> bool:
        """Return whether a value is constant, or kept by inference until a parameter changes."""
        return value.op.is_constant or (value.op.persistent and not self.trains)

    def products(self, first: Node) -> int:
        """Return the number of products with gradients; a first factor that is fed has none."""
        fed = first.op.is_input and not self.path
        return (2 if fed else 3) if self.trains else 1

    def factor(self, value: Node, batch: int) -> _Factor:
        """Return a value as a factor."""
        size = value.type.size(batch)
        if value.name in self.whole:
            far = 4 * size >= WEIGHTS
        else:
            far = 4 * size >= NEAR or (self.far and _is_weight(value))
        packed = not self._is_kept(value) and value.name not in self.whole
        return _Factor(size, self.rounded(value), packed, far)


def _products(graph: Graph, batch: int, loop: _Loop) -> Iterator[tuple[str, _Product]]:
    """Yield the products that may be of bfloat16, each with its layer."""
    for layer, node, _, form in products(graph, loop.path):
        first, second = (graph[name] for name in node.inputs[:2])
        factors = loop.factor(first, batch), loop.factor(second, batch)
        sizes = _sizes(node, form, batch)
        yield layer, _Product(factors, loop.products(first), loop.steps, *sizes)
    for (op, operands), nodes in loops(graph).items():
        given = dict(zip(op.step.inputs, operands, strict=True))
        whole = {name: loop.rounded(graph[given[name]]) for name in op.step.whole}
        path = inner_path(nodes[0], loop.path)
        inner = _Loop(loop.trains, loop.far, path, loop.steps * op.steps, whole)
        yield from _products(op.step.graph(()), batch, inner)


def _sizes(node: Node, form: Product, batch: int) -> tuple[int, int, int, bool, bool, int]:
    """Return the result of a product, and the fields of `_Product` that follow."""
    result, inner = node.type.size(batch), dim_at(form.inner, batch)
    columns = max(dim_at(node.type.shape[-1], batch), 1)
    rows, tiled, windows = result // columns, 0, 0
    if isinstance(form, WindowProduct):
        windows = rows * form.window.offsets * _whole(form.window.channels, BLOCK)
        tiled = 2 * SLOWER * windows * _whole(columns, TILE[0])
    else:
        of_matrix = isinstance(form, BatchedProduct)
        height = dim_at(node.type.shape[-2], batch) if of_matrix else rows
        matrices = rows // max(height, 1)
        area = matrices * _whole(height, TILE[0]) * _whole(columns, TILE[1])
        tiled = 2 * _whole(inner, BLOCK) * area
    return result, 2 * inner * result, tiled, inner % BLOCK == 0, rows <= FEW, windows


def _is_weight(node: Node) -> bool:
    return node.op.persistent or node.op.is_constant


def _whole(size: int, unit: int) -> int:
    """Return a size in whole units."""
    return -(-size // unit) * unit
