"""How far a result may be off: as far as noise of the size of rounding moves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Result = Mapping[str, Any]
NOISE = {"float32": 64 * 2.0**-24, "float64": 4096 * 2.0**-53}
# What is smaller may be rounded to 0, and is by machine code.
NORMAL = {"float32": 2.0**-126, "float64": 2.0**-1022}


class Wrong(Exception):
    """A result that is not what it should be."""


@dataclass
class Reference:
    """What a case should give: exactly, and with noise, of which more can be made."""

    exact: Sequence[Result]
    noisy: list[Sequence[Result]]
    more: Callable[[], Sequence[Result]]
    dtype: str
    blurred: int = 0
    seen: int = 0
    loose: set[str] = field(default_factory=set)

    def compare(
        self, what: str, found: Sequence[Result], other: Sequence[Result] | None = None
    ) -> None:
        """Raise Wrong where results differ from the exact ones, or others, by more than noise."""
        for _ in range(6):
            wrong = self._wrong(found, self.exact if other is None else other)
            if not wrong:
                return
            self.noisy += [self.more() for _ in range(4)]
        raise Wrong(f"{what}: {wrong}")

    def _wrong(self, found: Sequence[Result], other: Sequence[Result]) -> str:
        for turn, (a, b) in enumerate(zip(found, other, strict=True)):
            for name in a:
                if name in b and name in self.exact[turn]:
                    error = self._error(turn, name, np.asarray(a[name]), np.asarray(b[name]))
                    if error:
                        return f"turn {turn}, {name}: {error}"
        return ""

    def _error(self, turn: int, name: str, a: Any, b: Any) -> str:
        if a.shape != b.shape:
            return f"shape {a.shape}, not {b.shape}"
        limit, known = self.limit(turn, name)
        a, b = a.astype(float), b.astype(float)
        with np.errstate(all="ignore"):
            off = np.where(known, np.abs(a - b), 0)
            wrong = known & ~(off <= limit)
        self.seen += a.size
        self.blurred += int(
            np.sum(~known | (limit > 0.01 * np.maximum(np.abs(b), np.mean(np.abs(b))) + 1e-30))
        )
        if not wrong.any():
            return ""
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        most = f"may be off by {limit[at]:.2g}; {int(wrong.sum())} of {a.size}"
        return f"{a[at]!r} at {at}, not {b[at]!r}, {most}"

    def limit(self, turn: int, name: str) -> tuple[Any, Any]:
        """Return how far off each entry may be, and where that is known."""
        exact = np.asarray(self.exact[turn][name]).astype(float)
        runs = [np.asarray(noisy[turn][name]).astype(float) for noisy in self.noisy]
        known = np.isfinite(exact)
        with np.errstate(all="ignore"):
            for run in runs:
                known = known & np.isfinite(run) & (np.abs(run) < LARGEST[self.dtype])
            spread = np.max([np.abs(run - exact) for run in runs], axis=0)
            size = np.abs(np.where(known, exact, 0))
            least = NOISE[self.dtype] * (size + 0.01 * np.mean(size)) if size.size else size
        return 4 * spread + least + SMALLEST[self.dtype], known


LARGEST = {"float32": 1e36, "float64": 1e300}
SMALLEST = {"float32": 1e-30, "float64": 1e-200}


def same(what: str, found: Sequence[Result], other: Sequence[Result]) -> None:
    """Raise Wrong unless all results that both have are equal in every bit."""
    for turn, (a, b) in enumerate(zip(found, other, strict=True)):
        for name in a:
            if name in b and not equal(a[name], b[name]):
                a_, b_ = np.asarray(a[name]), np.asarray(b[name])
                raise Wrong(f"{what}: turn {turn}, {name} has other bits: {brief(a_, b_)}")


def equal(a: Any, b: Any) -> bool:
    """Return whether two arrays have the same bits; all NaN are one."""
    a, b = np.asarray(a), np.asarray(b)
    return (
        a.shape == b.shape
        and a.dtype == b.dtype
        and bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    )


def brief(a: Any, b: Any) -> str:
    """Return the first of the entries that differ."""
    if a.shape != b.shape:
        return f"{a.shape} and {b.shape}"
    at = tuple(int(i) for i in np.argwhere(~((a == b) | ((a != a) & (b != b))))[0])
    return f"{a[at]!r} and {b[at]!r} at {at}"
