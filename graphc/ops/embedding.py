"""The embedding layer: rows of a parameter, chosen by whole numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np

from graphc.base.arguments import checked_whole, takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.init import Normal, resolve
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import TensorType, dtype_name
from graphc.ops.gather import Gather, checked, entries
from graphc.ops.source import Parameter

NORMAL = Normal(1.0)


class Embedding(Layer):
    """The row of weight (count, width) for each id."""

    roles = ("weight", "ids")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        weight, ids = ins
        if weight.rank != 2:
            raise ValueError(f"weight is {weight}, embedding takes (count, width)")
        return Gather().infer([weight, ids])

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        weight, ids = ins
        return np.asarray(weight[ids])

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        return b.apply(Gather(), *ins, name=name)

    def index_bounds(self, ins: Sequence[TensorType]) -> Mapping[int, int]:
        return {1: entries(ins[0], 0)}


@takes(
    "gc.embedding(ids, count, width)",
    num_embeddings="it is count",
    embedding_dim="it is width",
    input_dim="it is count",
    output_dim="it is width",
)
def embedding(
    ids: Value,
    count: SupportsIndex | None = None,
    width: SupportsIndex | None = None,
    *,
    weight: Value | None = None,
    init: Any = NORMAL,
    dtype: str | None = None,
    name: str | None = None,
) -> Value:
    """Return the row of `<node>.weight` (count, width) for each id: (*ids.shape, width).

    `ids`, of any shape, are whole numbers from 0 to count - 1.  The rows are trained, in the net's
    dtype or in `dtype`, from normal numbers of standard deviation 1, or from `init`; `weight=`
    shares existing ones.  A row that several ids name gets the sum of their gradients, in the order
    of the ids whatever the number of threads.  Raise GraphError if the ids are not whole numbers.
    """
    b = as_value("embedding", ids).builder
    node = b.free_name("embedding", name)
    with b.all_or_nothing():
        if weight is None:
            sizes = _size("count", count), _size("width", width)
            weight = _rows(b, f"{node}.weight", sizes, dtype_name(dtype or b.dtype), init)
        return checked(Embedding(), weight, ids, name=node)


def _rows(b: Builder, name: str, sizes: tuple[int, int], dtype: str, init: Any) -> Value:
    try:
        op = Parameter(sizes, dtype, resolve(init, sizes))
        TensorType(sizes, dtype)
    except ValueError as error:
        raise GraphError(f"parameter {name!r}: {error}", loc=caller_loc()) from None
    return b.apply(op, name=name)


def _size(role: str, given: object) -> int:
    hint = "so many ids, each with so many numbers: gc.embedding(ids, 1000, 32)"
    return checked_whole(f"embedding: {role}", given, hint=hint)
