"""All rules in order; the first counterexample ends the proof of a program."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import numpy as np

from graphc.certificate.tables import BARRIER, READ, Certificate, ProgramTables
from graphc.verify import claims, forms, values
from graphc.verify import sharing as share
from graphc.verify.facts import Facts
from graphc.verify.report import Counterexample, ProgramProof, Report
from graphc.verify.threads import Threads


def verify(certificate: Certificate) -> Report:
    """Verify every program, and the memory report."""
    programs = tuple(verify_program(program) for program in certificate.programs)
    return Report(certificate.net, programs, next(claims.report(certificate), None))


def verify_program(tables: ProgramTables) -> ProgramProof:
    """Verify one program; the time is that of sorting its buffers."""
    f = Facts(tables)
    found = next(_counterexamples(f), None)
    counts = _counts(f) if found is None else {}
    return ProgramProof(tables.name, tables.backend, tables.capacity, counts, found)


def _counterexamples(f: Facts) -> Iterator[Counterexample]:
    yield from chain(
        forms.inside(f), forms.alignment(f), forms.aliases(f), forms.kernels(f), forms.splits(f)
    )
    yield from chain(values.defined(f), values.writers(f), values.states(f))
    near, threads = share.Neighbours(f), Threads(f)
    yield from share.live(f, near)
    yield from share.in_place(f, near, threads)
    yield from share.epochs(f, near, threads)
    yield from chain(claims.lives(f), claims.slots(f), claims.arena(f))


def _counts(f: Facts) -> dict[str, int]:
    reads = int(np.count_nonzero(f.accesses.use == READ))
    found = {"steps": f.end, "reads": reads, "writes": len(f.accesses.use) - reads}
    if f.tables.backend == "native":
        found["barriers"] = int(np.count_nonzero(f.steps.kind == BARRIER))
    return found
