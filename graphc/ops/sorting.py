"""Ops that put the numbers of an axis in order: topk, sort and argsort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Value, as_value
from graphc.ir.op import Array, NoGradient, Op
from graphc.ir.tensor_type import Batch, TensorType, normal_axis, shape_text
from graphc.ops.apply import with_attributes
from graphc.ops.arrange import fixed_sizes
from graphc.ops.scatter import GatherElements

__all__ = ["argsort", "sort", "topk"]


@dataclass(frozen=True)
class TopK(NoGradient):
    """The indices (int64) of the `k` largest over `axis` in order, or of the smallest.

    Equal numbers keep their order, and NaN is last.
    """

    name = "topk"
    roles = ("x",)
    k: int
    axis: int = -1
    largest: bool = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return int64 with k entries in `axis`; raise ValueError if it is too short or batched."""
        (x,) = ins
        axis = normal_axis(self.axis, x.rank)
        size = x.shape[axis]
        if isinstance(size, Batch):
            raise ValueError(f"axis {axis} of {shape_text(x.shape)} is the batch's")
        if x.dtype in ("int64", "uint64"):
            raise ValueError(
                f"x is {x.dtype}, topk takes floats and smaller whole numbers\n"
                "cast it: gc.cast(x, 'float64') tells numbers up to 2**53 apart"
            )
        if not 1 <= self.k <= size:
            raise ValueError(f"k is {self.k}, axis {axis} has {size} entries")
        return TensorType((*x.shape[:axis], self.k, *x.shape[axis + 1 :]), "int64")

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        keys = x if x.dtype.kind == "f" else x.astype(np.float64)  # -x of integers may wrap
        order = np.argsort(-keys if self.largest else keys, axis=self.axis, kind="stable")
        return np.take(order, range(self.k), axis=self.axis)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return np.diff(np.sort(ins[0], axis=self.axis), axis=self.axis)


_sorting = partial(
    with_attributes,
    example=("(N, 10)", "x", "(N, 10)"),
    x="Floats, or whole numbers of at most 32 bits.",
    descending="True if the largest come first.",
    raises="If the axis is the batch's.",
)


@_sorting(
    example=("(N, 10)", "x, 3", "[(N, 3), (N, 3)]"),
    show="[value.shape for value in {}]",
    k="The number of entries.",
    largest="True for the largest, False for the smallest.",
    found="Value, Value",
    returns="The numbers, with `k` entries in `axis`, and their int64 indices, named "
    "`<name>.indices`.",
    raises="If the axis has fewer than k entries, or is the batch's.",
)
def topk(
    x: Value,
    k: SupportsIndex,
    axis: SupportsIndex = -1,
    *,
    largest: bool = True,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the largest numbers of an axis in order, or the smallest, and their indices.

    Equal numbers keep their order; NaN counts as less than any number, or with
    `largest=False` as more.  Gradients flow to the chosen numbers.
    """
    x = as_value("topk", x)
    return _ordered(x, TopK(plain(k), plain(axis), bool(largest)), name)


@_sorting()
def sort(
    x: Value, axis: SupportsIndex = -1, *, descending: bool = False, name: str | None = None
) -> Value:
    """Return x with the numbers of an axis in ascending order.

    NaN comes last.
    """
    return _ordered(as_value("sort", x), _all(x, axis, descending), name)[0]


@_sorting(example=("(N, 10)", "x", "'int64'"), show="{}.dtype", returns="Of x's shape, int64.")
def argsort(
    x: Value, axis: SupportsIndex = -1, *, descending: bool = False, name: str | None = None
) -> Value:
    """Return the indices that sort the numbers of an axis.

    Equal numbers keep their order; NaN comes last.
    """
    return as_value("argsort", x).builder.apply(_all(x, axis, descending), x, name=name)


def _all(x: Value, axis: SupportsIndex, descending: bool) -> TopK:
    """Return the op that orders all entries of an axis."""
    (size,) = fixed_sizes(TopK(1), x, axis)
    return TopK(size, plain(axis), bool(descending))


def _ordered(x: Value, op: Op, name: str | None) -> tuple[Value, Value]:
    """Add the indices that an op finds, and the numbers at them."""
    assert isinstance(op, TopK)
    with x.builder.all_or_nothing():
        indices = x.builder.apply(op, x, name=None if name is None else f"{name}.indices")
        values = x.builder.apply(GatherElements(op.axis), x, indices, name=name)
    return values, indices
