"""Populations in certificates: a thread or a member without memory of its own is found."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.backends.native.backend import NativeProgram
from graphc.backends.native.side_by_side import WORDS
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_text, parse_certificate
from graphc.check.verify import verify
from graphc.compiler.remat.fit import sparing
from graphc.compiler.sizes import block_bytes
from tests.backends.native.shared_runs import shared_runs
from tests.check.verify.claims import Claims, Data
from tests.runtime.test_population import SEEDS, alone, data, plan_of, population_of

needs_native = pytest.mark.needs("native")
OWN = "members and threads have memory of their own"
TOTALS = "the memory report adds up"


def stride_of_states_too_small(m: Data) -> None:
    m["state"] -= 64


def all_members_at_one_state(m: Data) -> None:
    m["state"] = 0


def states_not_aligned(m: Data) -> None:
    m["state"] += 4


def two_threads_with_one_arena(m: Data) -> None:
    m["apart"]["step"] = 0


def arenas_overlap_by_a_line(m: Data) -> None:
    m["apart"]["step"] -= 64


def block_of_one_arena(m: Data) -> None:
    m["arena"] = m["apart"]["step"] + 64


def feed_area_too_small(m: Data) -> None:
    m["area"] -= 64


def feed_area_for_one_row_less(m: Data) -> None:
    m["places"]["x"][1] -= 4 * 16


def feeds_share_bytes(m: Data) -> None:
    m["places"]["y"][0] = m["places"]["x"][0]


def feed_without_a_place(m: Data) -> None:
    del m["places"]["y"]


def gradients_of_all_members_in_one_block(m: Data) -> None:
    m["apart"]["grad"] = m["apart"]["step"]


def more_threads_than_scratches(m: Data) -> None:
    m["threads"] += 1


def feeds_of_one_thread(m: Data) -> None:
    m["feeds"] = m["area"] + 64


def arenas_reported_too_large(m: Data) -> None:
    m["arena"] += 64


def fixed_part_too_small(m: Data) -> None:
    m["fixed"] -= 64


TABLE: tuple[tuple[Callable[[Data], None], str, str], ...] = (
    (stride_of_states_too_small, OWN, "states of members"),
    (all_members_at_one_state, OWN, "0 bytes apart"),
    (states_not_aligned, OWN, "not aligned"),
    (two_threads_with_one_arena, OWN, "arenas of threads in program 'step' are 0 bytes apart"),
    (arenas_overlap_by_a_line, OWN, "arenas of threads in program 'step'"),
    (block_of_one_arena, OWN, "in a block of"),
    (feed_area_too_small, OWN, "feeds of threads"),
    (feed_area_for_one_row_less, OWN, "the feed 'x'"),
    (feeds_share_bytes, OWN, "share bytes"),
    (feed_without_a_place, OWN, "0 bytes for the feed 'y'"),
    (gradients_of_all_members_in_one_block, OWN, "which members share"),
    (more_threads_than_scratches, OWN, "3 threads run members"),
    (feeds_of_one_thread, TOTALS, "'feeds'"),
    (arenas_reported_too_large, TOTALS, "'arena'"),
    (fixed_part_too_small, TOTALS, "'fixed'"),
)


@needs_native
@pytest.mark.parametrize(("plant", "rule", "words"), TABLE, ids=[row[0].__name__ for row in TABLE])
def test_a_fault_is_caught(plant: Callable[[Data], None], rule: str, words: str) -> None:
    claims = Claims("native")
    plant(claims.data["members"])
    found = claims.report().plan
    assert found is not None and found.rule == rule, found
    assert words in str(found)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_the_bytes_of_any_number_of_members(backend: str) -> None:
    plan = plan_of(backend=backend)
    certificate = certify(plan.without_kept)
    members = certificate.members
    assert members is not None and verify(certificate).ok
    assert parse_certificate(certificate_text(certificate)).members == members
    for count in (1, 2, 7):
        population = gc.Population(plan, members=count)
        assert members.fixed + count * members.state == population.nbytes
        workspace = population._runs._workspace
        assert block_bytes(len(workspace.arena)) == members.arena
        assert block_bytes(workspace.feeds.nbytes) == members.feeds


@needs_native
def test_the_code_finds_memory_where_the_certificate_says() -> None:
    with shared_runs(2):
        plan = plan_of(2, backend="native")
        population = population_of(plan)
        x, y = data()
        population.step(x=x, y=y, rows=[[1, 2]] * len(SEEDS))
        certificate = certify(population.plan)
        members = certificate.members
        runner = population._runs._binder.bound(population.plan.programs["step"], 8).runner
        assert members is not None and isinstance(runner, NativeProgram)
    runs = runner._runs
    assert runs is not None and runs._work is not None and len(runs._tables) == members.threads
    arenas, scratches = np.diff(runs._tables[:, :2].astype(np.int64), axis=0)[0]
    assert arenas == members.apart["step"]
    assert scratches == certificate.memory.scratch_thread
    assert runs._job[WORDS["area_bytes"]] == members.area
    for name, (offset, _) in certificate.state_layout.items():
        spread = runs._work.states[name]
        assert (spread.offset, spread.stride) == (offset, members.state)


@needs_native
def test_threads_that_share_an_arena_take_members_in_turns() -> None:
    with shared_runs(2):
        plan = sparing(plan_of(2, backend="native"))
        members = certify(plan).members
        assert members is not None and members.threads == 1 and plan.verify().ok
        population, executors = population_of(plan), alone(plan)
        assert population.nbytes == plan.memory.population(len(SEEDS))
        x, _ = data()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(NativeProgram, "side_by_side", None)  # it is not called
            found = population.forward(x=x, rows=[range(8)] * len(SEEDS))["scores"]
        for scores, ex in zip(found, executors, strict=True):
            assert scores.tobytes() == ex.forward(x=x[:8])["scores"].tobytes()
