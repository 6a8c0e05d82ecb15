"""Random nets give what they mean; `python -m tests.tools.fuzz --minutes 30` is the long run."""

from __future__ import annotations

import random

import pytest

import graphc as gc
from graphc.backends.native.target import available
from graphc.ops import OPS
from tests.check.loops import reversing
from tests.images.taps import misses_an_image
from tests.tools.fuzz.campaign import Findings, cases
from tests.tools.fuzz.case import Case, Event
from tests.tools.fuzz.check import assert_right as assert_case_is_right
from tests.tools.fuzz.draw import Wishes
from tests.tools.generate import random_net
from tests.tools.generate.steps import STEPS

PART = 25
MOST = 4
"""Steps of a net: many small ones meet more in a given time than few large ones."""
TIGHT = 0.01
"""A search for what fits takes as long as thirty other cases."""
WISHES = (
    Wishes(native=0.0, interpreted=0.0, tight=TIGHT, most=MOST)
    if available() is not None
    else Wishes(native=0.005, interpreted=0.02, tight=TIGHT, most=MOST)
)


def assert_right(findings: Findings) -> None:
    told = [f"seed {v.case.draw}: {v.summary}" for v in findings.failures]
    assert not told, "\n".join(
        [*told, "python -m tests.tools.fuzz --seed S --cases 1 writes a test"]
    )


@pytest.mark.one_in(40)
@pytest.mark.parametrize("part", range(40))
def test_a_thousand_random_nets(part: int) -> None:
    findings = cases(range(part * PART, (part + 1) * PART), WISHES, shrunk=0)
    assert_right(findings)
    told = findings.coverage.verdicts
    assert told["right"] >= 0.9 * PART, told
    missing = findings.coverage.missing(1)
    assert len(missing) < len(OPS) / 2, missing


def test_convolutions_that_miss_their_images_are_drawn() -> None:
    drawn = [random_net(random.Random(seed), most=1, once="conv") for seed in range(150)]
    assert any(map(misses_an_image, drawn))


@pytest.mark.one_in(4)
@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
@pytest.mark.needs("native")
def test_random_nets_on_native(part: int) -> None:
    wishes = Wishes(native=0.5, interpreted=0.5)
    assert_right(cases(range(10_000 + 40 * part, 10_000 + 40 * part + 40), wishes))


@pytest.mark.one_in(2)
@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_nets_of_one_kind_of_step(step: object) -> None:
    """Beside affine, so that there is something to train."""
    kept = (step, next(iter(STEPS)))
    without = tuple(other.__name__ for other in STEPS if other not in kept)
    wishes = Wishes(native=0.0, interpreted=0.0, without=without)
    assert_right(cases(range(20_000, 20_020), wishes))


def test_statistics_that_no_loss_reads_are_those_of_all_shards() -> None:
    net = gc.Net("net", dtype="float64")
    gc.batchnorm(net.input("rows", (gc.N, 1)))
    net.loss("loss", gc.mean(gc.affine(net.input("x", (gc.N, 1)), 1)))
    steps = (Event("step", 2),)
    case = Case(net.graph(), 2, steps, gc.SGD(lr=0.01), shards=2, synchronised=True)
    assert_case_is_right(case)


@pytest.mark.needs("native")
def test_threads_read_what_others_handed_on_in_the_step_before() -> None:
    steps = (Event("infer", 7),)
    assert_case_is_right(Case(reversing(16).graph(), 7, steps, backend="interpreted"))
