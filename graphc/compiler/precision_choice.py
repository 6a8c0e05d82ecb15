"""The choice of the layers whose products take less time in bfloat16, by estimates.

A factor of half the bytes is read in half the time.  But unless it is a constant it is rounded at
every run, and unless the rows are few it is packed.  Blocks are computed in whole tiles, for which
both factors are packed.  Convolutions widen their images, and never gain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from graphc.ir.forms import BatchedProduct, Product, WindowProduct
from graphc.ir.graph import Graph, Node
from graphc.ir.tensor_type import dim_at
from graphc.kernels.duration import BYTES_A_MICROSECOND, CALL, OPERATIONS_A_MICROSECOND
from graphc.ops.linalg import MatrixProduct
from passes.round_products import Precision, layer_path, products
from passes.specialize import Specialize

Times = Mapping[Precision, float]
"""The time of a layer in each precision of bfloat16, where it is 1 in float32."""
NEAR = 1 << 20
"""The bytes of a factor of float32 from which it is read from far memory."""
FEW = 3
"""The most rows that read the other factor once, where it lies."""
TILE = 16, 32
"""The rows and columns of a tile of results in blocks."""
GAIN = 0.9
"""The largest part of the time that is worth other bits: estimates are not exact."""


def relative_times(
    graph: Graph, batch: int, trains: bool, rates: Mapping[Precision, float]
) -> dict[str, Times]:
    """Estimate the times of the layers of a declared graph in each precision that has a rate.

    `batch` is the rows of a run.  `trains` is true if the gradients of layers are products too;
    `rates` are those of a backend: see `Backend.bfloat16_rates`.  Convolutions have no estimate,
    and those of single pixels none in blocks.
    """
    wide = defaultdict[str, float](float)
    narrow = defaultdict[str, dict[Precision, float]](dict)
    for layer, product in _products(Specialize(train=trains)(graph), batch) if rates else ():
        wide[layer] += product.microseconds(trains)
        for to, rate in rates.items():
            if to == "bf16" or product.tiled:
                time = product.rounded_microseconds(trains, to, rate)
                narrow[layer][to] = narrow[layer].get(to, 0.0) + time
    return {layer: {to: of[to] / wide[layer] for to in of} for layer, of in narrow.items()}


def chosen_precision(times: Mapping[str, Times]) -> tuple[tuple[str, Precision], ...]:
    """Return the precision of each layer that takes the least time, given its relative times."""
    return tuple((layer, _chosen(of)) for layer, of in times.items())


def _chosen(times: Times) -> Precision:
    """Return the first precision of the least time, or float32 if that is not worth it."""
    best = min(times, key=times.__getitem__)
    return best if times[best] < GAIN else "float32"


class _Product(NamedTuple):
    """The size of a product."""

    operations: int
    tiled: int
    """The operations of whole tiles; 0 if it is not computed in blocks."""
    packed: int
    """The elements that are packed at every run, unless it is computed in blocks."""
    factors: tuple[int, int]
    """The elements of each factor."""
    made: tuple[int, ...]
    """The elements of each factor that is rounded at every run, since it is not constant."""
    result: int

    def microseconds(self, trains: bool) -> float:
        """Estimate the time of a product of float32, and of its gradients."""
        return self._together(trains, 4, self.operations / OPERATIONS_A_MICROSECOND)

    def rounded_microseconds(self, trains: bool, to: Precision, rate: float) -> float:
        """Estimate the same of bfloat16, with the rounding of what is not constant."""
        operations, packed = self.operations, self.packed
        if to == "bf16_blocks":
            operations, packed = self.tiled, sum(self.made)
        time = self._together(trains, 2, operations / OPERATIONS_A_MICROSECOND / rate)
        made = (*self.made, self.result) if trains else self.made
        rounding = sum(CALL + 6 * size / BYTES_A_MICROSECOND for size in made)
        packing = 4 * packed / BYTES_A_MICROSECOND
        return time + rounding + packing * (3 if trains else 1)

    def _together(self, trains: bool, size: int, time: float) -> float:
        far = sum(size * factor for factor in self.factors if 4 * factor >= NEAR)
        return (3 if trains else 1) * (CALL + max(time, far / BYTES_A_MICROSECOND))


def _products(graph: Graph, batch: int) -> Iterator[tuple[str, _Product]]:
    """Yield the products that may be of bfloat16, each with its layer, but no convolutions."""
    for node in products(graph):
        form = node.op.product([graph[name].type for name in node.inputs])
        if form is not None and not isinstance(form, WindowProduct):
            yield layer_path(graph, node), _product(graph, node, form, batch)


def _product(graph: Graph, node: Node, form: Product, batch: int) -> _Product:
    a, b = (graph[name].type.size(batch) for name in node.inputs[:2])
    constant = [graph[name].op.is_constant for name in node.inputs[:2]]
    made = tuple(size for size, known in zip((a, b), constant, strict=True) if not known)
    result, terms = node.type.size(batch), dim_at(form.inner, batch)
    columns = max(dim_at(node.type.shape[-1], batch), 1)
    rows = result // columns
    packed = b if rows > FEW and not constant[1] else 0
    height = dim_at(node.type.shape[-2], batch) if isinstance(form, BatchedProduct) else rows
    tiled = 2 * terms * _in_tiles(rows, height, columns)
    if not isinstance(node.op, MatrixProduct):
        tiled = 0
    return _Product(2 * result * terms, tiled, packed, (a, b), made, result)


def _in_tiles(rows: int, height: int, columns: int) -> int:
    """Return the elements of the tiles of matrices of a height that have so many rows in all."""
    padded, width = (-(-size // of) * of for size, of in zip((height, columns), TILE, strict=True))
    return rows // max(height, 1) * padded * width
