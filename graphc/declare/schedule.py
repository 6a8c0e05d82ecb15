"""The base of learning-rate schedules."""

from __future__ import annotations

from graphc.base.arguments import call_text
from graphc.ir.build import Value


class Schedule:
    """A factor on the learning rate as a function of the counter of updates."""

    __repr__ = call_text

    def rate(self, lr: Value, updates: Value, start: int = 0) -> Value:
        """Return the scalar `lr` times the factor, which counts updates from `start` on.

        Before `start` the factor keeps its initial value.
        """
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def reference(self, updates: int) -> float:
        """Return the factor after that many updates, in plain Python; counts below 0 mean 0.

        Validation compares `rate` with it; a class without it is not validated.
        """
        raise NotImplementedError(f"{type(self).__name__} has no reference rule")
