"""A comparison of arrays: whether two agree up to rounding, and where they do not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.op import Array

Candidate = tuple[str, Any]
"""A mistake, and the result that it gives."""


def close(theirs: Array, ours: Array) -> Array:
    """Return a mask of the entries where two arrays of one shape agree up to rounding."""
    scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
    with np.errstate(invalid="ignore"):
        near = np.abs(theirs - ours) <= 1e-9 * scale + 1e-6 * np.abs(ours)
    return np.asarray((theirs == ours) | (near & np.isfinite(ours)))


def matches(theirs: Array, candidate: Array) -> bool:
    """Return whether an array is the candidate, up to rounding; NaN equals NaN."""
    if theirs.shape != candidate.shape:
        return False
    same = close(theirs, candidate) | (np.isnan(theirs) & np.isnan(candidate))
    return bool(same.all())


def first_match(theirs: Array, mistakes: Iterable[Candidate]) -> str:
    """Return the first of the mistakes whose result equals `theirs`, or ""."""
    return next((text for text, result in mistakes if matches(theirs, np.asarray(result))), "")


def numbers(value: Any) -> Array | None:
    """Return the value as an array of float64, or None if it is not an array of numbers."""
    try:
        array = np.asarray(value)
        return np.asarray(array, np.float64) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None


def described(value: Any) -> str:
    """Return a value's kind in words: `None`, `an array of float64`, `a list`."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


@dataclass(frozen=True)
class Finding:
    """A fault of a layer: the wrong result (`out`, `dw`, ...), the input, and a likely cause."""

    what: str
    text: str
    case: str
    cause: str = ""
    index: tuple[int, ...] | None = None
    theirs: float | None = None
    ours: float | None = None


def difference(what: str, theirs: Any, ours: Any, case: str) -> Finding | None:
    """Return a finding about the worst entry that differs, or None if they agree."""
    mine, array = np.asarray(ours, np.float64), numbers(theirs)
    if array is None:
        wanted = "an array of real numbers" if isinstance(theirs, np.ndarray) else "an array"
        return Finding(what, f"{what} is {described(theirs)}, it should be {wanted}", case)
    if array.shape != mine.shape:
        text = f"{what} has shape {array.shape}, it should have {mine.shape}"
        return Finding(what, text, case)
    same = close(array, mine)
    if same.all():
        return None
    gap = np.where(same, -1.0, np.nan_to_num(np.abs(array - mine), nan=np.inf))
    index = tuple(int(i) for i in np.unravel_index(int(gap.argmax()), gap.shape))
    a, b = float(array[index]), float(mine[index])
    place = f"[{', '.join(map(str, index))}]" if index else ""
    off = f" (off by {abs(a - b):.3g})" if np.isfinite(a - b) else ""
    text = f"{what}{place} is {a:.6g}, it should be {b:.6g}{off}"
    return Finding(what, text, case, "", index, a, b)
