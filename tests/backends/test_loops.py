"""Nets with loops compute the same on every backend, and as an interpreter of their programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from tests.backends.c.trained import unlike
from tests.backends.loop_nets import LOOPS, called, loop_feeds
from tests.backends.native.interpreted import Interpreted, prepared
from tests.backends.native.nets import assert_close
from tests.extras import needs

BATCH, ROWS = 16, 11
OPTIMIZER = gc.SGD(lr=0.1, momentum=0.9)
NAMED = pytest.mark.parametrize("name", LOOPS)


def trained(name: str, backend: str, threads: int = 1, dtype: str = "float32") -> gc.Executor:
    """An executor after three steps."""
    plan = gc.compile(
        LOOPS[name](dtype), batch=BATCH, optimizer=OPTIMIZER, backend=backend, threads=threads
    )
    ex = gc.Executor(plan, seed=0)
    for seed in range(3):
        ex.step(loop_feeds(ex.plan.declared, ROWS, seed))
    return ex


def inferred(ex: gc.Executor) -> dict[str, Any]:
    return dict(ex.forward(loop_feeds(ex.plan.declared, ROWS, 3)))


@pytest.mark.one_in(12)
@NAMED
def test_native_code_trains_as_numpy_does(name: str) -> None:
    one, other = (trained(name, backend, dtype="float64") for backend in ("numpy", "native"))
    assert_close(dict(other.snapshot()), dict(one.snapshot()), 1e-12, "state")
    assert_close(inferred(other), inferred(one), 1e-12, "inference")


@pytest.mark.one_in(16)
@NAMED
def test_c_trains_with_the_bits_of_native_code(name: str) -> None:
    needs("cc")
    one, other = (trained(name, backend) for backend in ("native", "c"))
    assert not unlike(dict(one.snapshot()), dict(other.snapshot()))
    assert not unlike(inferred(one), inferred(other))


@pytest.mark.one_in(16)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
@NAMED
def test_native_programs_are_right_by_the_interpreter(name: str, order: tuple[int, ...]) -> None:
    ex = trained(name, "numpy", dtype="float64")
    plan = gc.compile(
        LOOPS[name]("float64"), batch=BATCH, optimizer=OPTIMIZER, backend="native", threads=2
    )
    feeds, wanted = loop_feeds(ex.plan.declared, ROWS, 3), inferred(ex)
    state = {key: np.array(array) for key, array in ex.snapshot().items()}
    kept = prepared(plan, state, order)
    found = Interpreted(plan.programs["infer"], ROWS, kept, order).run(feeds)
    assert_close(found, wanted, 1e-12, "inference")
    Interpreted(plan.programs["step"], ROWS, state, order).run(feeds)
    ex.step(feeds)
    assert_close(state, dict(ex.snapshot()), 1e-12, "state")


COMPILED = ["native", pytest.param("c", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", COMPILED)
def test_rows_of_a_loop_with_reference_rules_have_the_bits_that_they_have_alone(
    backend: str,
) -> None:
    needs(backend)
    ex = gc.Executor(gc.compile(called("float64"), batch=BATCH, backend=backend), seed=0)
    feeds = loop_feeds(ex.plan.declared, ROWS, 3)
    whole = ex.forward(feeds)
    for row in range(ROWS):
        alone = ex.forward({name: array[row : row + 1] for name, array in feeds.items()})
        given = {name: whole[name][row : row + 1] for name in ("ys", "last0")}
        assert not unlike({**alone}, given), row


@pytest.mark.parametrize("backend", COMPILED)
def test_a_loop_with_reference_rules_trains_as_numpy_does(backend: str) -> None:
    needs(backend)
    found = []
    for name in ("numpy", backend):
        plan = gc.compile(called("float64"), batch=BATCH, optimizer=OPTIMIZER, backend=name)
        ex = gc.Executor(plan, seed=0)
        for seed in range(3):
            ex.step(loop_feeds(plan.declared, ROWS - seed, seed))
        found.append((dict(ex.snapshot()), inferred(ex)))
    (state, outputs), (other_state, other_outputs) = found
    assert_close(other_state, state, 1e-12, "state")
    assert_close(other_outputs, outputs, 1e-12, "inference")
