"""The tables of a certificate: what a plan says about its steps and its memory, as numbers.

A size (a, b, c) means a + b*N + c*N*N, where N is the rows of a run.  Bytes of a buffer are
those of a dense matrix of `rows` by `columns`, or, if it has a pitch, of some columns of a wider
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class Word(IntEnum):
    """A number of a table that is a word in a file."""

    @property
    def word(self) -> str:
        """The word for the number in a certificate file."""
        return self.name.lower()

    @classmethod
    def of(cls, word: str) -> Self:
        """Return the member with a word; raise KeyError if there is none."""
        return cls[word.upper()]


class Space(Word):
    """The kind of memory that a block is."""

    ARENA, STATE, FEED, CONSTANT, GRADIENT, RESULT = range(6)


class Kind(Word):
    """The kind of a step of a program: a call, an exchange, a kernel, a barrier, or a scan.

    A scan runs a program at each step of a sequence.
    """

    CALL, SEND, RECEIVE, LOOP, GEMM, BARRIER, SCAN = range(7)


class Axis(Word):
    """The dimension that threads share, or that a loop sums over."""

    NONE, ROWS, COLUMNS, MATRICES = range(4)


class Use(Word):
    """The kind of an access: a read or a write."""

    READ, WRITE = range(2)


class Pattern(Word):
    """The part of a buffer that a step touches.

    WHOLE is all of it in any order: so are the factors of a stack of products, what a chain reads
    and writes, and what is copied in another order.  EACH, ROW, COLUMN and ONE are, element by
    element, what belongs to (i, j), to i, to j, or to neither.  LEFT and RIGHT are the factors of a
    matrix product.  WINDOW is elements that belong to other rows and columns, which any thread may
    read.
    """

    WHOLE, EACH, ROW, COLUMN, ONE, LEFT, RIGHT, WINDOW = range(8)


@dataclass(frozen=True, slots=True)
class Blocks:
    """Memory that buffers lie in: the arena, the gradients, and each state, feed and constant."""

    names: Sequence[str]
    space: Ints
    size: Ints
    """The bytes of each block, (blocks, 3)."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Parts of the arena that the planner placed, with their live ranges in epochs."""

    names: Sequence[str]
    offset: Ints
    size: Ints
    """The bytes of each slot, (slots, 3)."""
    first: Ints
    last: Ints


@dataclass(frozen=True, slots=True)
class Buffers:
    """Named places; `root` is the buffer whose value it shows: itself, unless it is an alias."""

    names: Sequence[str]
    block: Ints
    offset: Ints
    """Bytes from the start of the block."""
    rows: Ints
    columns: Ints
    item: Ints
    """Bytes of an element."""
    root: Ints
    shift: Ints
    pitch: Ints
    """For some columns of a wider matrix, `shift` is the first column and `pitch` the elements from
    row to row; else both are 0."""
    first: Ints
    last: Ints
    """With `first`, the live range that the planner counted, in epochs."""
    slot: Ints
    """The slot of a buffer in the arena; -1 for other buffers."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The instructions of a program in order, a row each: kind, iteration space, partition.

    A kernel (loop, gemm) runs over `rows` by `columns`, partitioned between threads; a gemm sums
    over `depth`.  The matrices of a stack of products lie below each other.
    """

    nodes: Sequence[str]
    kind: Ints
    partition: Ints
    rows: Ints
    columns: Ints
    depth: Ints
    transposed: Ints
    """1 if the left factor is stored (depth, rows), plus 2 if the right one is (columns, depth)."""
    reduced: Ints
    """The reduction axis of a loop."""
    by_columns: Ints
    """1 for a loop that takes block after block of columns, since it computes something once a
    column."""
    item: Ints
    """Bytes of an element of a gemm."""
    copies: Ints
    """1 if a step only copies."""
    scratch: Ints
    """Bytes that a step needs for each thread, besides buffers."""


@dataclass(frozen=True, slots=True)
class Accesses:
    """The reads and writes of steps, in the order of the steps."""

    step: Ints
    buffer: Ints
    use: Ints
    pattern: Ints
    in_place: Ints
    """1 for an operand that the step may write its result to."""
    reach: Ints
    """(accesses, 3): by WINDOW, the elements from the first to past the last that is touched;
    else 0."""


@dataclass(frozen=True, slots=True)
class Results:
    """Buffers that are read when the program is over, by public name."""

    names: Sequence[str]
    buffer: Ints


@dataclass(frozen=True, slots=True)
class Updates:
    """States that a program advances to the value in `buffer`; `block` is -1 if it is untouched."""

    names: Sequence[str]
    block: Ints
    buffer: Ints


@dataclass(frozen=True, slots=True)
class ProgramTables:
    """The planner's claims about one program."""

    name: str
    backend: str
    capacity: int
    boundary: int
    """The forward/backward boundary: the steps before it are the forward pass."""
    arena: int
    peak: int
    blocks: Blocks
    slots: Slots
    buffers: Buffers
    steps: Steps
    accesses: Accesses
    outputs: Results
    gradients: Results
    updates: Updates
    loops: tuple[LoopTables, ...] = ()


@dataclass(frozen=True, slots=True)
class LoopTables:
    """A scan: the program of one step, and where its inputs and results lie.

    Buffers of the step's program come first in a row, then those of the program around it.
    """

    step: int
    """The instruction of the program around it."""
    program: ProgramTables
    steps: int
    at_once: int
    """1 if all steps run as one, with the rows of all of them."""
    waits: int
    """1 if threads wait for each other between steps, whatever happens within one."""
    sequences: Ints
    """(sequences, 2): the inputs that are slices, and the buffers they are slices of."""
    whole: Ints
    """(wholes, 2): the inputs that are buffers, and these."""
    stacked: Ints
    """(results, 2): the results that are slices, and the buffers they are slices of."""
    carried: Ints
    """(carried values, 6): input and result of a step; and the buffers with the value before the
    first step, after the last one, before each one, and after each one; -1 for none."""
    number: int
    """The input that is the position of the step; -1 for none."""
    lengths: int
    """The buffer with the steps of each row; -1 for none."""
    workspace: int
    """The buffer that holds the arena of the step's program, and then the slots."""
    slot: Ints
    """The inputs and results of a step that have a slot."""
    offset: Ints
    """The place of each slot in the workspace, in bytes."""


@dataclass(frozen=True, slots=True)
class MemoryClaims:
    """The figures of the memory report, in bytes."""

    state: int
    feeds: int
    results: int
    """The outputs of a batch that runs in blocks."""
    constants: int
    arena: int
    scratch: int
    scratch_thread: int
    threads: int
    gradients: int
    exchange: int
    lanes: int
    """The shards of a rank, which holds back the sums of all but the last."""
    ranks: int
    workspaces: int
    """Arenas with all that belongs to one; several if the shards of a rank run in step."""
    total: int


Places = Mapping[str, tuple[int, int]]
"""The offset and the bytes of named arrays in a block."""


@dataclass(frozen=True, slots=True)
class MemberClaims:
    """The memory of a population, in bytes, for any number of members.

    Threads take whole members, and each thread works in an arena and with feeds of its own.
    """

    threads: int
    state: int
    """From the state of a member to that of the next."""
    arena: int
    """The arenas of all threads."""
    apart: Mapping[str, int]
    """From the arena of a thread to that of the next, by the program that it runs."""
    feeds: int
    """The feeds of all threads."""
    area: int
    """From the feeds of a thread to those of the next."""
    places: Places
    """The place of each feed among those of a thread."""
    fixed: int
    """All that a population allocates besides the states of its members."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """All programs of a plan, and its memory."""

    net: str
    batch: int
    backend: str
    memory: MemoryClaims
    state_layout: Places
    """The place of each state in the single block of a new executor, and of each member."""
    programs: tuple[ProgramTables, ...]
    members: MemberClaims | None = None
    """The memory of populations; None for an exported model, which has none."""
