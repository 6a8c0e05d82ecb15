"""The result of a verification: the size of the proof, or the first counterexample."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Counterexample:
    """A violation of a rule by a program."""

    rule: str
    """The invariant, in a few words."""
    sentence: str
    """The fault, with names."""
    details: tuple[str, ...] = ()
    """The steps, buffers, bytes, epochs and threads involved."""

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.sentence}", *(f"  {d}" for d in self.details)])


@dataclass(frozen=True)
class ProgramProof:
    """The checks of one program; with a counterexample, those before it."""

    name: str
    backend: str
    capacity: int
    counts: dict[str, int] = field(default_factory=dict)
    """Counts by what was counted: steps, reads, writes, ..."""
    counterexample: Counterexample | None = None

    @property
    def ok(self) -> bool:
        """Return whether everything holds."""
        return self.counterexample is None


@dataclass(frozen=True)
class Report:
    """The verification of a plan."""

    net: str
    programs: tuple[ProgramProof, ...]
    plan: Counterexample | None = None
    """The fault between programs, or in the memory report, if any."""

    @property
    def ok(self) -> bool:
        """Return whether every program, and what they have in common, holds."""
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
    """Return a count in words: `3 reads`, `1 read`."""
    return f"{n:,} {what.removesuffix('s') if n == 1 else what}"
