"""Products of blocks by Intel's registers of tiles (AMX).

A register has 16 rows of 64 bytes: 16 sums, or 16 pairs of factors, a block of 32.  One instruction
adds the products of 16 rows of a and of 16 columns of b, whose rows have a pair of each column.
"""

from __future__ import annotations

from graphc.backends.native.ir import Function, Value
from graphc.backends.native.target import TILES
from graphc.backends.native.vectors import Vectors

SIDE = 16
"""The rows of a register, and the words of 32 bits of a row."""
LINE = 4 * SIDE
"""The bytes of a row."""
SUMS, REGISTERS = 4, 8
"""The registers of sums, before those of factors, and all of them."""
PASSING = "tileloaddt164"
"""The load of what is not read again soon: the panel of b stays in the first-level cache."""
SHAPES = [1, 0, 0, 0] + [LINE << 16 | LINE] * 4 + [0] * 4 + [SIDE * 0x01010101] * 2 + [0] * 2
"""The words that make eight registers of full size: a version, bytes of a row, and rows."""


def configure(f: Function, memory: Value) -> None:
    """Emit the instruction that makes registers usable, of a table that is written to memory."""
    shapes = ", ".join(f"i32 {word}" for word in SHAPES)
    Vectors(f, SIDE).store(f"<{shapes}>", memory, "int32")
    _do(f, "ldtilecfg", f"ptr {memory}")


def release(f: Function) -> None:
    """Emit the instruction that frees the processor from keeping the registers."""
    _do(f, "tilerelease")


def emit_tile_products(f: Function, vectors: int) -> None:
    """Emit the products of blocks of a function `added`: see `block_products`.

    Up to four tiles of sums are in registers at a time.
    """
    rows = max(SUMS // 2 // vectors, 1)
    chunks = f.ceiling("%count", SIDE)
    full = f.round_down(chunks, rows)
    f.loop(0, full, rows, lambda chunk, _: _emit_sums(f, chunk, rows, vectors))
    f.loop(full, chunks, 1, lambda chunk, _: _emit_sums(f, chunk, 1, vectors))


def _emit_sums(f: Function, chunk: Value, rows: int, columns: int) -> None:
    """Emit the sums of rows and columns of tiles, from a chunk of rows on."""
    starts = [f.mul(f.add(chunk, i), SIDE * SIDE * columns) for i in range(rows)]
    indices = [f.add(start, j * SIDE) for start in starts for j in range(columns)]
    sums = [f.address("%sums", index, "float") for index in indices]

    def clear_sums() -> None:
        for register in range(len(sums)):
            _do(f, "tilezero", f"i8 {register}")

    def load_sums() -> None:
        for register, place in enumerate(sums):
            _move(f, PASSING, register, place, columns * LINE)

    f.when(f.less("%p", 1), clear_sums)
    f.when(f.less(0, "%p"), load_sums)
    f.loop(0, "%k", 1, lambda block, _: _emit_block(f, block, chunk, rows, columns))
    for register, place in enumerate(sums):
        _move(f, "tilestored64", register, place, columns * LINE)


def _emit_block(f: Function, block: Value, chunk: Value, rows: int, columns: int) -> None:
    """Emit the products of a block of terms, which are added to the registers of sums.

    Tiles of b take turns in the registers that the sums and the tiles of a leave.
    """
    of_b = range(SUMS + rows, REGISTERS)
    for i in range(rows):
        tile = f.mul(f.add(f.mul(f.add(chunk, i), "%k"), block), SIDE * SIDE)
        _move(f, PASSING, SUMS + i, f.address("%s", tile, "i32"), LINE)
    for j in range(columns):
        register = of_b[j % len(of_b)]
        place = f.add(f.mul(block, SIDE * SIDE * columns), j * SIDE)
        _move(f, "tileloadd64", register, f.address("%v", place, "i32"), columns * LINE)
        for i in range(rows):
            each = i * columns + j, SUMS + i, register
            _do(f, TILES.instruction.removeprefix("x86."), *(f"i8 {x}" for x in each))


def _move(f: Function, name: str, register: int, place: Value, pitch: int) -> None:
    """Emit the load or the store of a register, whose rows are `pitch` bytes apart in memory."""
    _do(f, name, f"i8 {register}", f"ptr {place}", f"i64 {pitch}")


def _do(f: Function, name: str, *arguments: str) -> None:
    """Emit an instruction of registers of tiles."""
    kinds = (argument.split()[0] for argument in arguments)
    types = ", ".join(kind + (" immarg" if kind == "i8" else "") for kind in kinds)
    f.module.declare(f"declare void @llvm.x86.{name}({types})")
    f.do(f"call void @llvm.x86.{name}({', '.join(arguments)})")
