"""Plans with loops are proved, and faults that are planted in the plan of a loop are found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.check.certificate import Certificate, LoopTables, ProgramTables
from graphc.check.certificate.columns import CertificateError
from graphc.check.certificate.export import certify
from graphc.check.certificate.text import certificate_text, parse_certificate
from graphc.check.verify import loops as rules
from graphc.check.verify import verify
from graphc.kernels.scan import ScanKernel
from tests.check.loops import mixed, nested, reversing, several

SGD = gc.SGD(lr=0.1, momentum=0.9)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("net", [several, mixed, nested])
def test_plans_with_loops_are_proved(net: Callable[[], gc.Net], backend: str) -> None:
    for passes in (gc.passes.DEFAULT, gc.passes.without("split_scans", "cse")):
        plan = gc.compile(net(), batch=6, optimizer=SGD, backend=backend, passes=passes)
        report = plan.verify()
        assert report.ok, report
        assert report.programs[0].counts["loops"]
        text = certificate_text(certify(plan))
        assert certificate_text(parse_certificate(text)) == text
        assert str(verify(parse_certificate(text))) == str(report)


def test_a_file_with_loops_nested_too_deeply_is_refused() -> None:
    plan = gc.compile(several(), batch=2, backend="numpy")
    data = certify(plan)
    program = next(p for p in data.programs if p.loops)
    for _ in range(20):
        program = replace(program, loops=(replace(program.loops[0], program=program),))
    text = certificate_text(replace(data, programs=(program,)))
    with pytest.raises(CertificateError, match="loops are within each other"):
        parse_certificate(text)


# ------------------------------------------------------------------ planted faults

Loops = tuple[LoopTables, ...]


def _carrying(loops: Loops) -> LoopTables:
    return next(loop for loop in loops if len(loop.carried) > 1 and len(loop.slot) > 1)


def slot_within_the_arena(loop: LoopTables) -> LoopTables:
    return replace(loop, offset=np.where(np.arange(len(loop.offset)) == 0, 0, loop.offset))


def slots_that_overlap(loop: LoopTables) -> LoopTables:
    return replace(loop, offset=np.full_like(loop.offset, loop.offset.max()))


def one_place_for_a_value_and_the_next(loop: LoopTables) -> LoopTables:
    feed, result = loop.carried[0, :2]
    where = dict(zip(loop.slot.tolist(), loop.offset.tolist(), strict=True))
    where[int(result)] = where[int(feed)]
    return replace(loop, offset=np.array([where[i] for i in loop.slot.tolist()]))


def slot_past_the_workspace(loop: LoopTables) -> LoopTables:
    return replace(loop, offset=loop.offset + 64 * len(loop.offset) * 1000)


def a_step_too_many(loop: LoopTables) -> LoopTables:
    return replace(loop, steps=loop.steps + 1)


def two_results_in_one_place(loop: LoopTables) -> LoopTables:
    carried = loop.carried.copy()
    carried[1, 3:] = carried[0, 3:]
    return replace(loop, carried=carried)


def an_input_without_a_place(loop: LoopTables) -> LoopTables:
    return replace(loop, sequences=loop.sequences[1:])


def swapped_feed_and_result(loop: LoopTables) -> LoopTables:
    carried = loop.carried.copy()
    carried[:, :2] = carried[:, 1::-1]
    return replace(loop, carried=carried)


def initial_value_from_a_sequence(loop: LoopTables) -> LoopTables:
    carried = loop.carried.copy()
    carried[:, 2] = loop.sequences[0, 1]
    return replace(loop, carried=carried)


def all_steps_at_once(loop: LoopTables) -> LoopTables:
    return replace(loop, at_once=1)


FAULTS = {
    slot_within_the_arena: rules.WORKSPACE,
    slots_that_overlap: rules.WORKSPACE,
    one_place_for_a_value_and_the_next: rules.WORKSPACE,
    slot_past_the_workspace: rules.WORKSPACE,
    a_step_too_many: rules.SLICES,
    two_results_in_one_place: rules.GIVEN,
    an_input_without_a_place: rules.GIVEN,
    swapped_feed_and_result: rules.GIVEN,
    initial_value_from_a_sequence: rules.SLICES,
    all_steps_at_once: rules.SLICES,
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_refuted(fault: Callable[[LoopTables], LoopTables]) -> None:
    plan = gc.compile(several(), batch=6, optimizer=SGD, backend="numpy")
    whole = certify(plan)
    programs = tuple(_changed(program, fault) for program in whole.programs)
    assert any(new is not old for new, old in zip(programs, whole.programs, strict=True))
    found = verify(_with(whole, programs)).counterexample
    assert found is not None and found.rule == FAULTS[fault], found


def _with(certificate: Certificate, programs: tuple[ProgramTables, ...]) -> Certificate:
    return replace(certificate, programs=programs)


def _changed(program: ProgramTables, fault: Callable[[LoopTables], LoopTables]) -> ProgramTables:
    if program.name != "grad":
        return program
    chosen = _carrying(program.loops)
    made = tuple(fault(loop) if loop is chosen else loop for loop in program.loops)
    return replace(program, loops=made)


def test_carried_values_that_other_threads_wrote_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a step whose kernels share rows here and columns there, without a barrier between."""
    from graphc.check.verify.threads import Threads

    plan = gc.compile(several("float32"), batch=64, optimizer=SGD, backend="native")
    assert plan.verify().ok
    whole: Any = Threads.agree

    def wrong(self: Threads, i: Any, j: Any, by_place: bool = False) -> Any:
        return whole(self, i, j, by_place) ^ by_place

    monkeypatch.setattr(Threads, "agree", wrong)
    found = plan.verify().counterexample
    assert found is not None and found.rule == rules.HANDED


def test_threads_wait_where_a_step_reads_what_others_handed_on() -> None:
    """Rows of 16 in reverse, which several threads share, and a loop that says they do not wait."""
    plan = gc.compile(reversing(16), batch=6, backend="numpy")
    insides = (instr.inside for instr in plan.programs["infer"].instrs)
    (scan,) = (inside for inside in insides if isinstance(inside, ScanKernel))
    assert scan.in_turns and len(scan.phases) == 1
    whole = certify(plan)
    text = certificate_text(whole)
    assert verify(parse_certificate(text)).ok
    (program,) = whole.programs
    alone = replace(program, loops=tuple(replace(loop, waits=0) for loop in program.loops))
    found = verify(_with(whole, (alone,))).counterexample
    assert found is not None and found.rule == rules.HANDED
