"""What a verification found: the size of the proof, or the first counterexample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Counterexample:
    """Where a program breaks a rule."""

    rule: str
    """The invariant, in a few words."""
    sentence: str
    """What is wrong, by name."""
    details: tuple[str, ...] = ()
    """Which steps, buffers, bytes, epochs and threads."""

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.sentence}", *(f"  {d}" for d in self.details)])


@dataclass(frozen=True)
class ProgramProof:
    """What was checked of one program; with a counterexample, what was checked before it."""

    name: str
    backend: str
    capacity: int
    counts: dict[str, int] = field(default_factory=dict)
    """By what was counted: steps, buffers, reads, ..."""
    counterexample: Counterexample | None = None

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return self.counterexample is None


@dataclass(frozen=True)
class Report:
    """The verification of a plan."""

    net: str
    programs: tuple[ProgramProof, ...]
    plan: Counterexample | None = None
    """What is wrong between programs, or with the memory report, if anything."""

    @property
    def ok(self) -> bool:
        """Whether every program, and what they have in common, holds."""
        return self.plan is None and all(proof.ok for proof in self.programs)

    @property
    def counterexample(self) -> Counterexample | None:
        """The first one."""
        found = (proof.counterexample for proof in self.programs)
        return next((c for c in found if c is not None), self.plan)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"plan of {self.net!r}: {'proved' if self.ok else 'REFUTED'}"
        for proof in self.programs:
            rows = f"{proof.backend}, 1 to {proof.capacity} rows"
            if proof.capacity == 1:
                rows = f"{proof.backend}, 1 row"
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
    """`3 reads`, `1 read`."""
    return f"{n:,} {what.removesuffix('s') if n == 1 else what}"
