"""All rules in order; the first counterexample ends the proof of a program."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.check.certificate.tables import BARRIER, READ, Certificate, ProgramTables
from graphc.check.verify import claims, forms, values
from graphc.check.verify import sharing as share
from graphc.check.verify.exchange import exchange, meetings
from graphc.check.verify.facts import Facts
from graphc.check.verify.report import Counterexample, ProgramProof, Report
from graphc.check.verify.threads import Threads


def verify(certificate: Certificate) -> Report:
    """Verify every program, what they have in common, and the memory report."""
    programs = tuple(verify_program(program) for program in certificate.programs)
    return Report(certificate.net, programs, next(_between(certificate), None))


def verify_program(tables: ProgramTables) -> ProgramProof:
    """Verify one program in the time of sorting its buffers."""
    f = Facts(tables)
    found = next(_on_their_own(f), None)
    counts: dict[str, int] = {}
    if found is None:
        near = share.Neighbours(f)
        found = next(_together(f, near), None)
        counts = _counts(f, near) if found is None else {}
    return ProgramProof(tables.name, tables.backend, tables.capacity, counts, found)


def _on_their_own(f: Facts) -> Iterator[Counterexample]:
    """Yield the faults of buffers and steps by themselves."""
    yield from forms.inside(f)
    yield from forms.alignment(f)
    yield from forms.aliases(f)
    yield from forms.kernels(f)
    yield from forms.splits(f)
    yield from values.given(f)
    yield from values.defined(f)
    yield from values.writers(f)
    yield from values.states(f)
    yield from exchange(f)


def _together(f: Facts, near: share.Neighbours) -> Iterator[Counterexample]:
    """Yield the faults between buffers that share bytes, and in the planner's claims."""
    threads = Threads(f)
    yield from share.live(f, near)
    yield from share.in_place(f, near, threads)
    yield from share.epochs(f, near, threads)
    yield from claims.lives(f)
    yield from claims.slots(f)
    yield from claims.arena(f)


def _between(c: Certificate) -> Iterator[Counterexample]:
    """Yield the faults between programs, and in the plan's claims about all of them."""
    yield from meetings(c)
    yield from claims.report(c)


def _counts(f: Facts, near: share.Neighbours) -> dict[str, int]:
    reads = int(np.count_nonzero(f.accesses.use == READ))
    before, after = near.pairs
    return {
        "steps": f.end,
        "reads": reads,
        "writes": len(f.accesses.use) - reads,
        "handovers": len(before),
        "in place": int(np.count_nonzero(near.end[before] // 2 == near.start[after] // 2)),
        "barriers": int(np.count_nonzero(f.steps.kind == BARRIER)),
    }
