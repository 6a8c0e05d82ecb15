"""Gradients against central differences of the losses along a random direction.

Both are computed in wide arithmetic, so that a difference has about twelve right digits.  This is
independent of every gradient rule.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.ir.op import Array
from graphc.ops.shape import StopGradient
from graphc.ops.source import Input, Parameter
from tests.tools.fuzz.bound import Meant
from tests.tools.fuzz.looped import stops_inside
from tests.tools.fuzz.wide import WIDE, Run

STEP = 1e-5
TOLERANCE = 1e-7


def wrong_slope(meant: Meant) -> str | None:
    """What is wrong with the gradients of the first event that has them."""
    kinds = [event.kind for event in meant.meaning.case.events]
    places = [i for i, kind in enumerate(kinds) if kind in ("train", "update")]
    declared = meant.meaning.declared
    if not places or not declared.losses or any(stops_inside(node.op) for node in declared):
        return None
    return _Slopes(meant, places[0]).wrong()


class _Slopes:
    """The losses of one event as a function of a step along a direction."""

    def __init__(self, meant: Meant, number: int) -> None:
        meaning = meant.meaning
        self.feeds = meaning.case.feeds(number)
        self.state = meant.exact.before[number]
        self.wide = meaning.wide("losses", meaning.case.events[number].n)
        graph = self.wide.graph
        results = meant.exact.results[number]
        sources = [n.name for n in graph if isinstance(n.op, (Input, Parameter))]
        self.gradients = {
            name: results[f"gradient {name}"] for name in sources if f"gradient {name}" in results
        }
        rng = np.random.default_rng(meaning.case.draw)
        self.direction = {
            name: rng.standard_normal(gradient.shape).astype(WIDE)
            for name, gradient in self.gradients.items()
        }
        self.stopped: Mapping[str, Array] = {}
        self.here = self._run(0.0)
        self.stopped = {n.name: self.here.values[n.name] for n in graph if _stops(n.op)}

    def wrong(self) -> str | None:
        """A sentence, or None where the gradients are right or a kink is too near to tell."""
        parts = [gradient * self.direction[k] for k, gradient in self.gradients.items()]
        slope, size = sum(part.sum() for part in parts), sum(abs(part).sum() for part in parts)
        runs = [self._run(step) for step in (STEP, -STEP, STEP / 2, -STEP / 2)]
        if not all(_same_side(self.here, run) for run in runs):
            return None
        high, low, near_high, near_low = (self._loss(run) for run in runs)
        coarse, fine = (high - low) / (2 * STEP), (near_high - near_low) / STEP
        bound = TOLERANCE * (size + abs(self._loss(self.here))) + 4 * abs(coarse - fine)
        if abs(fine - slope) <= bound:
            return None
        return f"the slope of the losses is {fine:.9g}, by the gradients it is {slope:.9g}"

    def _run(self, step: float) -> Run:
        moved = {k: step * d for k, d in self.direction.items()}
        feeds = {k: v + moved[k] if k in moved else v for k, v in self.feeds.items()}
        state = {k: v + moved[k] if k in moved else v for k, v in self.state.items()}
        return self.wide.run(feeds, state, frozen=self.stopped)

    def _loss(self, run: Run) -> Array:
        graph = self.wide.graph
        return np.asarray(sum(run.values[graph.outputs[name]] for name in graph.losses))


def _stops(op: object) -> bool:
    return isinstance(op, StopGradient)


def _same_side(a: Run, b: Run) -> bool:
    """Whether every choice of an op is the same in both, and none is on a kink."""
    return all(bool((d * b.kinks[name] > 0).all()) for name, d in a.kinks.items())
