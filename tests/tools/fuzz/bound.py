"""The bound on an error, taken from the graph itself.

A case is run in wide arithmetic, which gives the meaning, and several times in its own dtypes with
more roundings, drawn at random (tests/tools/fuzz/wide.py).  The spread of an element is how far the
noisy runs are from the meaning, at most; the error of what graphc computed may be FACTOR times
as much.  For an element that the noise happens to miss, an eighth of the largest spread of its
array stands.  A graph that amplifies rounding has a wide bound, and one that only moves numbers
has the bound 0.

One noisy run decides most cases.  Where it accuses, more are made, up to MOST: more runs only
widen a bound, so that the rule is that of MOST runs, and one is a short cut.

Where an operand is so near a kink that rounding might put it on the other side (within FACTOR
spreads, or 1e-6), the numbers are drawn again.  Exactly on a kink in every run, such as where a
relu's zeros meet a maximum, is allowed: graphc says what happens there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from graphc.ir.op import Array
from tests.tools.fuzz.meaning import Meaning, Outcome, outcome
from tests.tools.fuzz.wide import FACTOR, WIDE, Noise, limits

RUNS = (1, 4, 32)
MOST = RUNS[-1]
KINK = 1e-6
LOOSE = 0.01
TINY = 1e-37
"""Near the smallest normal float32: what is smaller may be flushed to zero."""


class Wrong(NamedTuple):
    """An array that is not what it means."""

    event: int
    what: str
    error: float
    bound: float

    def __str__(self) -> str:
        return f"event {self.event}, {self.what}: error {self.error:.3g}, bound {self.bound:.3g}"


class Meant:
    """The meaning of a case, and as many noisy runs as have been asked for."""

    def __init__(self, meaning: Meaning) -> None:
        self.meaning = meaning
        self.exact = outcome(meaning)
        self.noisy: list[Outcome] = []
        self.judged, self.loose, self.closest = 0, 0, 0.0
        """Results, those with a bound above LOOSE of them, and the largest error by bound."""

    def widen(self, runs: int) -> None:
        """Make noisy runs until there are so many."""
        while len(self.noisy) < runs:
            self.noisy.append(outcome(self.meaning, self._noise()))

    def _noise(self) -> Noise:
        return Noise(len(self.noisy), self.exact.factors)

    @property
    def finite(self) -> bool:
        """Whether every number of every run is."""
        return self.exact.finite and all(each.finite for each in self.noisy)

    def near_kink(self) -> bool:
        """Whether rounding may decide what an op does."""
        return any(
            _near(distance, [each.kinks[event][name] for each in self.noisy])
            for event, kinks in enumerate(self.exact.kinks)
            for name, distance in kinks.items()
        )

    def on_kink(self) -> bool:
        """Whether an operand is exactly on one, where a slope is a matter of convention."""
        return any(not d.all() for kinks in self.exact.kinks for d in kinks.values())

    def bound(self, event: int, what: str) -> Array:
        """For each element of a result."""
        exact = self.exact.results[event][what]
        return bound(exact, (each.results[event][what] for each in self.noisy))

    def wrong(self, found: Iterable[Mapping[str, Array]]) -> Wrong | None:
        """The first of the found results that is outside its bound; all events, once or more."""
        events = len(self.exact.results)
        for number, results in enumerate(found):
            event = number % events
            for what, array in results.items():
                wrong = self._judge(event, what, np.asarray(array))
                if wrong is not None:
                    return wrong
        return None

    def _judge(self, event: int, what: str, found: Array) -> Wrong | None:
        exact = self.exact.results[event][what]
        if found.shape != exact.shape:
            return Wrong(event, f"{what} has shape {found.shape}", np.inf, 0.0)
        if exact.dtype.kind != "f":
            differ = int((found != exact).sum())
            return Wrong(event, what, differ, 0.0) if differ else None
        error = np.abs(found.astype(WIDE) - exact)
        limit = self.bound(event, what)
        bad = ~(error <= limit)
        if not bad.any():
            self._count(exact, error, limit)
            return None
        worst = int(np.argmax(np.where(bad, error / (limit + TINY), 0)))
        return Wrong(event, what, float(error.flat[worst]), float(limit.flat[worst]))

    def _count(self, exact: Array, error: Array, limit: Array) -> None:
        if exact.size:
            self.judged += 1
            self.closest = max(self.closest, float((error / (limit + TINY)).max()))
            self.loose += bool(limit.max() > LOOSE * np.abs(exact).max())


def spread(exact: Array, noisy: Iterable[Array]) -> Array:
    """How far the noisy runs are from the exact one, at most, element by element."""
    widest = np.zeros(exact.shape, WIDE)
    for other in noisy:
        np.maximum(widest, np.abs(other - exact), out=widest)
    return widest


def bound(exact: Array, noisy: Iterable[Array]) -> Array:
    """FACTOR times the spread, and no less than that of an eighth of the largest."""
    return limits(spread(exact, noisy)) + TINY


def _near(distance: Array, noisy: list[Array]) -> bool:
    limit = np.maximum(FACTOR * spread(distance, noisy), KINK)
    near = np.abs(distance) <= limit
    if not near.any():
        return False
    on = distance == 0
    for other in noisy:
        on &= other == 0
    return bool((near & ~on).any())
