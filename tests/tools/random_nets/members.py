"""A case as a population: each member has the bits of the net trained alone, whatever is done."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc

from .compare import Wrong, same
from .drawer import Skip
from .runs import Result, act, lasting, outputs, plan_of, start_of
from .transformations import Check, verified

MOST = 3


class Members:
    """A population, and an executor alone for each of its members."""

    def __init__(self, c: Check) -> None:
        backend = "native" if c.rng.random() < 0.05 else "numpy"
        plan = verified(plan_of(c.case, backend=backend, threads=c.one([1, 2])))
        seeds = [c.case.seed + i for i in range(MOST)]
        self.c = c
        self.population = gc.Population(plan, seeds=seeds)
        self.alone = [gc.Executor(plan, seed=seed) for seed in seeds]
        start = start_of(c.case, self.alone[0])
        for i, (ex, member) in enumerate(zip(self.alone, self.population, strict=True)):
            own = {n: (a * (1 + 0.1 * i)).astype(a.dtype) for n, a in start.items()}
            ex.state.assign(own)
            member.state.assign(own)

    def change(self) -> str:
        """Keep, copy or set something, here and there, and return what."""
        what: str = self.c.one(["nothing", "keep", "copy", "rates", "one rate"])
        getattr(self, f"_{what.replace(' ', '_')}")()
        return what

    def _nothing(self) -> None:
        pass

    def _keep(self) -> None:
        chosen = self.c.rng.permutation(len(self.alone))[: self.c.one([1, 2, 3])].tolist()
        self.population.keep(chosen)
        self.alone = [self.alone[i] for i in chosen]

    def _copy(self) -> None:
        source, target = (int(self.c.rng.integers(len(self.alone))) for _ in range(2))
        self.population.copy(source, target)
        self.alone[target].state = self.alone[source].snapshot()

    def _rates(self) -> None:
        rates = self.c.rng.uniform(0.001, 0.02, len(self.alone))
        self.population.hyper["lr"] = rates
        for ex, rate in zip(self.alone, rates, strict=True):
            ex.hyper["lr"] = float(rate)

    def _one_rate(self) -> None:
        member = int(self.c.rng.integers(len(self.alone)))
        self.population[member].hyper["lr"] = 0.003
        self.alone[member].hyper["lr"] = 0.003

    def act(self, action: str, rows: int, turn: int) -> tuple[list[Result], list[Result]]:
        """Return what the members give for an action, and what the executors alone give."""
        feeds = [self.c.case.feeds(rows, 100 * i + turn) for i in range(len(self.alone))]
        if self.c.rng.random() < 0.5:
            feeds, fed = feeds[:1] * len(self.alone), feeds[0]
        else:
            fed = {n: np.stack([f[n] for f in feeds]) for n in feeds[0]}
        right = [act(ex, action, f) for ex, f in zip(self.alone, feeds, strict=True)]
        return self._together(action, fed), right

    def _together(self, action: str, fed: dict[str, Any]) -> list[Result]:
        if action == "step":
            losses = self.population.step(fed)
            return [{"loss": x, **lasting(m)} for x, m in zip(losses, self.population, strict=True)]
        found = self.population.forward(fed)
        return [outputs({n: v[i] for n, v in found.items()}) for i in range(len(self.alone))]


def members(c: Check) -> None:
    """Run the steps and inferences of a case on members that are kept, copied and set between."""
    if c.case.optimizer is None:
        raise Skip
    m, done = Members(c), []
    for turn, (action, rows) in enumerate(c.case.actions):
        if action not in ("step", "infer"):
            continue
        done.append(m.change())
        found, right = m.act(action, rows, turn)
        if len(m.population) != len(right):
            raise Wrong(f"members: {len(m.population)}, not {len(right)}")
        for i in range(len(right)):
            same(f"member {i} after {', '.join(done)}", found[i : i + 1], right[i : i + 1])
