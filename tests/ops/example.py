"""An example of an op: attributes, operand types, and what numbers the operands hold."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import Dim, TensorType, shape_at

GRID = "grid"
"""Shuffled multiples of 0.07, moved a little for each operand: distinct within an operand and
between operands, and at least 0.01 away from 0, from +-0.5 and from differences of 1."""
POSITIVE = "positive"
SMALL = "small"
"""Whole numbers from 0 to 2."""


INSIDE = "inside"
"""Between -0.9 and 0.9."""
ABOVE = "above"
"""Between 1.2 and 3."""
BROKEN = "broken"
"""Numbers from -3 to 3 that are 0.1 and more away from whole ones."""
SIGNED = "signed"
"""Whole numbers from -9 to 9."""
NONZERO = "nonzero"
"""Whole numbers from -4 to 4 without 0."""


@dataclass(frozen=True)
class Example:
    """An op with the types of its operands; `fill` says what they hold, `GRID` by default."""

    op: Op
    types: tuple[TensorType, ...]
    fill: tuple[str | int, ...] = ()

    def concrete(self, n: int) -> Op:
        """The op for a batch of n rows."""
        return self.op.at(n)

    def operands(self, n: int, seed: int = 0) -> list[Array]:
        """Operands for a batch of n rows."""
        rng = np.random.default_rng([seed, zlib.crc32(repr(self).encode())])
        kinds = (*self.fill, *[GRID] * (len(self.types) - len(self.fill)))
        return [
            np.array(_values(rng, shape_at(t.shape, n), kind, i), t.dtype)
            for i, (t, kind) in enumerate(zip(self.types, kinds, strict=True))
        ]

    def __str__(self) -> str:
        return f"{self.op}({', '.join(map(str, self.types))})"


def _values(
    rng: np.random.Generator, shape: tuple[int, ...], kind: str | int, operand: int
) -> Array:
    size = int(np.prod(shape))
    if isinstance(kind, int):
        return rng.integers(0, kind, shape)
    if kind == SMALL:
        return rng.integers(0, 3, shape)
    if kind == POSITIVE:
        return rng.uniform(0.5, 2.0, shape)
    if kind in (INSIDE, ABOVE):
        return rng.uniform(*((-0.9, 0.9) if kind == INSIDE else (1.2, 3)), shape)
    if kind == BROKEN:
        return rng.integers(-3, 3, shape) + rng.uniform(0.1, 0.9, shape)
    if kind == SIGNED:
        return rng.integers(-9, 10, shape)
    if kind == NONZERO:
        return rng.integers(1, 5, shape) * rng.choice((-1, 1), shape)
    steps = rng.permutation(size) - size // 2
    return (0.07 * steps + 0.02 + 0.011 * operand).reshape(shape)


def t(*shape: Dim, dtype: str = "float64") -> TensorType:
    return TensorType(shape, dtype)


def whole(*shape: Dim, dtype: str = "int64") -> TensorType:
    return TensorType(shape, dtype)
