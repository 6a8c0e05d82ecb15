"""The order of numbers over an axis: the largest, and all of them sorted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import SupportsIndex

import numpy as np

from graphc.base.arguments import plain
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import Batch, TensorType, normal_axis, shape_text
from graphc.ops.arrange import fixed_sizes
from graphc.ops.scatter import GatherElements

_WIDE = ("int64", "uint64")


@dataclass(frozen=True)
class TopK(Op):
    """The indices of the `k` largest over `axis` in order, or of the smallest.

    Of equals the first comes first, and NaN is last.  int64, no gradient.
    """

    name = "topk"
    roles = ("x",)
    gradient_text = ("",)
    k: int
    axis: int = -1
    largest: bool = True

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        axis = normal_axis(self.axis, x.rank)
        size = x.shape[axis]
        if isinstance(size, Batch):
            raise ValueError(f"axis {axis} of {shape_text(x.shape)} is the batch's")
        if x.dtype in _WIDE:
            raise ValueError(
                f"x is {x.dtype}, topk takes floats and smaller whole numbers\n"
                "cast it: gc.cast(x, 'float64') tells numbers up to 2**53 apart"
            )
        if not 1 <= self.k <= size:
            raise ValueError(f"k is {self.k}, axis {axis} has {size} entries")
        return TensorType((*x.shape[:axis], self.k, *x.shape[axis + 1 :]), "int64")

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        keys = x if x.dtype.kind == "f" else x.astype(np.float64)
        order = np.argsort(-keys if self.largest else keys, axis=self.axis, kind="stable")
        return np.take(order, range(self.k), axis=self.axis)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return np.diff(np.sort(ins[0], axis=self.axis), axis=self.axis)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        return (None,)


def topk(
    x: Value,
    k: SupportsIndex,
    axis: SupportsIndex = -1,
    *,
    largest: bool = True,
    name: str | None = None,
) -> tuple[Value, Value]:
    """Return the k largest over an axis, or the smallest, in order, and their indices (int64).

    Of equal numbers the first comes first; NaN counts as less than any, or with `largest=False` as
    more.  Gradients flow to the numbers that are chosen.  The indices are named `<name>.indices`.
    Raise GraphError if there are not so many, or the axis is the batch's.
    """
    x = as_value("topk", x)
    op = TopK(plain(k), plain(axis), bool(largest))
    return _ordered(x, op, name)


def sort(
    x: Value, axis: SupportsIndex = -1, *, descending: bool = False, name: str | None = None
) -> Value:
    """Sort the numbers of an axis from the smallest up, or from the largest down; NaN is last."""
    return _ordered(as_value("sort", x), _all(x, axis, descending), name)[0]


def argsort(
    x: Value, axis: SupportsIndex = -1, *, descending: bool = False, name: str | None = None
) -> Value:
    """Return the indices (int64) that sort the numbers of an axis; of equals the first is first."""
    return as_value("argsort", x).builder.apply(_all(x, axis, descending), x, name=name)


def _all(x: Value, axis: SupportsIndex, descending: bool) -> TopK:
    (size,) = fixed_sizes(TopK(1), x, axis)
    return TopK(size, plain(axis), bool(descending))


def _ordered(x: Value, op: Op, name: str | None) -> tuple[Value, Value]:
    assert isinstance(op, TopK)
    with x.builder.all_or_nothing():
        indices = x.builder.apply(op, x, name=None if name is None else f"{name}.indices")
        values = x.builder.apply(GatherElements(op.axis), x, indices, name=name)
    return values, indices
