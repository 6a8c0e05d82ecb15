"""The vocabulary below the graph: instructions, buffers, programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from graphc.graph import Graph
from graphc.op import Op
from graphc.tensor_type import TensorType

Space = Literal["arena", "state", "feed", "constant", "gradient"]
"""Where a buffer lives: only arena and gradient buffers have offsets."""


@dataclass(frozen=True, slots=True)
class Instr:
    """One step of a program: a kernel, what it reads, the buffers that it alone writes.

    `call` runs the kernel of that name; `reference` runs the op's own rule and copies its
    result; `copy` copies `ins[0]`.  With `members` above 1 it does the same for several
    nodes at once: each operand stands as that many neighbouring buffers in a row.
    """

    kind: Literal["call", "reference", "copy"]
    kernel: str
    op: Op | None
    ins: tuple[str, ...]
    outs: tuple[str, ...]
    scratch: tuple[str, ...]
    node: str
    members: int = 1


@dataclass(frozen=True, slots=True)
class Buffer:
    """A typed place in memory.  `first` and `last` are the instructions of its life."""

    name: str
    type: TensorType
    space: Space
    key: str
    """The state, feed or constant that it is, or the node that owns it."""
    offset: int
    first: int
    last: int


@dataclass(frozen=True)
class Program:
    """One entry of a plan: instructions in order over one arena.

    Instructions before `border` are the forward pass.  `outputs` and `gradients` map public
    names to buffers; `index_bounds` says how many entries an integer feed may index.
    """

    name: str
    graph: Graph
    capacity: int
    instrs: tuple[Instr, ...]
    buffers: Mapping[str, Buffer]
    border: int
    arena_bytes: int
    peak_bytes: int
    gradient_bytes: int
    outputs: Mapping[str, str]
    gradients: Mapping[str, str]
    index_bounds: Mapping[str, int]

    @property
    def feeds(self) -> tuple[str, ...]:
        """The inputs that the program reads, in declared order."""
        return tuple(b.key for b in self.buffers.values() if b.space == "feed" and b.name == b.key)

    def __str__(self) -> str:
        from graphc.text import program_text

        return program_text(self)


class Emitter(Protocol):
    """What an op's `lower` rule writes its instructions with."""

    @property
    def capacity(self) -> int:
        """The largest batch of the plan."""

    def type(self, name: str) -> TensorType:
        """The type of an operand, the result, or a scratch buffer."""

    def call(self, kernel: str, ins: Sequence[str], out: str, scratch: Sequence[str] = ()) -> None:
        """Run the backend's kernel of that name."""

    def reference(self, ins: Sequence[str], out: str) -> None:
        """Run the op's reference rule and copy what it returns."""

    def alias(self, source: str, out: str) -> None:
        """Let `out` be the same bytes as `source`; no instruction is made."""

    def scratch(self, type: TensorType) -> str:
        """A buffer that lives for this instruction only."""

    def ones(self, type: TensorType) -> str:
        """A constant vector of ones, as long as the type's first axis, of its dtype."""

    def row_numbers(self, type: TensorType) -> str:
        """A constant int64 vector 0, 1, 2, ... as long as the type's first axis."""
