"""Every operation on members, after every other: each member stays its net trained alone."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array

WIDTH, CLASSES, ROWS, BATCH = 3, 3, 12, 4
SEEDS = (3, 1, 4, 15)


def plan_of(backend: str) -> gc.Plan:
    """A plan with all that a member has: slots, rates, schedules, statistics, masks, numbers."""
    net = gc.Net("classes")
    x, y = net.input("x", (gc.N, WIDTH)), net.input("y", (gc.N,), dtype="int64")
    h = gc.dropout(gc.batchnorm(gc.relu(gc.affine(x, 4))), keep_prob=0.75)
    scores = net.output("scores", gc.affine(h, CLASSES))
    net.loss("loss", gc.softmax_loss(scores, y))
    optimizer = gc.AdamW(lr=0.1, weight_decay=0.01, schedule=gc.Cosine(300))
    return gc.compile(net, batch=BATCH, optimizer=optimizer, backend=backend)


class Members:
    """A population, and executors that its members are to equal."""

    def __init__(self, plan: gc.Plan, folder: Path) -> None:
        self.population = gc.Population(plan, seeds=SEEDS)
        self.alone = [gc.Executor(plan, seed=seed) for seed in SEEDS]
        self.plan, self.folder, self.rng = plan, folder, np.random.default_rng(0)
        self.saved = self.population.snapshot(), [dict(ex.state) for ex in self.alone]

    def check(self) -> None:
        assert self.population.seeds == tuple(ex.state.seed for ex in self.alone)
        state = self.population.state
        for i, ex in enumerate(self.alone):
            for name, array in ex.state.items():
                assert state[name][i].tobytes() == array.tobytes(), (i, name)
                assert self.population[i].state[name].tobytes() == array.tobytes(), (i, name)

    def some(self) -> list[int]:
        """Two members, in any order."""
        return [int(i) for i in self.rng.permutation(len(self.alone))[:2]]

    def data(self, *rows: int) -> dict[str, Array]:
        x = self.rng.standard_normal((*rows, WIDTH)).astype(np.float32)
        return {"x": x, "y": self.rng.integers(0, CLASSES, rows)}

    # ------------------------------------------------------------------ which members there are

    def reorder(self) -> None:
        """All stay, in another order."""
        order = [int(i) for i in self.rng.permutation(len(self.alone))]
        self.population.keep(order)
        self.alone = [self.alone[i] for i in order]

    def keep_fewer(self) -> None:
        """Half of them stay; then there is a new population, of each of these twice."""
        kept = self.some()
        self.population.keep(kept)
        self.alone = [self.alone[i] for i in kept]
        self.check()
        self.step_alike()
        self.hyper_of_each()
        self.check()
        states = [dict(ex.state) for ex in self.alone] * 2
        self.population = gc.Population(self.plan, seeds=SEEDS)
        self.alone = [gc.Executor(self.plan, seed=seed) for seed in SEEDS]
        self.population.state = {k: np.stack([state[k] for state in states]) for k in states[0]}
        for ex, state in zip(self.alone, states, strict=True):
            ex.state = state

    def copy(self) -> None:
        source, target = self.some()
        self.population.copy(source, target)
        made = gc.Executor(self.plan, seed=self.alone[source].state.seed)
        made.state = dict(self.alone[source].state)
        self.alone[target] = made

    # ------------------------------------------------------------------ what they are

    def hyper_of_each(self) -> None:
        rates = self.rng.uniform(0.01, 0.1, len(self.alone))
        self.population.hyper["lr"] = rates
        for ex, rate in zip(self.alone, rates, strict=True):
            ex.hyper["lr"] = rate

    def hyper_of_one(self) -> None:
        (one, _), rate = self.some(), self.rng.uniform(0.01, 0.1)
        self.population[one].hyper["lr"] = rate
        self.alone[one].hyper["lr"] = rate

    def hyper_of_all(self) -> None:
        self.population.hyper["weight_decay"] = 0.05
        for ex in self.alone:
            ex.hyper["weight_decay"] = 0.05

    def parameters(self) -> None:
        name = "affine_1.weight"
        weights = self.rng.standard_normal((len(self.alone), WIDTH, 4)).astype(np.float32)
        self.population.parameters[name] = weights
        for ex, weight in zip(self.alone, weights, strict=True):
            ex.parameters[name] = weight

    def parameters_of_one(self) -> None:
        (one, _), bias = self.some(), self.rng.standard_normal(4).astype(np.float32)
        self.population[one].parameters["affine_1.bias"] = bias
        self.alone[one].parameters["affine_1.bias"] = bias

    def restore(self) -> None:
        """Take the states of a moment before, and keep those of now."""
        now = self.population.snapshot(), [dict(ex.state) for ex in self.alone]
        self.population.state = self.saved[0]
        for ex, state in zip(self.alone, self.saved[1], strict=True):
            ex.state = state
        self.saved = now

    # ------------------------------------------------------------------ what they do

    def step_alike(self) -> None:
        feeds = self.data(BATCH)
        assert self.population.step(feeds).tolist() == [ex.step(feeds) for ex in self.alone]

    def step_apart(self) -> None:
        feeds = self.data(len(self.alone), 3)
        own = [{name: array[i] for name, array in feeds.items()} for i in range(len(self.alone))]
        expected = [ex.step(each) for ex, each in zip(self.alone, own, strict=True)]
        assert self.population.step(feeds).tolist() == expected

    def step_some(self) -> None:
        """Two of them step, and then two others."""
        order = [int(i) for i in self.rng.permutation(len(self.alone))]
        for members in (order[:2], order[-2:]):
            feeds, rows = self.data(ROWS), [self.rng.integers(0, ROWS, n) for n in (BATCH, 2)]
            found = self.population.step(feeds, rows=rows, members=members)
            pairs = zip(members, rows, strict=True)
            assert found.tolist() == [self.alone[i].step(taken(feeds, own)) for i, own in pairs]

    def steps(self) -> None:
        feeds = self.data(ROWS)
        rows = [self.rng.integers(0, ROWS, 5 + i) for i in range(len(self.alone))]
        found = self.population.steps(feeds, rows=rows, batch=BATCH)
        for ex, own, losses in zip(self.alone, rows, found, strict=True):
            pieces = [own[at : at + BATCH] for at in range(0, len(own), BATCH)]
            assert losses.tolist() == [ex.step(taken(feeds, piece)) for piece in pieces]

    def step_one(self) -> None:
        feeds, (one, _) = self.data(BATCH), self.some()
        assert self.population[one].step(feeds) == self.alone[one].step(feeds)

    def infer(self) -> None:
        feeds = self.data(ROWS)
        losses = self.population.evaluate(feeds["x"], feeds["y"])["loss"]
        assert losses.tolist() == [ex.evaluate(**feeds)["loss"] for ex in self.alone]
        scores = self.population.forward(x=feeds["x"][:BATCH])["scores"]
        members = self.some()
        predicted = self.population.predict(feeds["x"], members=members)
        for i, ex in enumerate(self.alone):
            assert scores[i].tobytes() == ex.forward(x=feeds["x"][:BATCH])["scores"].tobytes()
        for found, i in zip(predicted, members, strict=True):
            assert found.tobytes() == self.alone[i].predict(feeds["x"]).tobytes()

    # ------------------------------------------------------------------ where they are

    def save(self) -> None:
        self.population = gc.load(gc.save(self.folder / "members.graphc", self.population))

    def pickled(self) -> None:
        self.population = pickle.loads(pickle.dumps(self.population))

    def deepcopied(self) -> None:
        self.population = deepcopy(self.population)


def taken(feeds: dict[str, Array], rows: Any) -> dict[str, Array]:
    return {name: array[rows] for name, array in feeds.items()}


OFTEN: Sequence[Callable[[Members], None]] = (
    *(Members.reorder, Members.keep_fewer, Members.copy, Members.hyper_of_each),
    *(Members.hyper_of_one, Members.parameters_of_one, Members.step_alike, Members.step_some),
)
SELDOM: Sequence[Callable[[Members], None]] = (
    *(Members.hyper_of_all, Members.parameters, Members.restore, Members.step_apart),
    *(Members.steps, Members.step_one, Members.infer),
    *(Members.save, Members.pickled, Members.deepcopied),
)


def pairs(count: int) -> Iterator[int]:
    """Yield numbers below `count` such that each follows each, itself too (Euler's walk)."""
    left = {number: list(range(count)) for number in range(count)}
    walk, found = [0], list[int]()
    while walk:
        if left[walk[-1]]:
            walk.append(left[walk[-1]].pop())
        else:
            found.append(walk.pop())
    yield from reversed(found)


def test_a_walk_has_each_pair() -> None:
    walk = list(pairs(5))
    assert len({*pairwise(walk)}) == 25 == len(walk) - 1


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("some", ["often", pytest.param("all", marks=pytest.mark.slow)])
def test_each_operation_after_each(some: str, backend: str, tmp_path: Path) -> None:
    members = Members(plan_of(backend), tmp_path)
    operations = OFTEN if some == "often" else (*OFTEN, *SELDOM)
    for number in pairs(len(operations)):
        operations[number](members)
        members.check()


@pytest.mark.parametrize("operation", SELDOM, ids=lambda operation: operation.__name__)
def test_members_that_were_kept(operation: Callable[[Members], None], tmp_path: Path) -> None:
    members = Members(plan_of("numpy"), tmp_path)
    for each in (Members.reorder, operation, Members.reorder, Members.copy, operation):
        each(members)
        members.check()


@pytest.mark.needs("native")
def test_calls_of_other_members_are_not_repeated(tmp_path: Path) -> None:
    """Native code repeats the calls of the last run for feeds of one kind."""
    members = Members(plan_of("native"), tmp_path)
    alike = Members.step_alike, Members.reorder, Members.step_alike
    for each in (*alike, Members.step_some, Members.infer, Members.reorder, Members.infer):
        each(members)
        members.check()
