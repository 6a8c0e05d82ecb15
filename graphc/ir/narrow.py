"""The numbers of `ORDERED`, a dtype that NumPy lacks, and the ordered sums of their products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphc.base.door import higher
from graphc.ir.forms import TermOrder
from graphc.ir.tensor_type import ORDERED

Array = NDArray[Any]


class Narrow(Protocol):
    """The functions of `ORDERED`; `bits` are its numbers in an array of `numpy_dtype`."""

    LEAST: float
    """The least magnitude besides 0."""
    NAN: int
    """The bits of every NaN that rounding makes."""

    def rounded(self, x: Array) -> Array:
        """Return the bits of float32 numbers."""

    def nearest(self, x: Array) -> Array:
        """Return float32 numbers rounded to those of the dtype."""

    def widened(self, bits: Array) -> Array:
        """Return the numbers of such bits as float32."""

    def pairs(self, terms: int, run: int | None = None) -> Iterator[int]:
        """Yield the numbers of the terms of a sum in the order "pairs"."""

    def multiply_add(self, total: Array, a: Array, b: Array) -> Array:
        """Return total + a * b, rounded once to float32."""

    def multiplied(
        self, a: Array, b: Array, run: int | None = None, order: TermOrder = "pairs"
    ) -> Array:
        """Return a @ b, for bits, in float32; runs are the terms within which pairs are counted."""

    def add_products(
        self, total: Array, a: Array, b: Array, run: int | None = None, order: TermOrder = "pairs"
    ) -> None:
        """Add a @ b, for bits, to float32 sums."""


def narrow() -> Narrow:
    """Return the functions of `ORDERED`."""
    found: Narrow = higher("narrow")
    return found


def converted(x: Array, dtype: str) -> Array:
    """Return numbers as an array of a dtype, toward zero for integers; bits stay bits."""
    if dtype == ORDERED:
        return x if x.dtype == np.uint16 else narrow().rounded(x)
    return x.astype(dtype, copy=False)


def dtype_of_sums(factor: Array) -> np.dtype[Any]:
    """Return the dtype in which products of an array's numbers are added."""
    return np.dtype(np.float32) if factor.dtype == np.uint16 else factor.dtype
