"""A constant around a value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.build import Builder, Value, as_value
from graphc.op import Array, Op
from graphc.ops.slicing import Slice
from graphc.tensor_type import Batch, TensorType, plain

Pads = tuple[tuple[int, int], ...]
"""How many elements stand before and after each dimension."""


@dataclass(frozen=True)
class Pad(Op):
    """x with `value` before and after it in each dimension."""

    roles = ("x",)
    gradient_text = ("d_out[inside]",)
    pads: Pads
    value: float = 0.0

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        (x,) = ins
        if len(self.pads) != x.rank:
            raise ValueError(f"{len(self.pads)} pairs of pads for {x}, of rank {x.rank}")
        if any(type(pad) is not int or pad < 0 for pair in self.pads for pad in pair):
            raise ValueError(f"pads {self.pads} must be whole numbers from 0 up")
        if x.dtype == "bool" or not (x.is_float or float(self.value).is_integer()):
            raise ValueError(f"x is {x.dtype}, it is not padded with {self.value}")
        dims = list(x.shape)
        for axis, (before, after) in enumerate(self.pads):
            dim = dims[axis]
            if isinstance(dim, Batch):
                if before or after:
                    raise ValueError("the batch dimension is not padded")
            else:
                dims[axis] = before + dim + after
        return x.with_shape(tuple(dims))

    def reference(self, ins: Sequence[Array]) -> Array:
        (x,) = ins
        sizes = zip(self.pads, x.shape, strict=True)
        out = np.full([a + size + b for (a, b), size in sizes], self.value, x.dtype)
        out[self.inside(x.shape)] = x
        return out

    def inside(self, shape: Sequence[int]) -> tuple[slice, ...]:
        """Where x, of that shape, stands in the result."""
        sizes = zip(self.pads, shape, strict=True)
        return tuple(slice(before, before + size) for (before, _), size in sizes)

    def grad(
        self, b: Builder, ins: Sequence[Value], out: Value, dout: Value
    ) -> Sequence[Value | None]:
        cuts = tuple(
            (axis, before, before + dim, 1)
            for axis, ((before, after), dim) in enumerate(zip(self.pads, ins[0].shape, strict=True))
            if (before or after) and isinstance(dim, int)
        )
        return (b.apply(Slice(cuts), dout),)


def pad(x: Value, pads: Sequence[Any], value: float = 0.0, *, name: str | None = None) -> Value:
    """x with `value` around it: `pads` has a pair (before, after) for each dimension.

    A whole number stands for a pair of it.  GraphError where the pads do not fit x.
    """
    x = as_value("pad", x)
    pairs = tuple(
        tuple(map(plain, pair)) if isinstance(pair, Sequence) else (plain(pair),) * 2
        for pair in pads
    )
    return x.builder.apply(Pad(pairs, float(value)), x, name=name)
