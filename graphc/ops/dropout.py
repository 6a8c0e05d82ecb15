"""Inverted dropout with counter-based masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graphc.base.arguments import finite, takes
from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.expr import Axis, Expr, philox, select
from graphc.ir.op import Array, Iteration, Layer
from graphc.ir.tensor_type import Batch, TensorType, batch_axes, shape_at
from graphc.kernels.philox import keep_words, stream_of, threshold
from graphc.ops.apply import with_attributes
from graphc.ops.elementwise import mul
from graphc.ops.random_numbers import Drawn, check_keys, keys_of
from graphc.ops.shape import transpose

__all__ = ["dropout"]


@dataclass(frozen=True)
class Dropout(Layer):
    """x * mask in training, with mask = (u < keep_prob) / keep_prob; x itself in inference."""

    takes_pairs = True
    roles = ("x", "seed", "draws")
    keep_prob: float
    stream: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type; raise ValueError unless it is of floats (N, ...) and the keys fit."""
        x, *keys = ins
        if not x.is_float or x.rank < 1:
            raise ValueError(f"x is {x}, dropout takes floats of shape (N, ...)")
        if not isinstance(x.shape[0], Batch) and x.batched:
            raise ValueError(f"x is {x}, the batch must be its first dimension")
        _check_kept(self.keep_prob)
        check_keys(keys)
        return x

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, key, counter = ins
        if not train:
            return x
        mask = DropoutMask(x.shape, x.dtype.name, self.keep_prob, self.stream)
        return np.asarray(x * mask.reference([key, counter]))

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, key, counter = ins
        if not train or self.keep_prob == 1:
            return x
        op = DropoutMask(x.shape, x.dtype, self.keep_prob, self.stream)
        return mul(x, b.apply(op, key, counter, name=f"{name}.mask"), name=name)


@dataclass(frozen=True)
class DropoutMask(Drawn):
    """1/keep_prob where an element is kept, else 0; keyed by seed, draws, layer and position."""

    keep_prob: float
    stream: int

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        _check_kept(self.keep_prob)
        return super().infer(ins)

    def reference(self, ins: Sequence[Array]) -> Array:
        """Compute 0 or 1 / keep_prob from the words of a counter-based generator, by row."""
        shape = shape_at(self.shape, 0)
        rows, columns = shape[0], int(np.prod(shape[1:]))
        first = int(ins[2]) if len(ins) > 2 else 0
        words = keep_words(int(ins[0]), self.stream, int(ins[1]), rows, columns, first)
        kept = words.astype(np.uint64) < threshold(self.keep_prob)
        one = np.dtype(self.dtype).type(1)
        # The quotient is rounded in the dtype, as in kernels.
        return np.asarray(kept * (one / np.dtype(self.dtype).type(self.keep_prob))).reshape(shape)

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        # A vector is one row of a kernel, but each of its words belongs to a row of the batch.
        return "elements" if len(self.shape) > 1 else "call"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        key, counter, *first = ins
        # threshold(1) is 2**32, which no word holds.
        kept = philox(key, counter, self.stream, *first) <= threshold(self.keep_prob) - 1
        scale = np.dtype(self.dtype).type(1) / np.dtype(self.dtype).type(self.keep_prob)
        return select(kept, key.builder.const(float(scale), self.dtype), 0)


@takes(
    "gc.dropout(x, drop_prob=0.5), or keep_prob=0.5",
    rate="it is drop_prob",
    p="it is drop_prob",
)
@with_attributes(
    example=("(N, 3)", "x, keep_prob=0.8", "<dropout_1: float32[N, 3]>"),
    show="{}",
    x="Floats (N, ...), or with the batch at another axis, such as (T, N, ...).",
    drop_prob="The share of elements to keep, in (0, 1], or to drop, in [0, 1): give exactly one.",
    name="The name of the layer.",
    returns="Of the type of x.",
    raises="If none or both of the shares are given, one is out of range, or x does not fit.",
)
def dropout(
    x: Value,
    *,
    keep_prob: float | None = None,
    drop_prob: float | None = None,
    name: str | None = None,
) -> Value:
    """Return x with random elements set to 0 in training, and x itself in inference.

    This is inverted dropout: the others are divided by the share that is kept (Srivastava et al.
    2014, JMLR 15).  The mask is keyed by the seed, the counter of training forwards, the layer's
    name and the element's row and column.
    """
    b = as_value("dropout", x).builder
    keep = _keep_prob(keep_prob, drop_prob)
    node = b.free_name("dropout", name)
    layer = Dropout(keep, stream_of(b.path + b.prefix + node))
    rank, axis = x.type.rank, next((axis for axis, _ in batch_axes(x.shape)), 0)
    if axis == 0:
        return b.apply(layer, x, *keys_of(b), name=node)
    order = [axis, *(i for i in range(rank) if i != axis)]
    with b.all_or_nothing():  # the mask of a row does not depend on the batch: rows come first
        rows = transpose(x, order, name=f"{node}.rows")
        dropped = b.apply(layer, rows, *keys_of(b), name=f"{node}.dropped")
        return transpose(dropped, np.argsort(order).tolist(), name=node)


def _check_kept(keep_prob: float) -> None:
    """Raise ValueError for anything but a probability in (0, 1]."""
    number = finite(keep_prob)
    if number is None or not 0 < number <= 1:
        raise ValueError(f"keep_prob is {keep_prob}, it must lie in (0, 1]")


def _keep_prob(keep_prob: float | None, drop_prob: float | None) -> float:
    """Return the share to keep; raise GraphError unless one share is given, in its range."""
    if (keep_prob is None) == (drop_prob is None):
        both = "none was" if keep_prob is None else "both were"
        raise GraphError(
            f"dropout takes exactly one of keep_prob and drop_prob, {both} given",
            hint="keep_prob=0.8 and drop_prob=0.2 mean the same",
        )
    word, given = ("keep_prob", keep_prob) if drop_prob is None else ("drop_prob", drop_prob)
    number = finite(given)
    keeps = word == "keep_prob"
    if number is None or not (0 < number <= 1 if keeps else 0 <= number < 1):
        bounds = "0 < keep_prob <= 1" if keeps else "0 <= drop_prob < 1"
        raise GraphError(
            f"dropout: {word}={given!r} is out of range",
            hint=f"{bounds}; keep_prob=0.8 and drop_prob=0.2 mean the same",
        )
    return number if keeps else 1.0 - number
