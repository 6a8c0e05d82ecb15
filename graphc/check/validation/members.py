"""Validates a population of a plan: each member has the bits of the same net trained alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from graphc.check.validation.faults import Fault, Trial, Trials
from graphc.compiler.plan import Plan
from graphc.files.graph_file import user_ops
from graphc.files.serialize import load, save
from graphc.ir.op import Array
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.runtime.row_axis import has_plain_rows

Arrays = Mapping[str, Array]
SEEDS = (7, 3, 5)
RATES = (1.0, 0.5, 0.25)
"""The factors of each member's hyper-parameters."""
KEPT = (2, 0)


def member_trials(plan: Plan, feeds: Arrays, files: bool) -> Trials:
    """Yield the trials of three members: with rows, seeds and rates of their own, kept, copied.

    With `files` the population is saved and loaded between two steps, too.
    """
    found = _Members(plan, feeds)
    yield from found.trials("a step", found.step)
    yield from found.trials("a step of rows of their own", found.step_of_rows)
    found.keep()
    yield from found.trials("keep", lambda: None)
    found.set_rates([0.125, 2.0])
    yield from found.trials("a step after keep", found.step)
    found.copy()
    yield from found.trials("a step after copy", found.step_of_rows)
    if files:
        found.save_and_load()
        yield from found.trials("save and load", found.step)


class _Members:
    """A population, and an executor of its own for each member."""

    def __init__(self, plan: Plan, feeds: Arrays) -> None:
        self.plan, self.feeds = plan, feeds
        self.population = Population(plan, seeds=SEEDS)
        self.alone = [Executor(plan, seed=seed) for seed in SEEDS]
        self.seeds = list(SEEDS)
        self.rates = [dict(ex.hyper) for ex in self.alone]
        self.set_rates(RATES)

    @property
    def rows(self) -> int:
        """The rows of the feeds; 0 if they have none that can be chosen."""
        types = {name: self.plan.declared[name].type for name in self.feeds}
        sizes = {len(self.feeds[k]) for k, type in types.items() if type.batched}
        plain = all(map(has_plain_rows, types.values()))
        return sizes.pop() if len(sizes) == 1 and plain else 0

    def set_rates(self, factors: Sequence[float]) -> None:
        """Set each hyper-parameter of each member to a part of its first value."""
        for name in self.rates[0]:
            values = [k * rate[name] for k, rate in zip(factors, self.rates, strict=True)]
            self.population.hyper[name] = values
            for ex, value in zip(self.alone, values, strict=True):
                ex.hyper[name] = value

    def step(self) -> tuple[Array, list[float]]:
        """Run a step of all on the same batch; return the losses of members, and those alone."""
        return self.population.step(self.feeds), [ex.step(self.feeds) for ex in self.alone]

    def step_of_rows(self) -> tuple[Array, list[float]]:
        """Run a step of each on rows of its own, of which there are not equally many."""
        if not self.rows:
            return self.step()
        order = np.arange(self.rows)
        chosen = [order[::-1], order[: -(-self.rows // 2)], order][: len(self.alone)]
        batched = {k for k in self.feeds if self.plan.declared[k].type.batched}
        losses = [
            ex.step({k: v[rows] if k in batched else v for k, v in self.feeds.items()})
            for ex, rows in zip(self.alone, chosen, strict=True)
        ]
        return self.population.step(self.feeds, rows=chosen), losses

    def keep(self) -> None:
        """Keep two members in another order."""
        self.population.keep(KEPT)
        self.alone = [self.alone[k] for k in KEPT]
        self.seeds = [self.seeds[k] for k in KEPT]
        self.rates = [self.rates[k] for k in KEPT]

    def copy(self) -> None:
        """Let the second member continue as the first."""
        self.population.copy(0, 1)
        self.alone[1].state = self.alone[0].snapshot()
        self.seeds[1] = self.seeds[0]

    def save_and_load(self) -> None:
        """Go on with a population of the file."""
        with tempfile.TemporaryDirectory() as folder:
            path = save(Path(folder) / "members.gc", self.population)
            loaded = load(path, ops=user_ops(self.plan.declared))
        assert isinstance(loaded, Population), "the file holds members"
        self.population = loaded

    def trials(self, what: str, run: Callable[[], tuple[Array, list[float]] | None]) -> Trials:
        """Run, and yield the states, outputs and loss of each member beside those of it alone."""
        losses = run()
        rows = next((len(x) for x in self.feeds.values() if x.ndim), 1)
        if list(self.population.seeds) != self.seeds:
            text = f"the seeds are {self.population.seeds}, not {self.seeds}, after {what}"
            yield Fault("population", "step", text, rows)
        outputs = self.population.forward(self.feeds)
        for i, ex in enumerate(self.alone):
            expected = {f"state {k}": v for k, v in ex.state.items()} | dict(ex.forward(self.feeds))
            found = {f"state {k}": self.population.state[k][i] for k in ex.state}
            found |= {k: v[i] for k, v in outputs.items()}
            if losses is not None:
                expected["the loss"], found["the loss"] = np.asarray(losses[1][i]), losses[0][i]
            says, by = f"member {i}: {{name}} {{wrong}}, after {what}", "the net alone gives"
            yield Trial("population", "step", expected, found, rows, says=says, by=by)
