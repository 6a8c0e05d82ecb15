"""Compares two results, by bytes or within a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from graphc.check.validation.run import Results
from graphc.ir.op import Array


@dataclass(frozen=True)
class Mismatch:
    """A result that a pass changed, and where it differs most."""

    what: str
    """The kind and name of the result: `output scores`."""
    rows: int
    """The number of rows of the batch that shows it."""
    told: str
    """The fault, in a sentence without subject: `is 3.5 at [0, 2], it was 3.0`."""
    allowed: str = ""
    """The property that the pass declares, and the bound that follows."""
    node: str = ""
    """The node at fault, if it is known."""

    def __str__(self) -> str:
        kind, _, name = self.what.partition(" ")
        what = f"{kind} {name!r}" if kind in ("output", "gradient", "update") else self.what
        rows = f"{self.rows} row" + "s" * (self.rows != 1)
        end = f"; {self.allowed}" if self.allowed else ""
        return f"{what} {self.told}, with {rows}{end}"


def first_mismatch(
    before: Results, after: Results, bounds: Mapping[str, float] | None, rows: int, allowed: str
) -> Mismatch | None:
    """Return the first result that is missing, new, of another type, or not the same.

    Without bounds every byte must be equal, but for the payload of NaN; else no number may
    differ by more than the bound of its result.
    """
    for name, value in before.items():
        if name not in after:
            if name.startswith("mask "):
                continue  # a mask may be fused into its user
            return Mismatch(name, rows, "is gone")
        bound = None if bounds is None else bounds[name]
        found = mismatch(name, value, after[name], bound, rows, allowed)
        if found is not None:
            return found
    new = next((n for n in after if n not in before and not n.startswith("mask ")), None)
    return None if new is None else Mismatch(new, rows, "was not there before")


def mismatch(
    what: str, before: Array, after: Array, bound: float | None, rows: int, allowed: str = ""
) -> Mismatch | None:
    """Return the place where a result differs most; None if it is the same."""
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        told = f"is {_type(after)}, it was {_type(before)}"
        return Mismatch(what, rows, told)
    gaps = _gaps(before, after, bound or 0.0)
    if not gaps.size or not gaps.max():
        return None
    index = np.unravel_index(int(gaps.argmax()), gaps.shape)
    at = f" at {[int(i) for i in index]}" if index else ""
    told = f"is {_number(after[index])}{at}, it was {_number(before[index])}"
    if bound is not None and before.dtype.kind == "f":
        allowed = f"{allowed}, which allows a difference of {bound:.2g}"
    return Mismatch(what, rows, told, allowed)


def _gaps(before: Array, after: Array, bound: float) -> Array:
    """Return how far each number is off if that is beyond the bound, and else 0."""
    if before.dtype.kind != "f":
        return np.asarray(before != after, np.float64)
    bits = _BITS[before.dtype.itemsize]
    same = (before.view(bits) == after.view(bits)) | (np.isnan(before) & np.isnan(after))
    with np.errstate(all="ignore"):
        gaps = np.abs(after.astype(np.float64) - before.astype(np.float64))
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    if bound:
        return np.where(same | (gaps <= bound), 0.0, gaps)
    return np.where(same, 0.0, np.maximum(gaps, np.finfo(np.float64).tiny))


_BITS = {4: np.uint32, 8: np.uint64}


def _type(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _number(number: object) -> str:
    return str(number)
