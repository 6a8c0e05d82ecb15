"""What the rest of graphc knows of a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from graphc.ir.op import Array
from graphc.ir.plan import Instr

Call = Callable[[], object]
"""A part of a run, bound to its memory."""
View = Callable[[str], Array]
"""The array of a buffer."""


class Link(Protocol):
    """A link that carries values to other shards."""

    def calls(self, program: str, instr: Instr, arrays: Sequence[Array]) -> tuple[Call, ...]:
        """Return the calls of an instruction that sends or receives these arrays."""

    def poke(self) -> None:
        """Advance the transfers that are under way."""
