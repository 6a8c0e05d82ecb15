"""The barriers at which threads wait for each other, and the epochs between them.

Within an epoch threads run ahead of each other.  Two kernels of one epoch may touch the same
memory only if each thread touches its own part of it in both: the same rows, or the same
columns.  A kernel whose results nothing waits for moves to the next epoch rather than need
another barrier, while the kernels that wait are short and little memory is kept for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from graphc.ir.expr import Broadcast
from graphc.ir.tensor_type import Dim
from graphc.kernels.duration import microseconds
from graphc.kernels.kernel import Gemm, Kernel, Loop
from graphc.kernels.program import Instr, Program

BARRIER = Instr("barrier", "barrier", None, (), (), "")
"""The instruction at which all threads wait for each other."""


WAITING_TIME = 200
"""The most microseconds of the kernels that wait for a barrier: it costs a hundredth of that."""
WAITING_BYTES = 1 << 19
"""The most bytes that they may read in all, so that a core still has them in its second cache."""
SPARING_BYTES = 1 << 16
"""The same for a program that must keep little, or that one thread runs."""


class Region(NamedTuple):
    """The part of a buffer that a thread touches: its rows, its columns, or any part."""

    kind: str
    size: Dim = 0
    owner: int = 0


ALL = Region("all")
FIRST = Region("first thread")


class Access(NamedTuple):
    """A buffer that an instruction reads or writes, and the part of it that a thread touches."""

    buffer: str
    writes: bool
    region: Region


def accesses(kernel: Kernel, memory: Callable[[str], str]) -> list[Access]:
    """Return the part of each memory that a thread touches; `memory` names that of a buffer."""
    body = kernel.body
    found: list[Access] = []
    by_rows = isinstance(kernel, Gemm) and kernel.partition == "rows" and not kernel.trans_a
    for buffer, read, _ in kernel.operands:
        own = Region("rows", kernel.space[0]) if read == "left" and by_rows else ALL
        found.append(Access(memory(buffer), False, own))
    regions: dict[Broadcast, Region] = {}
    known: Region | None
    for number in body.readers:
        op, _, broadcast, _, buffer, _ = body.steps[number]
        known = regions.get(broadcast) if op == "load" else ALL
        if known is None:
            known = regions[broadcast] = region(kernel, broadcast)
        found.append(Access(memory(buffer), False, known))
    for buffer, _, broadcast in body.stores:
        known = regions.get(broadcast) or region(kernel, broadcast)
        found.append(Access(memory(buffer), True, known))
    return found


def region(kernel: Kernel, broadcast: Broadcast) -> Region:
    """Return the part of a buffer of a broadcast kind that a thread touches."""
    if kernel.partition == "matrices":
        return ALL
    if kernel.partition == "none":
        return FIRST
    if kernel.partition == "rows":
        return Region("rows", kernel.space[0]) if broadcast in ("each", "row") else ALL
    if broadcast not in ("each", "column"):
        return ALL
    if isinstance(kernel, Gemm):
        return Region("panels", kernel.n, id(kernel))
    assert isinstance(kernel, Loop), "threads share the matrices of a chain"
    return Region(f"columns along {kernel.axis}", kernel.columns)


def reads_of_others(program: Program, handed: Mapping[str, str]) -> bool:
    """Return whether a thread reads of what a step hands on, another part than it writes.

    `handed` maps the results of the step's program to the feeds that they become.
    """

    def memory(name: str) -> str:
        root = program.aliases.get(name, name)
        return handed.get(root, root)

    parts: dict[str, set[Region]] = {feed: set() for feed in handed.values()}
    for buffer, _, part in _touched(program, memory):
        parts.get(buffer, set()).add(part)
    return any(len(found) > 1 or ALL in found for found in parts.values())


def _touched(program: Program, memory: Callable[[str], str]) -> Iterator[Access]:
    """Yield the accesses of all kernels, those in loops included, and of slices that these take."""
    for instr in program.instrs:
        if instr.body is not None:
            yield from accesses(instr.body, memory)
        elif instr.inside is not None:
            inside = instr.inside
            yield from _touched(inside.program, inside.around(memory))
            for name in inside.sliced:
                yield Access(memory(name), name in instr.outs, ALL)


class Arrangement:
    """Instructions in order, with barriers; `epochs` has the epoch of each instruction."""

    def __init__(self) -> None:
        self.instrs: list[Instr] = []
        self.epochs: list[int] = []
        self.boundary = 0
        """The number of forward instructions."""
        self.touched: list[dict[str, list[Access]]] = [{}]
        """For each epoch the accesses to each memory, each once."""

    def _alone(self, instr: Instr) -> None:
        """Add an instruction with an epoch of its own, which needs no barriers."""
        self._next_epoch()
        self._emit(instr)
        self._next_epoch()

    def _emit(self, instr: Instr, found: Sequence[Access] = ()) -> None:
        self.instrs.append(instr)
        self.epochs.append(len(self.touched) - 1)
        now = self.touched[-1]
        for access in found:
            touched = now.get(access.buffer)
            if touched is None:
                now[access.buffer] = [access]
            elif access not in touched:
                touched.append(access)

    def _barrier(self) -> None:
        self._emit(BARRIER)
        self._next_epoch()

    def _next_epoch(self) -> None:
        self.touched.append({})


class Barriers(Arrangement):
    """Instructions with as few barriers between them as are found."""

    def __init__(
        self,
        instrs: Sequence[Instr],
        boundary: int,
        memory: Callable[[str], str],
        nbytes: Callable[[str], int],
        capacity: int,
        waiting_bytes: int,
    ) -> None:
        """Arrange instructions for up to `capacity` rows, of which `boundary` are forward.

        `memory` names the memory of a buffer; `nbytes` are the bytes of the arena that it keeps.
        Kernels that wait for a barrier read at most `waiting_bytes` of it.
        """
        super().__init__()
        self.boundary = len(instrs)
        self._memory, self._nbytes = memory, nbytes
        self._capacity, self._most_bytes = capacity, waiting_bytes
        self._waiting: list[tuple[Instr, Sequence[Access]]] = []
        """The instructions that wait for the next barrier."""
        self._waiting_ins: set[str] = set()
        """The buffers that they read."""
        self._waiting_bytes, self._waiting_time = 0, 0.0
        self._waiting_writes: dict[str, bool] = {}
        """The memory that they touch, and whether one of them writes it."""
        self._last_reader = {
            memory(name): i for i, instr in enumerate(instrs) for name in instr.ins
        }
        for i, instr in enumerate(instrs):
            if i == boundary:
                self._end_of_forward()
            self._add(i, instr)
        self._flush()
        if boundary >= len(instrs):
            self.boundary = len(self.instrs)

    def _end_of_forward(self) -> None:
        self._flush()
        self._next_epoch()
        self.boundary = len(self.instrs)

    def _add(self, i: int, instr: Instr) -> None:
        if instr.body is None:
            self._flush()
            self._alone(instr)
            return
        found = accesses(instr.body, self._memory)
        if self._waiting and self._touches_waiting(found):
            self._flush()
        if self._conflicts(found):
            if self._may_wait(i, instr):
                self._delay(instr, found)
                return
            self._barrier()
        self._emit(instr, found)

    def _may_wait(self, i: int, instr: Instr) -> bool:
        memory = self._memory
        if any([self._last_reader.get(memory(out), -1) > i for out in instr.outs]):
            return False
        if self._waiting_bytes + self._more_bytes(instr) > self._most_bytes:
            return False
        return self._waiting_time + microseconds((instr,), self._capacity) <= WAITING_TIME

    def _more_bytes(self, instr: Instr) -> int:
        """Return the bytes that an instruction reads and none that waits does."""
        return sum([self._nbytes(name) for name in instr.ins if name not in self._waiting_ins])

    def _delay(self, instr: Instr, found: Sequence[Access]) -> None:
        """Let an instruction wait for the next barrier."""
        self._waiting.append((instr, found))
        self._waiting_bytes += self._more_bytes(instr)
        self._waiting_time += microseconds((instr,), self._capacity)
        self._waiting_ins.update(instr.ins)
        for memory, writes, _ in found:
            self._waiting_writes[memory] = writes or self._waiting_writes.get(memory, False)

    def _touches_waiting(self, found: Sequence[Access]) -> bool:
        """Return whether accesses must come after those of an instruction that waits."""
        waiting = self._waiting_writes
        return any(
            [memory in waiting and (writes or waiting[memory]) for memory, writes, _ in found]
        )

    def _conflicts(self, found: Sequence[Access]) -> bool:
        """Return whether another thread may touch the same memory in this epoch, and one writes."""
        touched = self.touched[-1]
        for memory, mine, part in found:
            for _, writes, region in touched.get(memory, ()):
                if (writes or mine) and (region != part or region.kind == "all"):
                    return True
        return False

    def _barrier(self) -> None:
        """Add a barrier, then the instructions that waited for it."""
        super()._barrier()
        waiting, self._waiting = self._waiting, []
        self._waiting_bytes, self._waiting_time = 0, 0.0
        self._waiting_ins, self._waiting_writes = set(), {}
        for instr, found in waiting:
            if self._conflicts(found):
                self._barrier()
            self._emit(instr, found)

    def _flush(self) -> None:
        if self._waiting:
            self._barrier()
