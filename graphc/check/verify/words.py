"""Names for numbers, for counterexamples."""

from __future__ import annotations

from graphc.check.certificate.tables import KINDS, SPACES, SPLITS
from graphc.check.verify.facts import ARENA, GRADIENT, Facts


class Words:
    """The names of a program's steps, buffers and bytes."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def step(self, i: int) -> str:
        """Return the name of a step, `step 7 (gemm 'scores')`, or of the start or the end."""
        f = self.facts
        if i >= f.end:
            return "the end of the program"
        if i < 0:
            return "the start of the program"
        kind = KINDS[f.steps.kind[i]]
        return f"step {i} ({kind} {f.steps.nodes[i]!r})"

    def split(self, i: int) -> str:
        """Return the thread partition of a step, in words."""
        split = SPLITS[self.facts.steps.split[i]]
        return "run by the first thread" if split == "none" else f"split by {split}"

    def epoch(self, i: int) -> str:
        """Return the epoch of a step."""
        return f" in epoch {self.facts.epochs[min(max(i, 0), self.facts.end)]}"

    def buffer(self, i: int) -> str:
        """Return the name of a buffer, `'h' (arena bytes 0..64)`; the end is not included."""
        f = self.facts
        name = f.buffers.names[i]
        return f"{name!r} ({self.place(int(f.buffers.block[i]), int(f.low[i]), int(f.high[i]))})"

    def bytes(self, i: int, j: int) -> str:
        """Return the bytes that two buffers share, in words."""
        f = self.facts
        low, high = max(f.low[i], f.low[j]), min(f.high[i], f.high[j])
        return self.place(int(f.buffers.block[i]), int(low), int(high))

    def place(self, block: int, low: int, high: int) -> str:
        """Return bytes of a block, given by address, in words."""
        f = self.facts
        space, base = f.blocks.space[block], int(f.base[block])
        name = (
            SPACES[space]
            if space in (ARENA, GRADIENT)
            else (f"{SPACES[space]} {f.blocks.names[block]!r}")
        )
        return f"{name} bytes {low - base:,}..{high - base:,}"
