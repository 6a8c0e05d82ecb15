"""Mistakes with populations: each is told in one sentence, and changes no member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.mistakes.harness import first_line

X, Y = np.ones((9, 3), np.float32), np.array([0, 1, 1, 0, 1, 0, 0, 1, 1])
FEW: Any = {"x": X[:4], "y": Y[:4]}
ALL: Any = {"x": X, "y": Y}


@pytest.fixture(scope="module")
def plan() -> gc.Plan:
    net = gc.Net("line")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N,), dtype="int64")
    scores = net.output("scores", gc.affine(x, 2, name="line"))
    net.loss("loss", gc.softmax_loss(scores, y))
    return gc.compile(net, batch=4, optimizer=gc.SGD(lr=0.1), backend="numpy")


MAKING: list[tuple[Any, str]] = [
    ({}, "Population needs the number of its members"),
    ({"seeds": 5}, "seeds is 5, not a list of whole numbers"),
    ({"seeds": []}, "seeds is [], not a list of whole numbers"),
    ({"seeds": [1, 2.5]}, "seed is 2.5, it must be a whole number"),
    ({"seeds": [1, 2], "members": 3}, "there are 2 seeds for 3 members"),
    ({"members": 2, "hyper": [0.1, 0.2]}, "Population: hyper is [0.1, 0.2], not numbers by name"),
    ({"members": 2, "hyper": {"rate": 0.1}}, "there is no hyper-parameter 'rate'"),
]


@pytest.mark.parametrize(("options", "sentence"), MAKING)
def test_making(plan: gc.Plan, options: Any, sentence: str) -> None:
    with pytest.raises(gc.StateError) as caught:
        gc.Population(plan, **options)
    assert first_line(caught.value, __file__) == sentence


def set_parameter(name: str, value: Any) -> Callable[[gc.Population], None]:
    return lambda population: population.parameters.__setitem__(name, value)


def fit(**options: Any) -> Callable[[gc.Population], object]:
    return lambda population: gc.fit(population, (X, Y), epochs=1, progress=False, **options)


def folds(pair: Any) -> Callable[[gc.Population], object]:
    return fit(folds=[pair] * 3)


USING: list[tuple[Callable[[Any], object], str]] = [
    (lambda p: p.step(FEW, members=1), "members is 1, not the numbers of some members"),
    (lambda p: p.step(FEW, members=[]), "members is [], not the numbers of some members"),
    (lambda p: p.step(FEW, members=[0, 3]), "there is no member 3"),
    (lambda p: p.step(ALL, rows=3), "rows has 0 lists for 3 members"),
    (lambda p: p.step(ALL, rows=[[0], [1]]), "rows has 2 lists for 3 members"),
    (lambda p: p.keep(1), "members is 1, not the numbers of some members"),
    (lambda p: p.keep([]), "members is [], not the numbers of some members"),
    (set_parameter("line.wait", 0), "there is no parameter 'line.wait'"),
    (set_parameter("draws", [1, 1, 1]), "there is no parameter 'draws'"),
    (
        set_parameter("line.bias", np.ones((2, 2))),
        "'line.bias' is set for 3 members, the value has shape (2, 2)",
    ),
    (folds(([0], [-9, 1])), "fit: folds names row -9, there are rows 0 to 8"),
    (folds(([0, 9], [1])), "fit: folds names row 9, there are rows 0 to 8"),
    (fit(folds=[1, 2, 3]), "fit: folds is [1, 2, 3], neither a number from 2 up nor pairs of rows"),
    (fit(by_length=True), "fit: by_length is given, which is not for a population"),
]


@pytest.mark.parametrize(("call", "sentence"), USING)
def test_using(plan: gc.Plan, call: Callable[[gc.Population], object], sentence: str) -> None:
    population = gc.Population(plan, members=3)
    before = population.snapshot()
    with pytest.raises(gc.GraphError) as caught:
        call(population)
    assert first_line(caught.value, __file__) == sentence
    after = population.snapshot()
    assert len(population) == 3
    assert all((after[name] == before[name]).all() for name in before)


def test_parameters_of_all_members_are_set(plan: gc.Plan) -> None:
    population = gc.Population(plan, members=3)
    weight = np.arange(18.0, dtype=np.float32).reshape(3, 3, 2)
    population.parameters["line.weight"] = weight
    assert (population[2].parameters["line.weight"] == weight[2]).all()
