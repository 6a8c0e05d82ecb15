"""The findings of check_layer, and their text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.ir.op import Array


@dataclass(frozen=True)
class Finding:
    """A fault: its place (`out`, `dw`, `cache`, ...), text, input, and perhaps its cause."""

    what: str
    text: str
    case: str
    cause: str = ""
    index: tuple[int, ...] | None = None
    theirs: float | None = None
    ours: float | None = None

    def __str__(self) -> str:
        cause = f"\n    likely cause: {self.cause}" if self.cause else ""
        return f"  {self.text}\n    for {self.case}{cause}"


@dataclass(frozen=True)
class LayerReport:
    """The result of `check_layer`; `str(report)` is for reading."""

    layer: str
    findings: tuple[Finding, ...]
    compared: tuple[str, ...]
    cases: int

    @property
    def ok(self) -> bool:
        """Return whether nothing is wrong."""
        return not self.findings

    def __str__(self) -> str:
        if self.ok:
            return (
                f"check_layer {self.layer}: ok, {_listed(self.compared)} "
                f"{'agrees' if len(self.compared) == 1 else 'agree'} on {self.cases} inputs"
            )
        wrong = _listed([finding.what for finding in self.findings])
        return "\n".join([f"check_layer {self.layer}: wrong in {wrong}", *map(str, self.findings)])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def close(theirs: Array, ours: Array) -> Array:
    """Return a mask of the entries where two arrays of one shape agree up to rounding."""
    scale = max(1.0, float(np.abs(ours).max(initial=0.0)))
    return np.asarray(np.isclose(theirs, ours, rtol=1e-6, atol=1e-9 * scale, equal_nan=False))


def matches(theirs: Any, candidate: Array) -> bool:
    """Return whether an array is the candidate, up to rounding."""
    return (
        isinstance(theirs, np.ndarray)
        and theirs.shape == candidate.shape
        and bool(close(theirs, candidate).all())
    )


def numbers(value: Any) -> Array | None:
    """Return the value as an array of float64, or None if it is not an array of numbers."""
    try:
        array = np.asarray(value)
        return np.asarray(array, np.float64) if array.dtype.kind in "fiub" else None
    except (TypeError, ValueError):
        return None


def difference(what: str, theirs: Any, ours: Any, case: str) -> Finding | None:
    """Return a finding about the worst entry that differs, or None if they agree."""
    mine, array = np.asarray(ours, np.float64), numbers(theirs)
    if array is None:
        return Finding(what, f"{what} is {_kind(theirs)}, it should be an array", case)
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
    text = f"{what}{place} is {a:.6g}, it should be {b:.6g} (off by {abs(a - b):.3g})"
    return Finding(what, text, case, "", index, a, b)


def _kind(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
