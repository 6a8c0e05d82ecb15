"""Populations and files: the bits of the same nets trained alone, and without a stop."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import graphc as gc
from graphc.backends.backend import USUAL
from graphc.cli.installation.plain import Array
from graphc.cli.installation.trial import Trial, all_same, same

MEMBERS = 4
TURNS = 8
RATES = np.array([0.05, 0.02, 0.1, 0.01])


def trained_net(loop: bool = False) -> gc.Net:
    """Return a net with dropout, normalisation, and labels; it may begin with a loop."""
    net = gc.Net("trained")
    x = net.input("x", (gc.N, 6, 3))
    h = gc.gru(x, 5)[1] if loop else gc.affine(gc.flatten(x), 9)
    h = gc.dropout(gc.relu(gc.batchnorm(h)), keep_prob=0.7)
    scores = net.output("scores", gc.affine(h, 3))
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
        what = ("keep", "copy", "rates", "one", "file", "fit", "keep", "rates")[turn]
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
        shared = feeds_of(rng, 5)
        found, scores = population.forward(shared), population.predict(shared["x"])
        counted = population.evaluate(shared)
        for i, ex in enumerate(alone):
            outputs = ex.forward(shared)
            all_same(f"forward of member {i}", outputs, {k: a[i] for k, a in found.items()})
            same(f"predict of member {i}", outputs["scores"], np.asarray(scores[i]))
            same(f"evaluate of member {i}", ex.evaluate(shared)["loss"], float(counted["loss"][i]))


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


CHANGES = {
    **{"keep": _keep, "copy": _copy, "rates": _rates},
    **{"one": _one, "file": _file, "fit": _fit},
}


def files(trial: Trial) -> str:
    """Check nets that are saved, read and trained on, with those that never were."""
    count = 0
    for optimizer in OPTIMIZERS:
        plan = gc.compile(trained_net(), batch=5, optimizer=optimizer)
        ex = gc.Executor(plan, seed=trial.seed)
        for _ in range(3):
            ex.step(feeds_of(trial.rng, 5))
        ways: Mapping[str, Any] = {
            "gc.load": gc.load(gc.save(trial.folder / "net.gc", ex)),
            "pickle": pickle.loads(pickle.dumps(ex)),
            "a copy": copy.deepcopy(ex),
            "a state": _assigned(plan, ex),
        }
        with trial.case(f"files, by {optimizer!r}"):
            _go_on(trial, ex, ways)
        count += len(ways)
    return f"{count} executors read from files, pickles and states train on: every byte"


def _assigned(plan: gc.Plan, ex: gc.Executor) -> gc.Executor:
    other = gc.Executor(plan, seed=99)
    other.state = ex.snapshot()
    return other


def _go_on(trial: Trial, ex: gc.Executor, ways: Mapping[str, Any]) -> None:
    for turn in range(3):
        fed = feeds_of(trial.rng, 5 - turn)
        loss, outputs = ex.step(fed), ex.forward(fed)
        for what, other in ways.items():
            same(f"the loss of {what}", loss, other.step(fed))
            all_same(f"outputs of {what}", outputs, other.forward(fed))
            all_same(f"the state of {what}", ex.snapshot(), other.snapshot())
