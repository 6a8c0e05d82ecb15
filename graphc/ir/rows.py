"""Rows of a result: whether they are those of its operands, each by itself."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType, batch_axes


def keeps_rows(op: Op, ins: Sequence[TensorType], out: TensorType) -> bool:
    """Return whether a result has the rows of the operands in their order, and mixes none."""
    if op.is_source:
        return op.is_input or not out.batched
    if not any(type.batched for type in ins):
        return not out.batched
    return leads(out) and all(leads(x) for x in ins if x.batched) and op.by_row(ins)


def leads(type: TensorType) -> bool:
    """Return whether a value has the rows of the batch on its first axis, and on no other."""
    return not type.pairs_rows and [axis for axis, _ in batch_axes(type.shape)] == [0]
