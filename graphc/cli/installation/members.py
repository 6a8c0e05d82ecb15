"""Populations: the bits of the same nets trained alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import USUAL
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import Trial, all_same, same

MEMBERS = 4
RATES = np.array([0.05, 0.02, 0.1, 0.01])


def trained_net(loop: bool = False) -> gc.Net:
    """Return a net with dropout, normalisation, and labels; it may begin with a loop."""
    net = gc.Net("trained")
    x = net.input("x", (gc.N, 6, 3))
    h = gc.gru(x, 5)[1] if loop else gc.affine(gc.flatten(x), 9)
    h = gc.dropout(gc.relu(gc.batchnorm(h)), keep_prob=0.7)
    scores = net.output("scores", gc.affine(h, 3, name="last"))
    net.loss("loss", gc.softmax_loss(scores, net.input("y", (gc.N,), dtype="int64")))
    return net


def feeds_of(rng: np.random.Generator, *shape: int) -> dict[str, Array]:
    """Return feeds of that net."""
    x = rng.normal(size=(*shape, 6, 3)).astype("float32")
    return {"x": x, "y": rng.integers(0, 3, shape)}


def populations(trial: Trial) -> str:
    """Check members that are kept, copied and changed, with the same nets alone."""
    here, number = [name for name in trial.backends() if name in USUAL], 0
    for number in trial.numbers(3 * len(here)):
        backend, optimizer = here[number % len(here)], OPTIMIZERS[number % len(OPTIMIZERS)]
        rng = np.random.default_rng([trial.seed, number])
        net = trained_net(loop=number % 3 == 2)
        plan = gc.compile(net, batch=5, optimizer=optimizer, backend=backend, threads=2)
        with trial.case(f"population {number} on {backend}, by {optimizer!r}"):
            _live(rng, plan, trial.folder)
    return f"{number + 1} populations of {MEMBERS}, each with the same nets alone: every byte"


OPTIMIZERS = (
    gc.Adam(lr=0.05, weight_decay=0.01),
    gc.SGD(lr=0.05, momentum=0.9, clip_norm=1.0),
    gc.AdamW(lr=0.05, ema=0.9, weight_decay=0.1),
)


class Members:
    """A population and the same nets alone, which changes keep alike."""

    def __init__(self, rng: np.random.Generator, plan: gc.Plan, folder: Path) -> None:
        self.rng, self.file = rng, folder / "members.gc"
        seeds = rng.permutation(100)[:MEMBERS].tolist()
        self.population = gc.Population(plan, seeds=seeds, hyper={"lr": RATES})
        self.alone = [gc.Executor(plan, seed=seed) for seed in seeds]
        for ex, rate in zip(self.alone, RATES, strict=True):
            ex.hyper["lr"] = float(rate)

    def order(self, leave: int = 0) -> list[int]:
        """Return members in a random order, but for some."""
        return [int(i) for i in self.rng.permutation(len(self.alone))[leave:]]

    def keep(self) -> None:
        """Keep all members but one, or two."""
        chosen = self.order(1 if len(self.alone) > 2 else 0)
        self.population.keep(chosen)
        self.alone = [self.alone[i] for i in chosen]

    def copy(self) -> None:
        """Copy a member to another."""
        source, target = self.order()[:2]
        self.population.copy(source, target)
        self.alone[target].state = self.alone[source].snapshot()

    def rates(self) -> None:
        """Give each a rate."""
        rates = self.rng.uniform(0.01, 0.1, len(self.alone))
        self.population.hyper["lr"] = rates
        for ex, rate in zip(self.alone, rates, strict=True):
            ex.hyper["lr"] = float(rate)

    def one(self) -> None:
        """Give one a rate."""
        member = int(self.rng.integers(len(self.alone)))
        self.population[member].hyper["lr"] = self.alone[member].hyper["lr"] = 0.03

    def read(self) -> None:
        """Read the population from a file."""
        self.population = gc.load(gc.save(self.file, self.population))

    def fit(self) -> None:
        """Train all by gc.fit."""
        data = feeds_of(self.rng, 13)
        everyone: list[Any] = [self.population, *self.alone]
        for each in everyone:
            gc.fit(each, data, epochs=2, seed=3, progress=False)

    def state(self) -> None:
        """Set the states to those of members in another order."""
        kept = [self.alone[i].snapshot() for i in self.order()]
        names = list(self.population.state)
        self.population.state = {n: np.stack([state[n] for state in kept]) for n in names}
        for ex, state in zip(self.alone, kept, strict=True):
            ex.state = {name: state[name] for name in names}


def _live(rng: np.random.Generator, plan: gc.Plan, folder: Path) -> None:
    """Let members take turns in steps, and in what changes them."""
    both = Members(rng, plan, folder)
    changes = (both.keep, both.copy, both.rates, both.one, both.read, both.fit)
    for turn, change in enumerate((*changes, both.keep, both.state, both.rates)):
        change()
        what, population, alone = change.__name__, both.population, both.alone
        fed = feeds_of(rng, len(alone), int(rng.integers(1, 6)))
        losses = np.array(population.step(fed), "float32")
        right = [ex.step({k: a[i] for k, a in fed.items()}) for i, ex in enumerate(alone)]
        same(f"losses after {what}, turn {turn}", np.array(right, "float32"), losses)
        for i, ex in enumerate(alone):
            all_same(f"member {i} after {what}", ex.snapshot(), population[i].snapshot())
        _take_rows(both)
        shared = feeds_of(rng, 5)
        found, scores = population.forward(shared), population.predict(shared["x"])
        counted = population.evaluate(shared)
        for i, ex in enumerate(alone):
            outputs = ex.forward(shared)
            all_same(f"forward of member {i}", outputs, {k: a[i] for k, a in found.items()})
            same(f"predict of member {i}", outputs["scores"], np.asarray(scores[i]))
            same(f"evaluate of member {i}", ex.evaluate(shared)["loss"], float(counted["loss"][i]))


def _take_rows(both: Members) -> None:
    """Compare some members, in any order, each of which takes other rows of one array."""
    rng, members = both.rng, both.order(1 if len(both.alone) > 1 else 0)
    held = feeds_of(rng, 12)
    for size in rng.permutation([2, 5]).tolist():
        rows = rng.integers(0, 12, (len(members), size))
        found = both.population.forward(held, rows=rows, members=members)
        losses = both.population.step(held, rows=rows, members=members)
        for place, member in enumerate(members):
            own = {name: array[rows[place]] for name, array in held.items()}
            what, outputs = (
                f"member {member} on {size} chosen rows",
                both.alone[member].forward(own),
            )
            all_same(what, outputs, {name: array[place] for name, array in found.items()})
            same(f"the loss of {what}", both.alone[member].step(own), float(losses[place]))
