"""What a plan claims, as plain tables of numbers and names; nothing of graphc is needed to read it.

A size is a pair (a, b) that stands for a + b*N, where N is the rows of a run.  Bytes of a buffer
are those of a dense matrix of `rows` by `columns`, or, where it has a pitch, of some columns of a
wider one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SPACES = ("arena", "state", "feed", "constant", "gradient")
KINDS = ("call", "reference", "copy", "send", "receive", "loop", "gemm", "barrier")
CALL, REFERENCE, COPY, SEND, RECEIVE, LOOP, GEMM, BARRIER = range(len(KINDS))
SPLITS = ("none", "rows", "columns", "matrices")
NONE, ROWS, COLUMNS, MATRICES = range(len(SPLITS))
USES = ("read", "write", "scratch")
READ, WRITE, SCRATCH = range(len(USES))
SPANS = ("whole", "each", "row", "column", "one", "left", "right", "window")
WHOLE, EACH, ROW, COLUMN, ONE, LEFT, RIGHT, WINDOW = range(len(SPANS))
"""What part of a buffer a step touches: all of it in any order, or element by element what
belongs to (i, j), to i, to j, or to neither; or a factor of a matrix product; the whole of the
factors of a stack of products, and of what is copied in another order; or, through a window,
elements that belong to other rows and columns, which any thread may read."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Memory that buffers lie in: the arena, the gradients, and one for each state, feed and
    constant."""

    names: Sequence[str]
    space: Ints
    size: Ints
    """(blocks, 2): bytes."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Parts of the arena that the planner placed, and how long each is taken, as it counts time."""

    names: Sequence[str]
    offset: Ints
    size: Ints
    """(slots, 2): bytes."""
    first: Ints
    last: Ints


@dataclass(frozen=True, slots=True)
class Buffers:
    """Named places.  `root` is the buffer whose value it shows: itself, unless it is an alias."""

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
    """For some columns of a wider matrix: the first, and the elements from row to row; else 0."""
    first: Ints
    last: Ints
    """The life that the planner counted: steps, or epochs of a native program."""
    slot: Ints
    """Of the arena; -1 elsewhere."""


@dataclass(frozen=True, slots=True)
class Steps:
    """Instructions in order.

    A kernel (loop, gemm) runs over `rows` by `columns`, split between threads; a gemm sums over
    `depth`.  The matrices of a stack of products stand below each other.
    """

    nodes: Sequence[str]
    kind: Ints
    split: Ints
    rows: Ints
    columns: Ints
    depth: Ints
    transposed: Ints
    """1 where the left factor is stored (depth, rows), plus 2 where the right one is (columns,
    depth)."""
    reduced: Ints
    """The axis (ROWS, COLUMNS) that a loop sums along, or NONE."""
    by_columns: Ints
    """1 for a loop that takes block after block of columns, since it computes something once a
    column."""
    item: Ints
    """Bytes of an element of a gemm."""
    copies: Ints
    """1 where all that a step does is to copy."""
    scratch: Ints
    """Bytes that a gemm needs for each thread."""


@dataclass(frozen=True, slots=True)
class Accesses:
    """What steps read and write, in the order of the steps."""

    step: Ints
    buffer: Ints
    use: Ints
    span: Ints
    in_place: Ints
    """1 for an operand that the step may write its result to."""
    member: Ints
    """Which of the nodes that a call runs for in one go; 0 elsewhere."""
    reach: Ints
    """(accesses, 2): by "window", how many elements from the first to behind the last that is
    touched; 0 elsewhere."""


@dataclass(frozen=True, slots=True)
class Results:
    """Buffers that are read when the program is over, by public name."""

    names: Sequence[str]
    buffer: Ints


@dataclass(frozen=True, slots=True)
class Updates:
    """States that the program advances: the block, -1 where nothing touches it, and the buffer
    of the next value."""

    names: Sequence[str]
    block: Ints
    buffer: Ints


@dataclass(frozen=True, slots=True)
class ProgramTables:
    """One program: what the planner says of it."""

    name: str
    backend: str
    capacity: int
    border: int
    """The steps before it are the forward pass."""
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


@dataclass(frozen=True, slots=True)
class MemoryClaims:
    """What the memory report says, in bytes."""

    state: int
    feeds: int
    constants: int
    arena: int
    scratch: int
    scratch_thread: int
    threads: int
    gradients: int
    exchange: int
    lanes: int
    """The shards of a rank, whose sums it holds back but for the last."""
    ranks: int
    workspaces: int
    """Arenas with all that belongs to one; several where the shards of a rank run in step."""
    total: int


@dataclass(frozen=True, slots=True)
class Certificate:
    """All programs of a plan, and its memory."""

    net: str
    batch: int
    backend: str
    memory: MemoryClaims
    state_layout: Mapping[str, tuple[int, int]]
    """The offset and the bytes of each state in the one block of a new executor."""
    programs: tuple[ProgramTables, ...]
