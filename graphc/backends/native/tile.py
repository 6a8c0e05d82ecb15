"""The register tile of the matrix product: rows x vectors of accumulators over all of k."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.tensor_type import ITEMSIZE

LINE = 64
"""Bytes that move between caches together."""
K_BLOCK = 256
"""Sums that are longer than four of these are added up in blocks: a panel of so many rows stays
in the second cache."""
WIDEST = 64
"""Bytes of the widest vectors."""
FEW = 3
"""Up to so many rows, no tile is filled: b is read in place, once."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` scalars meet `vectors` vectors of `lanes` elements: rows * vectors accumulators.

    Twice `rows` divides the chunk by which threads share rows; `vectors` are 2 or more.
    """

    dtype: str
    lanes: int
    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """Columns of a full tile."""
        return self.lanes * self.vectors

    def height(self, vectors: int) -> int:
        """The rows of a full tile of so many vectors.

        One vector takes twice the rows: fewer sums could not hide how long an addition takes.
        """
        return self.rows if vectors > 1 else 2 * self.rows

    def vectors_of(self, columns: int) -> int:
        """How many vectors hold so many columns."""
        return -(-columns // self.lanes)

    def for_rest(self, columns: int) -> Tile:
        """The tile for the columns beyond full panels: of vectors half as wide, where they are
        filled better.  Those of 512 bits take some processors twice as long, and none less."""
        half = replace(self, lanes=self.lanes // 2)
        wide = self.lanes * ITEMSIZE[self.dtype] == WIDEST
        fits = half.vectors_of(columns) * half.lanes < self.vectors_of(columns) * self.lanes
        return half if wide and fits else self


def choose_tile(dtype: str, bits: int) -> Tile:
    """The tile for vector registers of `bits`: 32 registers of 512 bits, else 16."""
    lanes = bits // (8 * ITEMSIZE[dtype])
    return Tile(dtype, lanes, 8, 2) if bits == 512 else Tile(dtype, lanes, 4, 3)
