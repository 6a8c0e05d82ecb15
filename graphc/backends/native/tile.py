"""The register tile of the matrix product: rows x vectors of accumulators over all of k."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graphc.ir.tensor_type import ITEMSIZE

LINE = 64
"""The bytes that move between caches together."""
K_BLOCK = 256
"""The rows of a block of k; sums longer than four blocks are added up in blocks, so that a panel of
one stays in the second-level cache."""
WIDEST = 64
"""The bytes of the widest vectors."""
FEW = 3
"""The most rows that are too few for tiles: b is then read in place, once."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile, where `rows` scalars meet `vectors` vectors of `lanes`: rows * vectors accumulators.

    Twice `rows` divides the chunk by which threads share rows; `vectors` are 2 or more.
    """

    dtype: str
    lanes: int
    rows: int
    vectors: int

    @property
    def width(self) -> int:
        """The columns of a full tile."""
        return self.lanes * self.vectors

    def height(self, vectors: int) -> int:
        """Return the rows of a full tile of `vectors` vectors.

        One vector takes twice the rows: fewer sums could not hide the latency of an addition.
        """
        return self.rows if vectors > 1 else 2 * self.rows

    def vectors_of(self, columns: int) -> int:
        """Return the number of vectors that hold `columns` columns."""
        return -(-columns // self.lanes)

    def for_rest(self, columns: int) -> Tile:
        """Return the tile for the columns beyond full panels.

        Its vectors are half as wide if that fills them better: those of 512 bits take some
        processors twice as long, and none less.
        """
        half = replace(self, lanes=self.lanes // 2)
        wide = self.lanes * ITEMSIZE[self.dtype] == WIDEST
        fits = half.vectors_of(columns) * half.lanes < self.vectors_of(columns) * self.lanes
        return half if wide and fits else self


def choose_tile(dtype: str, bits: int) -> Tile:
    """Return the tile for vector registers of `bits`: 32 registers of 512 bits, else 16."""
    lanes = bits // (8 * ITEMSIZE[dtype])
    return Tile(dtype, lanes, 8, 2) if bits == 512 else Tile(dtype, lanes, 4, 3)
