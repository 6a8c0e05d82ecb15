"""How a program is called: its runs of kernels between NumPy calls, and the table they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.plan import Buffer, Instr, Program

Place = tuple[str, str]
"""A block of memory: the space, and in it the key where there are several blocks."""

ARENA: Place = ("arena", "")
SCRATCH: Place = ("scratch", "")


@dataclass(frozen=True)
class Segment:
    """Instructions from `start` to before `end`: kernels in one function, or one NumPy call."""

    start: int
    end: int
    symbol: str | None
    epochs: tuple[tuple[int, ...], ...] = ()
    """The instructions that are kernels, parted where threads wait for each other."""


@dataclass(frozen=True)
class Layout:
    """The segments of a program, and the blocks of memory that its table holds."""

    segments: tuple[Segment, ...]
    places: tuple[Place, ...]

    @property
    def symbols(self) -> list[str]:
        """The functions to call, in order."""
        return [segment.symbol for segment in self.segments if segment.symbol is not None]


def layout(program: Program, skip: frozenset[int] = frozenset()) -> Layout:
    """What a program without the instructions in `skip` is called with."""
    found: list[Segment] = []
    for start, end, native in _runs(program, skip):
        symbol = f"segment{len(found)}" if native else None
        epochs = _epochs(program, start, end, skip) if native else ()
        found.append(Segment(start, end, symbol, epochs))
    return Layout(tuple(found), tuple(_places(program, skip)))


def kernels(program: Program, skip: frozenset[int]) -> Iterator[Instr]:
    """The instructions that are native code."""
    for i, instr in enumerate(program.instrs):
        if instr.body is not None and i not in skip:
            yield instr


def _runs(program: Program, skip: frozenset[int]) -> Iterator[tuple[int, int, bool]]:
    """Runs of kernels, ended by NumPy calls and by the border; (start, end, is native)."""
    start = 0
    for i, instr in enumerate((*program.instrs, None)):
        native = instr is not None and instr.kind in ("kernel", "barrier")
        if native and i != program.border:
            continue
        if any(program.instrs[j].body is not None and j not in skip for j in range(start, i)):
            yield start, i, True
        start = i
        if instr is not None and not native:
            if i not in skip:
                yield i, i + 1, False
            start = i + 1


def _epochs(
    program: Program, start: int, end: int, skip: frozenset[int]
) -> tuple[tuple[int, ...], ...]:
    """Return the kernels between barriers; what is left without any is no epoch."""
    found: list[tuple[int, ...]] = []
    epoch: list[int] = []
    for i in range(start, end):
        if program.instrs[i].body is None:
            found.append(tuple(epoch))
            epoch = []
        elif i not in skip:
            epoch.append(i)
    return tuple(kept for kept in (*found, tuple(epoch)) if kept)


def _places(program: Program, skip: frozenset[int]) -> dict[Place, None]:
    names = (name for instr in kernels(program, skip) for name in (*instr.ins, *instr.outs))
    used = (place_of(program.buffers[name]) for name in names)
    return dict.fromkeys((ARENA, SCRATCH, *used))


def table_index(slot: int) -> int:
    """Where the address of a block stands in the table: entry 2 is the size of a thread's
    scratch."""
    return slot if slot < 2 else slot + 1


def place_of(buffer: Buffer) -> Place:
    """The block that a buffer lies in."""
    return ARENA if buffer.space == "arena" else (buffer.space, buffer.key)
