"""Comparison of the results of two runs: by bytes, or within bounds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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


@dataclass(frozen=True)
class Case:
    """Results that must be the same, or near: those of one run, and of another."""

    before: Results
    after: Results
    allowed: str
    """The property that says how near they must be."""
    bounds: Callable[[int], Mapping[str, float]] | None = None
    """The bounds by a number of runs that measure rounding; without, every byte must be equal."""
    tries: Sequence[int] = (0, 2)
    """The numbers of runs: most results are within the bounds of none."""

    def mismatch(self, rows: int) -> Mismatch | None:
        """Return the first result that is missing, new, of another type, or not the same."""
        if self.bounds is None:
            return self._first(rows, None)
        for runs in self.tries:
            found = self._first(rows, self.bounds(runs))
            if found is None:
                break
        return found

    def _first(self, rows: int, bounds: Mapping[str, float] | None) -> Mismatch | None:
        for name in self.before:
            if name not in self.after:
                if name.startswith("mask "):
                    continue  # a mask may be fused into its user
                return Mismatch(name, rows, "is gone")
            bound = None if bounds is None else bounds.get(name, 0.0)
            found = self._differs(name, bound)
            if found:
                return Mismatch(name, rows, *found)
        added = (n for n in self.after if n not in self.before and not n.startswith("mask "))
        return next((Mismatch(name, rows, "was not there before") for name in added), None)

    def _differs(self, name: str, bound: float | None) -> tuple[str, ...]:
        """Return how a result differs most, and what is allowed; empty if it is the same.

        Without a bound above 0 every byte must be equal, but for the payload of NaN.
        """
        before, after = self.before[name], self.after[name]
        if before is after:  # a node that a pass has left as it was
            return ()
        if (before.shape, before.dtype) != (after.shape, after.dtype):
            now, then = (f"{array.dtype}{list(array.shape)}" for array in (after, before))
            return (f"is {now}, it was {then}",)
        worst = _worst(before, after, bound or 0.0, by_bits=not bound)
        if worst is None or bound == np.inf:
            return ()
        index, at = worst
        allowed = self.allowed
        if bound is not None and before.dtype.kind == "f":
            allowed = f"{allowed}, which allows a difference of {bound:.2g}"
        return f"is {after[index]!s}{at}, it was {before[index]!s}", allowed


def first_mismatch(cases: Iterable[Case | Mismatch], rows: int) -> Mismatch | None:
    """Return the first mismatch of some comparisons, which may be one already."""
    found = (case if isinstance(case, Mismatch) else case.mismatch(rows) for case in cases)
    return next(filter(None, found), None)


def gap(
    expected: Array, found: Array, bound: Array | float, by: str = "the reference gives"
) -> str:
    """Return the worst wrong number, where it is and what it should be; empty if none is wrong."""
    if expected.size != found.size:
        return f"has the shape {list(found.shape)}, the reference has {list(expected.shape)}"
    if expected.shape != found.shape:
        expected = expected.reshape(found.shape)
    worst = _worst(expected, found, bound)
    if worst is None:
        return ""
    index, at = worst
    right = np.asarray(expected[index], found.dtype)
    room = np.broadcast_to(bound, found.shape)[index]
    text = f", where rounding explains {room:.2g}" if room else ""
    return f"is {found[index]!s}{at}, {by} {right!s}{text}"


def same_bytes(one: Array, other: Array) -> bool:
    """Return whether two arrays have the same bytes."""
    return one.tobytes() == other.tobytes()


def _worst(
    right: Array, found: Array, bound: Array | float, by_bits: bool = False
) -> tuple[tuple[Any, ...], str] | None:
    """Return the index of the number that is furthest beyond its bound, and in words, or None.

    `by_bits` tells zeros of both signs apart.
    """
    if right.dtype.kind != "f":
        beyond = np.asarray(right != found, np.float64)
    else:
        with np.errstate(all="ignore"):
            beyond = np.abs(found.astype(np.float64) - right.astype(np.float64)) - bound
        beyond = np.where(np.isnan(beyond), np.inf, beyond)
        same = right == found
        if by_bits:
            same &= np.signbit(right) == np.signbit(found)
            beyond = np.maximum(beyond, np.finfo(np.float64).tiny)
        beyond = np.where(same | (np.isnan(right) & np.isnan(found)), -1.0, beyond)
    if not beyond.size or not beyond.max() > 0:
        return None
    index = np.unravel_index(int(beyond.argmax()), beyond.shape)
    return index, f" at {[int(i) for i in index]}" if index else ""
