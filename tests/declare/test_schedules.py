"""Schedules: the factor on the learning rate at each number of updates."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi

import numpy as np
import pytest

import graphc as gc
from graphc.declare.optim.optimizer import Schedule
from graphc.runtime.reference import initial_state
from passes.update import apply_graph
from tests.updates import parameters, update


def factors(schedule: Schedule, at: Sequence[int]) -> list[float]:
    """How far a gradient of 1 moves a parameter at lr = 1."""
    graph = apply_graph(parameters({"w": np.zeros(())}), gc.SGD(1.0, schedule=schedule))
    state = initial_state(graph, 0)
    moved = []
    for u in at:
        after = update(graph, state | {"updates": np.int64(u)}, {"w": np.ones(())})
        moved.append(-float(after["w"]))
    return moved


def test_cosine() -> None:
    plain = factors(gc.Cosine(100, floor=0.2), [0, 25, 50, 100, 1000])
    assert plain == pytest.approx([1.0, 0.2 + 0.4 * (1 + cos(pi / 4)), 0.6, 0.2, 0.2])
    warm = factors(gc.Cosine(110, warmup=10), [0, 4, 9, 10, 60, 110, 1000])
    assert warm == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])


def test_step() -> None:
    assert factors(gc.Step(10, 0.5), [0, 9, 10, 19, 20, 45]) == [1, 1, 0.5, 0.5, 0.25, 0.0625]


def test_warm_up() -> None:
    assert factors(gc.WarmUp(4), [0, 1, 3, 4, 100]) == [0.25, 0.5, 1.0, 1.0, 1.0]
    then = factors(gc.WarmUp(4, then=gc.Step(2, 0.1)), [0, 3, 4, 5, 6, 8])
    assert then == pytest.approx([0.25, 1.0, 1.0, 1.0, 0.1, 0.01])
    nested = factors(gc.WarmUp(10, then=gc.Cosine(100)), [0, 4, 9, 10, 60, 110, 1000])
    assert nested == pytest.approx([0.1, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])


@pytest.mark.parametrize(
    "last", [gc.Step(2, 0.5), gc.Cosine(9, floor=0.1, warmup=3), gc.WarmUp(3)], ids=repr
)
def test_each_schedule_counts_from_the_end_of_all_before_it(last: Schedule) -> None:
    """By itself at u - 5 after warm-ups of 2 and 3, which are done then."""
    chain = gc.WarmUp(2, then=gc.WarmUp(3, then=last))
    alone, at = factors(last, range(12)), range(17)
    wanted = [min((u + 1) / 2, 1) * min((max(u - 2, 0) + 1) / 3, 1) for u in at]
    wanted = [factor * alone[max(u - 5, 0)] for u, factor in enumerate(wanted)]
    assert factors(chain, at) == pytest.approx(wanted)
    assert [chain.reference(u) for u in at] == pytest.approx(wanted)


def test_a_schedule_is_a_factor_on_the_rate_that_the_user_sets() -> None:
    graph = apply_graph(parameters({"w": np.zeros(())}), gc.SGD(1.0, schedule=gc.Step(1, 0.5)))
    state = initial_state(graph, 0) | {"hyper.lr": np.float64(8.0), "updates": np.int64(3)}
    assert update(graph, state, {"w": np.ones(())})["w"] == -1.0
