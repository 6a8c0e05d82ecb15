"""Random nets with the batch dimension twice: each backend against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.runtime.reference import evaluate
from tests.tools.generate.pairs import Pairs

CAPACITY = 20
ROWS = (CAPACITY, 1, 3, 17)


def executor(pairs: Pairs, backend: str, threads: int) -> gc.Executor:
    options: dict[str, Any] = {"batch": CAPACITY, "backend": backend, "threads": threads}
    plan = gc.compile(pairs.net, optimizer=gc.SGD(lr=0.1), **options)
    assert plan.verify().ok, plan.verify()
    return gc.Executor(plan, seed=1)


def results(ex: gc.Executor, feeds: dict[str, Any]) -> dict[str, Any]:
    """Inference, a training forward, and gradients."""
    found = {f"infer {name}": array for name, array in ex.forward(feeds).items()}
    found |= {f"train {name}": array for name, array in ex.forward(feeds, train=True).items()}
    return found | {f"gradient {name}": array for name, array in ex.backward().items()}


def agree(pairs: Pairs, runs: list[tuple[str, int]]) -> None:
    """Inference is the reference's, and all backends agree; threads change no bit."""
    executors = [executor(pairs, *run) for run in runs]
    graph = pairs.net.graph()
    near = dict.fromkeys(("rtol", "atol"), 1e-6 if pairs.net.dtype == "float64" else 2e-3)
    for rows in ROWS:
        feeds = pairs.feeds(rows)
        first, *others = (results(ex, feeds) for ex in executors)
        state = {name: np.array(executors[0].parameters[name]) for name in ("e.weight", "e.bias")}
        wanted = evaluate(graph, feeds, state | {"seed": np.uint64(1), "draws": np.int64(0)}, rows)
        for name, node in graph.outputs.items():
            np.testing.assert_allclose(first[f"infer {name}"], wanted[node], **near)
        for other in others:
            for name, array in first.items():
                np.testing.assert_allclose(other[name], array, **near)
        if len(others) == 2:
            one, two = others
            assert all(one[name].tobytes() == two[name].tobytes() for name in one)


@pytest.mark.parametrize("seed", range(4))
def test_numpy_gives_the_reference(seed: int) -> None:
    agree(Pairs(seed), [("numpy", 1)])


RUNS = [("numpy", 1), ("native", 1), ("native", 2)]


@pytest.mark.one_in(3)
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_backends_agree(seed: int) -> None:
    agree(Pairs(100 + seed), RUNS)


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(600))
def test_many_nets(seed: int) -> None:
    """`python -m pytest -m campaign -n 0 tests/backends/test_pairs_of_rows.py`"""
    agree(Pairs(1000 + seed, "float32" if seed % 4 == 0 else "float64"), RUNS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_gradients_are_those_of_central_differences(seed: int) -> None:
    pairs = Pairs(300 + seed)
    assert gc.grad_check(pairs.net, pairs.feeds(5)).ok
