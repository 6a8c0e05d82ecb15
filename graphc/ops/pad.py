"""Padding: a constant, or entries of a value, around the value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import copysign
from typing import Any, Literal

import numpy as np

from graphc.base.arguments import check_choice, checked_real, is_whole, listed, plain
from graphc.base.work import spend_array
from graphc.ir.access import AxisMap
from graphc.ir.build import Builder, Value, as_value
from graphc.ir.forms import GatherRule, moved
from graphc.ir.op import Array, Cotangents
from graphc.ir.tensor_type import Batch, TensorType
from graphc.ops.apply import with_attributes
from graphc.ops.gather import gather
from graphc.ops.shape import Move, reshape
from graphc.ops.slicing import Slice

__all__ = ["pad"]

Mode = Literal["constant", "edge", "reflect", "wrap"]
MODES: tuple[Mode, ...] = ("constant", "edge", "reflect", "wrap")
Pads = tuple[tuple[int, int], ...]
"""The numbers of elements to add before and after each dimension."""


@dataclass(frozen=True)
class Pad(Move):
    """x with `value` before and after it in each dimension."""

    roles = ("x",)
    gradient_text = ("d_out[inside]",)
    pads: Pads
    value: float = 0.0

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return x's type with the pads added; raise ValueError if their number is not x's rank."""
        (x,) = ins
        if len(self.pads) != x.rank:
            raise ValueError(f"{len(self.pads)} pairs of pads for {x}, of rank {x.rank}")
        if any(not is_whole(pad) or pad < 0 for pair in self.pads for pad in pair):
            raise ValueError(f"pads {self.pads} must be whole numbers from 0 up")
        if x.dtype == "bool" or not (x.is_float or float(self.value).is_integer()):
            raise ValueError(f"x is {x.dtype}, it cannot be padded with {self.value}")
        dims = list(x.shape)
        for axis, (before, after) in enumerate(self.pads):
            dim = dims[axis]
            if isinstance(dim, Batch):
                if before or after:
                    raise ValueError("the batch dimension cannot be padded")
            else:
                dims[axis] = before + dim + after
        return x.with_shape(tuple(dims))

    def may_be_view(self, ins: Sequence[TensorType]) -> bool:
        return True

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        sizes = zip(self.pads, x.shape, strict=True)
        out = np.full([a + size + b for (a, b), size in sizes], self.value, x.dtype)
        out[self.inside(x.shape)] = x
        return out

    def inside(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """Return the index in the result of x, which has that shape."""
        sizes = zip(self.pads, shape, strict=True)
        return tuple(slice(before, before + size) for (before, _), size in sizes)

    def box_start(self, x: TensorType) -> tuple[int, ...] | None:
        if self.value != 0 or self._is_negative_zero:
            return None
        return tuple(-before for before, _ in self.pads)

    @property
    def _is_negative_zero(self) -> bool:
        """True if the value is -0.0, which a kernel cannot tell from 0.0."""
        return self.value == 0 and copysign(1, self.value) < 0

    def gather(self, ins: Sequence[TensorType], result: TensorType) -> GatherRule | None:
        if self._is_negative_zero:
            return None
        return moved(ins[0].shape, result, self._maps, self.value)

    def _maps(self, axis_maps: list[AxisMap]) -> list[AxisMap]:
        return [
            w._replace(shift=-before) for w, (before, _) in zip(axis_maps, self.pads, strict=True)
        ]

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        """Return the slice of dout without the padding."""
        cuts = tuple(
            (axis, before, before + dim, 1)
            for axis, ((before, after), dim) in enumerate(zip(self.pads, ins[0].shape, strict=True))
            if (before or after) and isinstance(dim, int)
        )
        return (b.apply(Slice(cuts), dout),)


@with_attributes(
    example=("(N, 3)", "x, [0, (1, 2)]", "(N, 6)"),
    pads="A pair (before, after) for each dimension, or a whole number for both.",
    value='The number that fills the padding in mode "constant".',
    mode='The source of the padding: "constant" `value`; "edge" the outermost entry; "reflect"\n'
    'the entry as far inside, the outermost left out; "wrap" the entry at the other end.',
    returns="Of x's dtype.",
    raises="If the pads do not fit x, or there is no such mode.",
)
def pad(
    x: Value,
    pads: Sequence[Any],
    value: float = 0.0,
    *,
    mode: Mode = "constant",
    name: str | None = None,
) -> Value:
    """Return x with more entries around it."""
    x = as_value("pad", x)
    hint = "'edge' repeats the outermost entries, 'reflect' mirrors at them"
    check_choice("pad: mode", mode, MODES, hint=hint)
    pairs = tuple(listed(pair) or (plain(pair),) * 2 for pair in pads)
    op = Pad(pairs, checked_real("pad: value", value))
    if mode == "constant":
        return x.builder.apply(op, x, name=name)
    try:
        op.infer([x.type.with_dtype("float32")])
    except ValueError as error:
        raise x.builder.error(op, str(error), (x,), name) from None
    return _padded_by_gathers(x, pairs, mode, name)


def _padded_by_gathers(x: Value, pairs: Pads, mode: Mode, name: str | None) -> Value:
    """Pad x with its own entries, axis by axis: each is a gather."""
    with x.builder.all_or_nothing():
        for axis, (pair, dim) in enumerate(zip(pairs, x.shape, strict=True)):
            if any(pair):
                assert isinstance(dim, int), "infer lets no batch pass"
                spend_array(dim + sum(pair))
                x = gather(x, np.pad(np.arange(dim), pair, mode), axis)
        return reshape(x, x.shape, name=name)  # only names the result
