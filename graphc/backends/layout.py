"""The layout of a program's code: runs of kernels, calls between them, and blocks of memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from numpy.lib.stride_tricks import as_strided

from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, Dim
from graphc.kernels.kernel import Gemm, Kernel
from graphc.kernels.program import Buffer, Instr, Program

Block = tuple[str, str]
"""A block of memory: the space, and the key in it if it has several blocks."""

CODE = ("kernel", "repeat")
"""The kinds of instructions that become code."""
ARENA: Block = ("arena", "")
SCRATCH: Block = ("scratch", "")


@dataclass(frozen=True)
class Segment:
    """Instructions from `start` to before `end`: kernels in one function, or one other call."""

    start: int
    end: int
    symbol: str | None
    epochs: tuple[tuple[int, ...], ...] = ()
    """The numbers of the instructions that are kernels, one tuple for each epoch."""

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of the instructions that are kernels, each once, in order."""
        return tuple(dict.fromkeys(number for epoch in self.epochs for number in epoch))


@dataclass(frozen=True)
class Layout:
    """The segments of a program, and the blocks of memory that its table holds."""

    segments: tuple[Segment, ...]
    blocks: tuple[Block, ...]

    @property
    def symbols(self) -> list[str]:
        """The names of the functions that a run calls, in order."""
        return [segment.symbol for segment in self.segments if segment.symbol is not None]


def layout(program: Program, skip: frozenset[int] = frozenset()) -> Layout:
    """Return the segments and blocks of memory of a program without the instructions in `skip`."""
    found: list[Segment] = []
    for start, end, native in _runs(program, skip):
        symbol = f"segment{len(found)}" if native else None
        epochs = _epochs(program, start, end, skip) if native else ()
        found.append(Segment(start, end, symbol, epochs))
    return Layout(tuple(found), tuple(_blocks(program, skip)))


def kernels(program: Program, skip: frozenset[int]) -> Iterator[Instr]:
    """Yield the instructions that become code."""
    for i, instr in enumerate(program.instrs):
        if has_code(instr) and i not in skip:
            yield instr


def has_code(instr: Instr) -> bool:
    """Return whether an instruction becomes code; a loop with a reference rule in it does not."""
    inner = () if instr.inside is None else instr.inside.program.instrs
    return instr.kind in CODE and all(i.kind == "barrier" or has_code(i) for i in inner)


def steps_apart(program: Program) -> Iterator[Program]:
    """Yield the programs of steps that have code of their own: those of loops without code."""
    for instr in program.instrs:
        if instr.inside is not None and not has_code(instr):
            yield instr.inside.program
            yield from steps_apart(instr.inside.program)


def _runs(program: Program, skip: frozenset[int]) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of kernels as (start, end, is native).

    A reference rule, a send or a receive ends a run, and so does the forward/backward boundary.
    """
    start = 0
    for i, instr in enumerate((*program.instrs, None)):
        native = instr is not None and (instr.kind == "barrier" or has_code(instr))
        if native and i != program.boundary:
            continue
        if any(has_code(program.instrs[j]) and j not in skip for j in range(start, i)):
            yield start, i, True
        start = i
        if instr is not None and not native:
            if i not in skip:
                yield i, i + 1, False
            start = i + 1


def _epochs(
    program: Program, start: int, end: int, skip: frozenset[int]
) -> tuple[tuple[int, ...], ...]:
    """Return the kernels of each epoch; parts left without kernels are dropped.

    The number of a loop is in as many epochs as it has.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for i in range(start, end):
        instr = program.instrs[i]
        if has_code(instr) and i not in skip:
            for more in range(1 if instr.inside is None else instr.inside.epochs):
                found.setdefault((program.epochs[i], more), []).append(i)
    return tuple(map(tuple, found.values()))


def _blocks(program: Program, skip: frozenset[int]) -> dict[Block, None]:
    names = (name for instr in kernels(program, skip) for name in (*instr.ins, *instr.outs))
    return dict.fromkeys((ARENA, SCRATCH, *(block_of(program.buffers[name]) for name in names)))


def table_index(slot: int) -> int:
    """Return the index of a block's address in the table; entry 2 is a thread's scratch size."""
    return slot if slot < 2 else slot + 1


def block_of(buffer: Buffer) -> Block:
    """Return the block that a buffer lies in."""
    return ARENA if buffer.space == "arena" else (buffer.space, buffer.key)


def start_of(buffer: Buffer) -> int:
    """Return the bytes from the start of the block to the buffer."""
    base = buffer.offset if buffer.space == "arena" else 0
    return base + buffer.shift * ITEMSIZE[buffer.type.dtype]


def pitches(kernel: Kernel, buffers: Mapping[str, Buffer]) -> dict[str, Dim]:
    """Return the number of elements from row to row of each buffer that has rows."""
    widths = dict.fromkeys((*kernel.body.loads, *kernel.body.written), kernel.space[1])
    if isinstance(kernel, Gemm):
        widths |= kernel.factor_columns
    pitch = {name: buffers[name].pitch for name in widths if name in buffers}
    return {name: pitch.get(name) or width for name, width in widths.items()}


def columns_of(root: Array, buffer: Buffer, shape: tuple[int, ...]) -> Array:
    """Return a buffer that is some columns of a matrix, as a strided view of the matrix."""
    flat = root.reshape(-1)
    strides = (buffer.pitch * flat.itemsize, flat.itemsize)
    return as_strided(flat[buffer.shift :], (shape[0], prod(shape[1:])), strides)
