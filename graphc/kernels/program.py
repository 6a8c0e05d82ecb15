"""A program: kernels and calls in order, over buffers in one arena."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from graphc.base.door import higher
from graphc.ir.graph import Graph
from graphc.ir.op import Op
from graphc.ir.tensor_type import Dim, TensorType, align
from graphc.kernels.kernel import Kernel

if TYPE_CHECKING:
    from graphc.base.protocols import Proof
    from graphc.kernels.inside import Inside

Space = Literal["arena", "state", "feed", "constant", "gradient", "result"]
"""The memory of a buffer: only arena and gradient buffers have offsets.

The results of a loop's step are written to buffers of the program around it."""
Contract = Literal["fused", "unfused"]
"""The rounding of multiply-adds in products and polynomials: once, or twice."""
PREPARE = "prepare"
"""The name of the program that computes what inference keeps of the state."""


class Instr(NamedTuple):
    """One step of a program: a kernel, its operands, the buffers that it alone writes.

    `kernel` runs the fused kernel `body`, which computes `nodes`; `call` runs the op's reference
    rule and copies its result; `barrier` lets the threads wait for each other.  `send` starts the
    exchange of a bucket, and `receive` waits for the sum over all shards.  `repeat` runs the
    program `inside` at each step of a loop.
    """

    kind: Literal["kernel", "call", "barrier", "send", "receive", "repeat"]
    kernel: str
    """The kind of kernel, or the op's name."""
    op: Op | None
    ins: tuple[str, ...]
    outs: tuple[str, ...]
    node: str
    body: Kernel | None = None
    nodes: tuple[str, ...] = ()
    inside: Inside | None = None

    @property
    def buffers(self) -> tuple[str, ...]:
        """The buffers that it reads and writes, each once."""
        return tuple(dict.fromkeys((*self.ins, *self.outs)))


class Buffer(NamedTuple):
    """A range of memory with a value: type, place and live range, from epoch `first` to `last`."""

    name: str
    type: TensorType
    space: Space
    key: str
    """The state, feed, constant, gradient or storage that it is a view of."""
    offset: int
    first: int
    last: int
    shift: int = 0
    """The elements by which it starts later: the first of its columns."""
    pitch: int = 0
    """The elements between its rows if it is only some columns of a matrix."""


@dataclass(frozen=True, slots=True)
class LiveRange:
    """Bytes of the arena, and the epochs during which no others may be in their place.

    Parameters
    ----------
    name
        The name of the buffer that first uses the bytes, mostly that of a node.
    nbytes
        The bytes at the largest batch.
    first, last
        The first and the last of the epochs.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> _ = net.output("y", gc.relu(net.input("x", (gc.N, 3)), name="y"))
    >>> def at_the_start(ranges):
    ...     print(*ranges)
    ...     return {live.name: 0 for live in ranges}
    >>> plan = gc.compile(net, batch=8, planner=at_the_start)
    LiveRange(name='y', nbytes=96, first=0, last=1)
    """

    name: str
    nbytes: int
    first: int
    last: int

    def __post_init__(self) -> None:
        if self.nbytes < 0:
            raise ValueError(f"{self.name!r} has a negative size of {self.nbytes} bytes")
        if self.last < self.first:
            raise ValueError(f"{self.name!r} ends in epoch {self.last}, before {self.first}")


@dataclass(frozen=True, slots=True)
class Arena:
    """The offset of each buffer, the bytes they take together, and the most that live at once."""

    offsets: Mapping[str, int]
    nbytes: int
    peak: int


@dataclass(frozen=True, slots=True)
class Storage:
    """A part of the arena that buffers use in turn, or in which they lie side by side.

    `parts` are the types that it must hold one after the other; a part that several buffers
    share in turn is listed once.
    """

    key: str
    parts: tuple[TensorType, ...]
    first: int
    last: int

    def range_at(self, n: int) -> LiveRange:
        """Return the live range that the planner places, for a batch of `n` rows."""
        return LiveRange(self.key, sum(t.nbytes(n) for t in self.parts), self.first, self.last)


@dataclass(frozen=True)
class Program:
    """One entry of a plan: instructions in order over one arena.

    Instructions before `boundary` are the forward pass.  `outputs` and `gradients` map public
    names to buffers; `index_bounds` maps an integer feed to the number of entries it may index,
    `aliases` a buffer without bytes of its own to the one whose bytes it shares.
    """

    name: str
    graph: Graph
    capacity: int
    instrs: tuple[Instr, ...]
    buffers: Mapping[str, Buffer]
    storages: tuple[Storage, ...]
    arena: Arena
    boundary: int
    outputs: Mapping[str, str]
    gradients: Mapping[str, str]
    index_bounds: Mapping[str, Dim]
    aliases: Mapping[str, str]
    backend: str
    contract: Contract = "fused"

    @cached_property
    def feeds(self) -> Mapping[str, TensorType]:
        """The inputs that the program reads, in declared order."""
        return {
            b.name: b.type for b in self.buffers.values() if b.space == "feed" and b.name == b.key
        }

    @cached_property
    def fed_gradients(self) -> Mapping[str, str]:
        """The feeds that are gradients of parameters, and those parameters' names."""
        roles = {name: self.graph[name].op.role for name in self.feeds}
        return {name: role.of for name, role in roles.items() if role.kind == "gradient"}

    @cached_property
    def constants(self) -> Mapping[str, Buffer]:
        """The constants of the program by name."""
        found = (b for b in self.buffers.values() if b.space == "constant")
        return {b.name: b for b in found if b.name == b.key}

    @cached_property
    def kept(self) -> frozenset[str]:
        """The constants that are values of the state: they are kept until it is written."""
        return frozenset(n for n in self.constants if not self.graph[n].op.is_constant)

    @cached_property
    def gradient_bytes(self) -> int:
        """The bytes of the block that holds the gradients asked for."""
        ends = [
            b.offset + align(b.type.nbytes(self.capacity))
            for b in self.buffers.values()
            if b.space == "gradient"
        ]
        return max(ends, default=0)

    @cached_property
    def epochs(self) -> tuple[int, ...]:
        """The epoch of each instruction.

        An epoch ends at a barrier and at the forward/backward boundary; a call has its own.
        """
        found, epoch = [], 0
        for i, instr in enumerate(self.instrs):
            alone = instr.kind not in ("kernel", "barrier")
            epoch += (i == self.boundary) + alone
            found.append(epoch)
            epoch += alone or instr.kind == "barrier"
        return tuple(found)

    def steps(self) -> Iterator[Program]:
        """Yield the programs of the steps of loops, and of those within them."""
        for instr in self.instrs:
            if instr.inside is not None:
                yield instr.inside.program
                yield from instr.inside.program.steps()

    def verify(self) -> Proof:
        """Prove that no step reads or overwrites what it must not; see `graphc.check.verify`."""
        proof: Proof = higher("verify_program")(higher("certify_program")(self))
        return proof

    def __str__(self) -> str:
        text: str = higher("program text")(self)
        return text
