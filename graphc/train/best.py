"""The best number so far of a sequence, and how long it has been the best."""

from __future__ import annotations

import math


class Best:
    """Numbers of one name, one per epoch; smaller is better, or with `largest`, larger is.

    The best is the first of equals, and never NaN.
    """

    def __init__(self, largest: bool = False, least: float = 0.0) -> None:
        self._sign, self._least = -1.0 if largest else 1.0, least
        self._best = math.inf
        self.waited = 0
        """The numbers since one that was better by more than `least` than the best before it."""

    def add(self, value: float) -> bool:
        """Add the number of the next epoch and return whether it is the best so far."""
        value *= self._sign
        self.waited = 0 if value < self._best - self._least else self.waited + 1
        best = value < self._best
        if best:
            self._best = value
        return best
