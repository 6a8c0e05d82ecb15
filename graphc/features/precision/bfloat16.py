"""Numbers of bfloat16, the upper halves of float32 numbers, and products of them.

NumPy has no such dtype: an array holds the 16 bits of each number as uint16.

A number has 8 significant bits, and is 0 or at least 2**-56 in magnitude: smaller ones are rounded
to 0.  So a product of two is exact in float32 and a multiple of 2**-126, and so are sums of
products: none is subnormal, and all processors compute the same bits, however they treat
subnormal numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.ir.forms import BLOCK, TermOrder

Array = NDArray[Any]

LEAST = 2.0**-56
"""The least magnitude besides 0."""
NAN = 0x7FC0
"""The bits of every NaN that rounding makes."""
OVERFLOW = 2.0**128
"""The least power of two that float32 does not hold."""


def rounded(x: Array) -> Array:
    """Return the bits of float32 numbers rounded to nearest, ties to even.

    Magnitudes below 2**-56 give +0, overflow gives infinity, NaN the positive quiet NaN.
    """
    whole = np.asarray(x, np.float32)
    words = whole.view(np.uint32)
    bits = np.asarray((words + (0x7FFF + (words >> 16 & 1))) >> 16, np.uint16)
    bits = np.where(np.abs(whole) < LEAST, np.uint16(0), bits)
    return np.asarray(np.where(np.isnan(whole), np.uint16(NAN), bits))


def nearest(x: Array) -> Array:
    """Return float32 numbers rounded to those of bfloat16, tiny ones too, as ONNX and PyTorch do.

    Overflow gives infinity; NaN and the sign of 0 stay.
    """
    words = np.asarray(x, np.float32).view(np.uint32)
    kept = words + (0x7FFF + (words >> 16 & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, np.asarray(kept, np.uint32).view(np.float32))


def halfway(x: Array) -> Array:
    """Return the numbers between two of bfloat16 at which x's rounding changes."""
    words = np.asarray(x, np.float32).view(np.uint32)
    return np.asarray(words & np.uint32(0xFFFF0000) | np.uint32(0x8000), np.uint32).view(np.float32)


def widened(bits: Array) -> Array:
    """Return the numbers of such bits as float32, which is exact."""
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)


def pairs(terms: int, run: int | None = None) -> Iterator[int]:
    """Yield the numbers of the terms of a sum in the order in which they are added: 1, 0, 3, 2, ...

    Pairs are counted within each run of so many terms; an odd last one has no partner.
    """
    run = run or max(terms, 1)
    for start in range(0, terms, run):
        for even in range(start, start + run, 2):
            if even + 1 < start + run:
                yield even + 1
            yield even


def blocks(terms: int, run: int | None = None) -> Iterator[slice]:
    """Yield the blocks of the terms of a sum; they are counted within each run of so many terms."""
    run = run or max(terms, 1)
    for start in range(0, terms, run):
        for first in range(start, start + run, BLOCK):
            yield slice(first, min(first + BLOCK, start + run))


def multiply_add(total: Array, a: Array, b: Array) -> Array:
    """Return total + a * b rounded once to float32; a and b have numbers of bfloat16.

    The product is exact in float32, so that the sum alone rounds.  If it may overflow all is in
    float64: a sum of two numbers of 24 bits that is rounded to 53 and to 24 bits equals the one
    that is rounded once.
    """
    largest = np.abs(a).max(initial=0).astype(np.float64) * np.abs(b).max(initial=0)
    if largest < OVERFLOW:
        return np.asarray(total + a * b)
    with np.errstate(all="ignore"):
        return np.asarray(total + a.astype(np.float64) * b).astype(np.float32)


def add_products(
    total: Array, a: Array, b: Array, run: int | None = None, order: TermOrder = "pairs"
) -> None:
    """Add a @ b, for bits (..., m, k) and (..., k, n), to float32 sums: each term rounds once.

    Pairs and blocks are counted within each run of so many terms.
    """
    if order == "blocks":
        for block in blocks(a.shape[-1], run):
            total += _block(a[..., block], b[..., block, :])
        return
    for p in pairs(a.shape[-1], run):
        left, right = widened(a[..., p : p + 1]), widened(b[..., p : p + 1, :])
        total[...] = multiply_add(total, left, right)


def _block(a: Array, b: Array) -> Array:
    """Return the sum of the products of a block: that of even terms plus that of odd ones."""
    even, odd = (multiplied(a[..., first::2], b[..., first::2, :], run=1) for first in (0, 1))
    return np.asarray(even + odd)


def multiplied(a: Array, b: Array, run: int | None = None, order: TermOrder = "pairs") -> Array:
    """Return a @ b, for bits (..., m, k) and (..., k, n), in float32: see `add_products`."""
    leading = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    total = np.zeros((*leading, a.shape[-2], b.shape[-1]), np.float32)
    add_products(total, a, b, run, order)
    return total
