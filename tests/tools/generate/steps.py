"""All steps that a net may grow by, and how often each is taken."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Collection
from functools import lru_cache
from itertools import accumulate

import graphc as gc
from tests.tools.generate import (
    functions,
    images,
    indices,
    layers,
    loops,
    others,
    sequences,
    shapes,
)
from tests.tools.generate.growth import Growth

Step = Callable[[Growth, gc.Value], gc.Value]

STEPS: dict[Step, int] = {
    **layers.STEPS,
    **functions.STEPS,
    **shapes.STEPS,
    **images.STEPS,
    **others.STEPS,
    **sequences.STEPS,
    **indices.STEPS,
    **loops.STEPS,
}
"""With weights: a step of weight 2 is taken twice as often as one of weight 1."""


def grow(g: Growth, steps: int, without: Collection[str] = (), once: str = "") -> None:
    """Take that many steps, but none of those named; and one of the name `once`, if there is."""
    chosen, sums = _table(frozenset(without))
    place = g.r.randrange(steps) if once else -1
    for number in range(steps):
        step = chosen[bisect(sums, g.r.randrange(sums[-1]))]
        g.add(step(g, g.recent()))
        if number == place:
            named = next(step for step in STEPS if step.__name__ == once)
            g.add(named(g, g.recent()))


@lru_cache
def _table(without: frozenset[str]) -> tuple[tuple[Step, ...], tuple[int, ...]]:
    unknown = without - {step.__name__ for step in STEPS}
    assert not unknown, f"there are no steps {unknown}"
    kept = {step: weight for step, weight in STEPS.items() if step.__name__ not in without}
    return tuple(kept), tuple(accumulate(kept.values()))
