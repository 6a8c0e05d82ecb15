"""Comparison of the results of two runs: by bytes, or within bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.base.errors import counted
from graphc.ir.op import Array

Results = Mapping[str, Array]
"""Arrays by kind and name: `output scores`."""
NAMED = ("output", "loss", "gradient", "update", "start")
"""The kinds of results whose names users gave."""


@dataclass(frozen=True)
class Mismatch:
    """A result that a pass changed, and where it differs most."""

    what: str
    """The kind and name of the result: `output scores`."""
    rows: int
    """The number of rows of the batch that shows it."""
    fault: str
    """The fault, in a sentence without subject: `is 3.5 at [0, 2], it was 3.0`."""
    allowed: str = ""
    """The property that the pass declares, and the bound that follows."""
    node: str = ""
    """The node at fault, if it is known."""

    def __str__(self) -> str:
        kind, _, name = self.what.partition(" ")
        what = f"{kind} {name!r}" if kind in NAMED else self.what
        what = "" if kind == "value" else f"{what} "
        end = f"; {self.allowed}" if self.allowed else ""
        return f"{what}{self.fault}, with {counted(self.rows, 'row')}{end}"


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
    if before is after:  # a node that a pass has left as it was
        return None
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        now, then = (f"{array.dtype}{list(array.shape)}" for array in (after, before))
        return Mismatch(what, rows, f"is {now}, it was {then}")
    worst = _worst(_gaps(before, after, bound or 0.0))
    if worst is None:
        return None
    index, at = worst
    fault = f"is {after[index]!s}{at}, it was {before[index]!s}"
    if bound is not None and before.dtype.kind == "f":
        allowed = f"{allowed}, which allows a difference of {bound:.2g}"
    return Mismatch(what, rows, fault, allowed)


def _gaps(before: Array, after: Array, bound: float) -> Array:
    """Return the difference of each number if it exceeds the bound, or else 0."""
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


def _worst(gaps: Array) -> tuple[tuple[Any, ...], str] | None:
    """Return the index of the largest gap, and in words; None if none is above 0."""
    if not gaps.size or not gaps.max() > 0:
        return None
    index = np.unravel_index(int(gaps.argmax()), gaps.shape)
    return index, f" at {[int(i) for i in index]}" if index else ""


def same_bytes(one: Array, other: Array) -> bool:
    """Return whether two arrays have the same bytes."""
    return one.tobytes() == other.tobytes()


def gap(expected: Array, found: Array, bound: Array | float) -> str:
    """Return the worst wrong number, where it is and what it should be; empty if none is wrong."""
    if expected.size != found.size:
        return f"has the shape {list(found.shape)}, the reference has {list(expected.shape)}"
    if expected.shape != found.shape:
        expected = expected.reshape(found.shape)
    if expected.dtype.kind != "f":
        wrong = np.asarray(expected != found, np.float64)
    else:
        with np.errstate(all="ignore"):
            wrong = np.abs(found.astype(np.float64) - expected) - bound
        both = np.isnan(expected) & np.isnan(found) | (expected == found)
        wrong = np.where(both, -1.0, np.where(np.isnan(wrong), np.inf, wrong))
    worst = _worst(wrong)
    if worst is None:
        return ""
    index, at = worst
    right = np.asarray(expected[index], found.dtype)
    room = np.broadcast_to(bound, wrong.shape)[index]
    text = f", where rounding explains {room:.2g}" if room else ""
    return f"is {found[index]!s}{at}, the reference gives {right!s}{text}"
