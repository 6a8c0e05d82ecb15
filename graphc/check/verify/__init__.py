"""A proof from a certificate alone that a plan is sound, or a counterexample.

Nothing here is shared with the code that makes plans: this package imports only
`graphc.check.certificate` and numpy.  The first counterexample ends the proof of a program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from graphc.check.certificate import Certificate, Kind, ProgramTables, Use
from graphc.check.verify import claims, invariants, loops, members, sharing
from graphc.check.verify.facts import Counterexample, Facts


@dataclass(frozen=True)
class ProgramProof:
    """The verification of one program.

    Examples
    --------
    >>> net = gc.Net("one")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> proof = gc.compile(net, batch=8).verify().programs[0]
    >>> proof.name, proof.ok, proof.counts["steps"]
    ('infer', True, 1)
    """

    name: str
    """The name of the program, such as infer, grad or step."""
    backend: str
    """The name of the backend that it was planned for."""
    capacity: int
    """The largest number of rows that it runs."""
    counts: dict[str, int] = field(default_factory=dict)
    """The numbers of steps, reads, writes, ...; empty if there is a counterexample."""
    counterexample: Counterexample | None = None
    """The first violation of a rule, or None."""

    @property
    def ok(self) -> bool:
        """True if every rule holds."""
        return self.counterexample is None


@dataclass(frozen=True)
class Report:
    """The result of `plan.verify()`, whose text has a line for each program.

    Examples
    --------
    >>> net = gc.Net("one")
    >>> _ = net.output("y", gc.affine(net.input("x", (gc.N, 3)), 2))
    >>> print(gc.compile(net, batch=8, wrt=[], backend="numpy").verify())
    plan of 'one': proved
      infer (numpy, 1 to 8 rows): 1 step, 3 reads, 1 write, 0 handovers, 0 in place, 0 barriers
    """

    net: str
    """The name of the net."""
    programs: tuple[ProgramProof, ...]
    """The verification of each program."""
    plan: Counterexample | None = None
    """The fault between programs or in the memory report, or None."""

    @property
    def ok(self) -> bool:
        """True if every rule holds, for each program and for all of them together."""
        return self.plan is None and all(proof.ok for proof in self.programs)

    @property
    def counterexample(self) -> Counterexample | None:
        """The first counterexample, or None."""
        found = (proof.counterexample for proof in self.programs)
        return next((c for c in found if c is not None), self.plan)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"plan of {self.net!r}: {'proved' if self.ok else 'REFUTED'}"
        for proof in self.programs:
            rows = "1 row" if proof.capacity == 1 else f"1 to {proof.capacity} rows"
            rows = f"{proof.backend}, {rows}"
            if proof.counterexample is None:
                counted = ", ".join(_counted(n, what) for what, n in proof.counts.items())
                yield f"  {proof.name} ({rows}): {counted}"
            else:
                yield f"  {proof.name} ({rows}): refuted"
                yield from (f"    {line}" for line in str(proof.counterexample).splitlines())
        if self.plan is not None:
            yield "  the plan as a whole: refuted"
            yield from (f"    {line}" for line in str(self.plan).splitlines())


def _counted(n: int, what: str) -> str:
    """Return a count in words: `3 reads`, `1 read`."""
    return f"{n:,} {what.removesuffix('s') if n == 1 else what}"


ALONE = (
    *(
        invariants.inside,
        invariants.alignment,
        invariants.aliases,
        invariants.kernels,
        invariants.partitions,
    ),
    *(invariants.given, invariants.defined, invariants.writers, invariants.states, claims.exchange),
)
"""The rules of buffers and steps by themselves."""
TOGETHER = sharing.live, sharing.in_place, sharing.epochs
"""The rules of buffers that share bytes."""
CLAIMS = claims.lives, claims.slots, claims.arena
"""The rules of what the planner says."""


def verify(certificate: Certificate) -> Report:
    """Verify every program, what they have in common, and the memory report."""
    programs = tuple(verify_program(program) for program in certificate.programs)
    rules = claims.meetings, claims.report, members.own, members.totals
    between = chain.from_iterable(rule(certificate) for rule in rules)
    return Report(certificate.net, programs, next(between, None))


def verify_program(tables: ProgramTables) -> ProgramProof:
    """Verify one program; this takes about as long as sorting its buffers."""
    f = Facts(tables)
    found = next(chain.from_iterable(rule(f) for rule in ALONE), None)
    counts: dict[str, int] = {}
    if found is None:
        near = sharing.Neighbours(f)
        found = next(chain(*(rule(near) for rule in TOGETHER), *(rule(f) for rule in CLAIMS)), None)
        found = found or next(_in_loops(f), None)
        counts = _counts(near) if found is None else {}
    return ProgramProof(tables.name, tables.backend, tables.capacity, counts, found)


def _in_loops(f: Facts) -> Iterator[Counterexample]:
    """Yield the faults of the programs of steps, and those between steps."""
    for loop in f.tables.loops:
        found = verify_program(loop.program).counterexample
        if found is not None:
            where = f"in the program of a step of {f.step_text(loop.step)}"
            yield Counterexample(found.rule, found.sentence, (*found.details, where))
        else:
            yield from loops.between_steps(f, loop)
    known = {loop.step for loop in f.tables.loops}
    for step in np.flatnonzero(f.steps.kind == Kind.SCAN).tolist():
        if step not in known:
            yield Counterexample(loops.OPERANDS, f"{f.step_text(step)} has no program")


def _counts(near: sharing.Neighbours) -> dict[str, int]:
    """Return the numbers of steps, accesses and barriers that a proof reports."""
    f = near.f
    reads = int(np.count_nonzero(f.accesses.use == Use.READ))
    before, after = near.pairs
    found = {
        "steps": f.end,
        "reads": reads,
        "writes": len(f.accesses.use) - reads,
        "handovers": len(before),
        "in place": int(np.count_nonzero(near.end[before] // 2 == near.start[after] // 2)),
        "barriers": int(np.count_nonzero(f.steps.kind == Kind.BARRIER)),
    }
    return found | ({"loops": len(f.tables.loops)} if f.tables.loops else {})
