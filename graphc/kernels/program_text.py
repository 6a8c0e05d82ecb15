"""The text of programs: the instructions, and the memory of every buffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from graphc.ir.tensor_type import count
from graphc.ir.text.graph import name_text, op_text
from graphc.kernels.text import kernel_text

if TYPE_CHECKING:
    from graphc.kernels.program import Buffer, Instr, Program


def program_text(program: Program) -> str:
    """Return the instructions in order, then the memory, one line a buffer.

    `a <- op(b, c)` says what is read and written; bytes are a formula in the rows N.  An epoch is
    the part between two barriers; live ranges are counted in epochs, since threads run ahead of
    each other within one.
    """
    head = f"program {name_text(program.name)} for up to {program.capacity} rows"
    lines = [f"{head}, {program.backend}", *_instructions(program)]
    arena = program.arena
    lines.append(f"memory: arena {arena.nbytes} bytes, {arena.peak} live at once; lives are epochs")
    lines.extend(_table(_row(buffer) for buffer in program.buffers.values()))
    return "\n".join(lines) + "\n"


def _instructions(program: Program) -> Iterator[str]:
    width = len(str(len(program.instrs)))
    blank = " " * (width + 4)
    epoch = 0
    for i, (instr, now) in enumerate(zip(program.instrs, epochs(program), strict=True)):
        if i == program.boundary and i:
            yield "  backward:"
        if instr.kind == "barrier":
            epoch = now + 1
            yield f"  {i:>{width}}  ---- barrier ---- epoch {epoch}"
            continue
        if now != epoch:
            epoch = now
            yield f"{blank}---- epoch {epoch}"
        text = _instr_text(instr) if instr.body is None else kernel_text(instr.body)
        first, *rest = text.splitlines()
        yield f"  {i:>{width}}  {first}"
        yield from (blank + line for line in rest)


def epochs(program: Program) -> Iterator[int]:
    """Yield the epoch of each instruction.

    An epoch ends at a barrier and at the forward/backward boundary; a call has its own.
    """
    epoch = 0
    for i, instr in enumerate(program.instrs):
        alone = instr.kind not in ("kernel", "barrier")
        epoch += (i == program.boundary) + alone
        yield epoch
        epoch += alone or instr.kind == "barrier"


def _instr_text(instr: Instr) -> str:
    def names(some: Sequence[str]) -> str:
        return ", ".join(map(name_text, some))

    if instr.kind in ("send", "receive"):
        return f"{instr.kind} bucket {getattr(instr.op, 'bucket', 0)}: {names(instr.ins)}"
    text = f"{names(instr.outs)} <- {instr.kernel}({names(instr.ins)})"
    if instr.op is not None and "(" in op_text(instr.op):
        return f"{text}  {op_text(instr.op)}"
    return text


def _row(buffer: Buffer) -> tuple[str, ...]:
    """Return name, type, bytes, space and offset, live range, and the buffer that it views."""
    placed = buffer.space in ("arena", "gradient")
    place = f"{buffer.space} {buffer.offset}" if placed else buffer.space
    life = "" if buffer.last < buffer.first else f"{buffer.first}..{buffer.last}"
    view = "" if buffer.key == buffer.name else f"of {name_text(buffer.key)}"
    if buffer.pitch:
        view = f"columns {_columns(buffer)} {view}"
    return name_text(buffer.name), str(buffer.type), buffer.type.bytes_text(), place, life, view


def _columns(buffer: Buffer) -> str:
    """Return the columns of a matrix that a buffer views, as a slice of Python."""
    width = count(buffer.type.shape[1:])
    assert isinstance(width, int), "only columns that are counted are views"
    return f"{buffer.shift}:{buffer.shift + width} of {buffer.pitch}"


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
