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
TURNS = 9
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


def _live(rng: np.random.Generator, plan: gc.Plan, folder: Path) -> None:
    """Let members take turns in steps, and in what changes them."""
    seeds = rng.permutation(100)[:MEMBERS].tolist()
    population = gc.Population(plan, seeds=seeds, hyper={"lr": RATES})
    alone = [gc.Executor(plan, seed=seed) for seed in seeds]
    for ex, rate in zip(alone, RATES, strict=True):
        ex.hyper["lr"] = float(rate)
    for turn in range(TURNS):
        what = ("keep", "copy", "rates", "one", "file", "fit", "keep", "state", "rates")[turn]
        population, alone = CHANGES[what](rng, population, alone, folder)
        fed = feeds_of(rng, len(alone), int(rng.integers(1, 6)))
        losses = population.step(fed)
        right = [ex.step({k: a[i] for k, a in fed.items()}) for i, ex in enumerate(alone)]
        same(
            f"losses after {what}, turn {turn}",
            np.array(right, "float32"),
            np.array(losses, "float32"),
        )
        for i, ex in enumerate(alone):
            all_same(f"member {i} after {what}", ex.snapshot(), population[i].snapshot())
        _take_rows(rng, population, alone)
        shared = feeds_of(rng, 5)
        found, scores = population.forward(shared), population.predict(shared["x"])
        counted = population.evaluate(shared)
        for i, ex in enumerate(alone):
            outputs = ex.forward(shared)
            all_same(f"forward of member {i}", outputs, {k: a[i] for k, a in found.items()})
            same(f"predict of member {i}", outputs["scores"], np.asarray(scores[i]))
            same(f"evaluate of member {i}", ex.evaluate(shared)["loss"], float(counted["loss"][i]))


def _take_rows(
    rng: np.random.Generator, population: gc.Population, alone: list[gc.Executor]
) -> None:
    """Compare some members, in any order, each of which takes other rows of one array."""
    members = rng.permutation(len(alone))[: max(1, len(alone) - 1)].tolist()
    held = feeds_of(rng, 12)
    for size in rng.permutation([2, 5]).tolist():
        rows = rng.integers(0, 12, (len(members), size))
        found = population.forward(held, rows=rows, members=members)
        losses = population.step(held, rows=rows, members=members)
        for place, member in enumerate(members):
            own = {name: array[rows[place]] for name, array in held.items()}
            what, outputs = f"member {member} on {size} chosen rows", alone[member].forward(own)
            all_same(what, outputs, {name: array[place] for name, array in found.items()})
            same(f"the loss of {what}", alone[member].step(own), float(losses[place]))


Members = tuple[gc.Population, list[gc.Executor]]


def _keep(rng: Any, population: gc.Population, alone: list[gc.Executor], _: Path) -> Members:
    chosen = rng.permutation(len(alone))[: max(2, len(alone) - 1)].tolist()
    population.keep(chosen)
    return population, [alone[i] for i in chosen]


def _copy(rng: Any, population: gc.Population, alone: list[gc.Executor], _: Path) -> Members:
    source, target = rng.permutation(len(alone))[:2].tolist()
    population.copy(source, target)
    alone[target].state = alone[source].snapshot()
    return population, alone


def _rates(rng: Any, population: gc.Population, alone: list[gc.Executor], _: Path) -> Members:
    rates = rng.uniform(0.01, 0.1, len(alone))
    population.hyper["lr"] = rates
    for ex, rate in zip(alone, rates, strict=True):
        ex.hyper["lr"] = float(rate)
    return population, alone


def _one(rng: Any, population: gc.Population, alone: list[gc.Executor], _: Path) -> Members:
    member = int(rng.integers(len(alone)))
    population[member].hyper["lr"] = alone[member].hyper["lr"] = 0.03
    return population, alone


def _file(rng: Any, population: gc.Population, alone: list[gc.Executor], to: Path) -> Members:
    return gc.load(gc.save(to / "members.gc", population)), alone


def _fit(rng: Any, population: gc.Population, alone: list[gc.Executor], _: Path) -> Members:
    data = feeds_of(rng, 13)
    gc.fit(population, data, epochs=2, seed=3, progress=False)
    for ex in alone:
        gc.fit(ex, data, epochs=2, seed=3, progress=False)
    return population, alone


def _state(rng: Any, population: gc.Population, alone: list[gc.Executor], _: Path) -> Members:
    order = rng.permutation(len(alone)).tolist()
    kept = [alone[i].snapshot() for i in order]
    population.state = {n: np.stack([state[n] for state in kept]) for n in population.state}
    for ex, state in zip(alone, kept, strict=True):
        ex.state = {name: state[name] for name in population.state}
    return population, alone


CHANGES = {
    **{"keep": _keep, "copy": _copy, "rates": _rates},
    **{"one": _one, "file": _file, "fit": _fit, "state": _state},
}
