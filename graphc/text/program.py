"""Print programs: the instructions, and where every buffer lives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from graphc.text.graph import name_text, op_text

if TYPE_CHECKING:
    from graphc.plan import Buffer, Instr, Program


def program_text(program: Program) -> str:
    """The instructions in order, then the memory, one line a buffer.

    `a <- kernel(b, c)` says what is read and written; bytes are a formula in the rows N.
    """
    lines = [f"program {name_text(program.name)} for up to {program.capacity} rows"]
    lines.extend(_instructions(program))
    lines.append(f"memory: arena {program.arena.nbytes} bytes, {program.arena.peak} live at once")
    lines.extend(_table(_row(buffer) for buffer in program.buffers.values()))
    return "\n".join(lines) + "\n"


def _instructions(program: Program) -> Iterator[str]:
    width = len(str(len(program.instrs)))
    for i, instr in enumerate(program.instrs):
        if i == program.border and i:
            yield "  backward:"
        yield f"  {i:>{width}}  {_instr_text(instr)}"


def _instr_text(instr: Instr) -> str:
    def names(some: Sequence[str]) -> str:
        return ", ".join(map(name_text, some))

    text = f"{names(instr.outs)} <- {instr.kernel}({names(instr.ins)})"
    details: list[str] = [instr.kind] if instr.kind != "call" else []
    if instr.op is not None and "(" in op_text(instr.op):
        details.append(op_text(instr.op))
    if instr.scratch:
        details.append(f"scratch {names(instr.scratch)}")
    return "  ".join((text, *details))


def _row(buffer: Buffer) -> tuple[str, ...]:
    """Name, type, bytes, space and offset, life, and what it is a view of."""
    placed = buffer.space in ("arena", "gradient")
    place = f"{buffer.space} {buffer.offset}" if placed else buffer.space
    life = "" if buffer.last < buffer.first else f"{buffer.first}..{buffer.last}"
    view = "" if buffer.key == buffer.name else f"of {name_text(buffer.key)}"
    return name_text(buffer.name), str(buffer.type), buffer.type.bytes_text(), place, life, view


def _table(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        yield f"  {'  '.join(cells)}".rstrip()
