"""The choice of the layers whose products take less time in bfloat16, by estimates.

A factor of half the bytes is read in half the time.  But unless it is a constant it is rounded at
every run, and unless the rows are few it is packed.  Convolutions widen their images, and never
gain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from graphc.ir.forms import WindowProduct
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import dim_at
from graphc.kernels.duration import BYTES_A_MICROSECOND, CALL, OPERATIONS_A_MICROSECOND
from passes.round_products import Precision, layer_path, products
from passes.specialize import Specialize

NEAR = 1 << 20
"""The bytes of a factor of float32 from which it is read from far memory."""
FEW = 3
"""The most rows that read the other factor once, where it lies."""
GAIN = 0.9
"""The largest part of the time that is worth other bits: estimates are not exact."""


def relative_times(graph: Graph, batch: int, trains: bool, rate: float) -> dict[str, float]:
    """Estimate the time of the layers of a declared graph in bfloat16, where it is 1 in float32.

    `batch` is the rows of a run.  `trains` is true if the gradients of layers are products too;
    `rate` is how many times as fast as those of float32 products of bfloat16 are, 0 if slower.
    Then, and for convolutions, there is no estimate.
    """
    wide, narrow = defaultdict[str, float](float), defaultdict[str, float](float)
    for layer, product in _products(Specialize(train=trains)(graph), batch) if rate else ():
        wide[layer] += product.microseconds(trains)
        narrow[layer] += product.rounded_microseconds(trains, rate)
    return {layer: narrow[layer] / wide[layer] for layer in wide}


def chosen_precision(times: Mapping[str, float]) -> tuple[tuple[str, Precision], ...]:
    """Return the precision of each layer, given its relative time in bfloat16."""
    return tuple((layer, "bf16" if time < GAIN else "float32") for layer, time in times.items())


class _Product(NamedTuple):
    """The size of a product."""

    operations: int
    packed: int
    """The elements that are packed at every run."""
    factors: tuple[int, int]
    """The elements of each factor."""
    made: tuple[int, ...]
    """The elements of each factor that is rounded at every run, since it is not constant."""
    result: int

    def microseconds(self, trains: bool) -> float:
        """Estimate the time of a product of float32, and of its gradients."""
        return self._together(trains, 4, self.operations / OPERATIONS_A_MICROSECOND)

    def rounded_microseconds(self, trains: bool, rate: float) -> float:
        """Estimate the same of bfloat16, with the rounding of what is not constant."""
        time = self._together(trains, 2, self.operations / OPERATIONS_A_MICROSECOND / rate)
        made = (*self.made, self.result) if trains else self.made
        rounding = sum(CALL + 6 * size / BYTES_A_MICROSECOND for size in made)
        packing = 4 * self.packed / BYTES_A_MICROSECOND
        return time + rounding + packing * (3 if trains else 1)

    def _together(self, trains: bool, size: int, time: float) -> float:
        far = sum(size * factor for factor in self.factors if 4 * factor >= NEAR)
        return (3 if trains else 1) * (CALL + max(time, far / BYTES_A_MICROSECOND))


def _products(graph: Graph, batch: int) -> Iterator[tuple[str, _Product]]:
    """Yield the products that may be of bfloat16, each with its layer, but no convolutions."""
    for node in products(graph):
        types = [graph[name].type for name in node.inputs]
        form = node.op.product(types)
        if form is None or isinstance(form, WindowProduct):
            continue
        a, b = (x.size(batch) for x in types[:2])
        result = node.type.size(batch)
        operations = 2 * result * dim_at(form.inner, batch)
        rows = result // max(dim_at(node.type.shape[-1], batch), 1)
        constant = [graph[name].op.is_constant for name in node.inputs[:2]]
        made = tuple(size for size, known in zip((a, b), constant, strict=True) if not known)
        packed = b if rows > FEW and not constant[1] else 0
        yield layer_path(graph, node), _Product(operations, packed, (a, b), made, result)
