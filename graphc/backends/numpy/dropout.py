"""The kernel of the dropout mask."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.kernels.philox import fill_mask, threshold
from graphc.ops.dropout import DropoutMask


def dropout_mask(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that compute 1/keep_prob or 0 for each element, by Philox words."""
    assert isinstance(op, DropoutMask)
    scale = float(np.true_divide(1, number(op.keep_prob, out)))
    rows = out.reshape(len(out), -1)
    bound = threshold(op.keep_prob)
    return (partial(_fill, rows, scale, bound, op.stream, tuple(ins), tuple(scratch)),)


def _fill(
    rows: Array,
    scale: float,
    bound: int,
    stream: int,
    keys: Sequence[Array],
    scratch: Sequence[Array],
) -> None:
    seed, draws, *first_row = map(int, keys)
    fill_mask(rows, scale, bound, seed, stream, draws, scratch, *first_row)


DROPOUT: dict[str, Kernel] = {"dropout_mask": dropout_mask}
