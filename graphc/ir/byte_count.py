"""Numbers of bytes as formulas in the number of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from graphc.ir.tensor_type import ITEMSIZE, Batch, TensorType, count


@dataclass(frozen=True, slots=True)
class Bytes:
    """`pairs * N * N + rows * N + fixed` bytes, where N is the number of rows of a run."""

    rows: int = 0
    fixed: int = 0
    pairs: int = 0

    def __add__(self, other: Bytes) -> Bytes:
        return Bytes(self.rows + other.rows, self.fixed + other.fixed, self.pairs + other.pairs)

    def __sub__(self, other: Bytes) -> Bytes:
        return Bytes(self.rows - other.rows, self.fixed - other.fixed, self.pairs - other.pairs)

    def __str__(self) -> str:
        return " + ".join(self.terms(",")) or "0"

    def terms(self, format: str) -> list[str]:
        """Return the terms that are not 0, with their numbers in a format."""
        terms = ((self.pairs, "*N*N"), (self.rows, "*N"), (self.fixed, ""))
        return [f"{number:{format}}{rows}" for number, rows in terms if number]


def bytes_of(types: Iterable[TensorType]) -> Bytes:
    """Return the sum of the bytes of values of these types."""
    found = Bytes()
    for type in types:
        size, item = count(type.shape), ITEMSIZE[type.dtype]
        if not isinstance(size, Batch):
            found += Bytes(fixed=size * item)
        elif size.power == 1:
            found += Bytes(size.factor * item)
        else:
            found += Bytes(pairs=size.factor * item)
    return found
