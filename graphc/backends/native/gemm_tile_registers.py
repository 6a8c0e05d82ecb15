"""Products of matrices of bfloat16 in the order of blocks, by Intel's registers of tiles (AMX).

A register has 16 rows of 64 bytes: 16 sums, or 16 pairs of factors, a block of 32.  One instruction
adds the products of 16 rows of a and of 16 columns of b, whose rows have a pair of each column.
Both factors are packed in whole blocks, filled up by 0.
"""

from __future__ import annotations

from collections.abc import Callable

from graphc.backends.native.gemm_frame import Panel, emit_copy, packing
from graphc.backends.native.gemm_pairs import BITS, PairSums
from graphc.backends.native.gemm_scratch import K_BLOCK
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import clear, each_vector
from graphc.backends.native.vectors import Vectors
from graphc.ir.bfloat16 import BLOCK
from graphc.kernels.kernel import CHUNK

SIDE = 16
"""The rows of a register, and the words of 32 bits of a row."""
LINE = 4 * SIDE
"""The bytes of a row."""
SUMS, REGISTERS = 4, 8
"""The registers of sums, before those of factors, and all of them."""
PART = 32
"""The rows whose sums are near when the body runs on them."""
SHAPES = [1, 0, 0, 0] + [LINE << 16 | LINE] * 4 + [0] * 4 + [SIDE * 0x01010101] * 2 + [0] * 2
"""The words that make eight registers of full size: a version, bytes of a row, and rows."""


class TileSums(PairSums):
    """The loops of sums in registers of tiles."""

    def emit(self, rows: Range, panels: Range) -> None:
        """Emit the product for ranges of rows and panels."""
        f, v = self.f, Vectors(self.f, SIDE)
        shapes = ", ".join(f"i32 {word}" for word in SHAPES)
        v.store(f"<{shapes}>", self.frame.products, "int32")
        instruction(f, "ldtilecfg", f"ptr {self.frame.products}")
        super().emit(rows, panels)
        instruction(f, "tilerelease")

    def _group(self, rows: Range, panels: Range) -> None:
        f, frame = self.f, self.frame
        self.first, self.count = panels[0], f.sub(rows[1], rows[0])
        self.panel_sums = f.mul(f.mul(f.ceiling(self.count, CHUNK), CHUNK), frame.tile.width)

        def block(p: Value, _: list[Value]) -> None:
            k = f.smaller(f.sub(frame.k, p), K_BLOCK)
            self.pack_a(rows, p, k)
            frame.each_panel(panels, lambda panel: self._multiply(panel, rows[0], p, k))

        f.loop(0, frame.k, K_BLOCK, block)

    def _multiply(self, panel: Panel, row: Value, p: Value, k: Value) -> None:
        """Emit the products of a block, and after the last one the body, for parts of the rows."""
        f, frame, steps, added = self.f, panel.frame, self.steps_of(k), self._emit_added(panel)
        b, last = self.rows_of_b(panel, p, k), f.less(frame.k, f.add(p, K_BLOCK + 1))

        def part(i: Value, _: list[Value]) -> None:
            count = f.smaller(f.sub(self.count, i), PART)
            a = frame.address(self.block, f.mul(i, f.mul(steps, SIDE)))
            sums = frame.address(self._sums(panel), f.mul(i, panel.vectors * SIDE))
            f.call(added, a, count, b, steps, sums, p)
            f.when(last, lambda: panel.run_body(sums, f.add(row, i), count))

        f.loop(0, self.count, PART, part)

    def steps_of(self, k: Value) -> Value:
        """Emit the number of blocks of k factors."""
        return self.f.ceiling(k, BLOCK)

    def pack_a(self, rows: Range, p: Value, k: Value) -> None:
        """Emit the packing of a block of a: the tiles of 16 rows follow each other."""
        f, frame, transposed = self.f, self.frame, self.frame.kernel.trans_a
        pack, pitch = _emit_pack(frame.module, transposed), f.size(frame.rows_a)
        row = f.mul(self.steps_of(k), SIDE)

        def chunk(i: Value, _: list[Value]) -> None:
            source = self._place(frame.a, f.add(rows[0], i), p, pitch, not transposed)
            target = frame.address(self.block, f.mul(i, row))
            f.call(pack, source, pitch, f.sub(self.count, i), target, k)

        f.loop(0, self.count, CHUNK, chunk)

    def rows_of_b(self, panel: Panel, p: Value, k: Value) -> Value:
        """Emit the packing of k rows of a panel in whole blocks, and return their address.

        A panel that is stored so is copied if it is narrow, and where its last block is not whole.
        """
        f, frame = self.f, panel.frame
        if not frame.packed:
            super().rows_of_b(panel, p, k)
            self._fill(panel, k)
            return self.panel
        stored = panel.stored_pairs(p)

        def copied() -> None:
            copy = emit_copy(frame.module, frame.tile, panel.vectors, panel.masked)
            f.call(copy, stored, panel.pitch, panel.columns, self.panel, f.quotient(k, 2))
            self._fill(panel, k)

        if panel.masked:
            copied()
            return self.panel
        whole = f.value(f"icmp eq i64 {f.remainder(k, BLOCK)}, 0")
        f.when(f.value(f"xor i1 {whole}, true"), copied)
        return f.select(whole, "ptr", stored, self.panel)

    def _fill(self, panel: Panel, k: Value) -> None:
        """Emit zeros behind the pairs of k rows, up to the end of their last block."""
        f, width = self.f, panel.vectors * SIDE
        pairs = f.ceiling(k, 2)
        left = f.sub(f.mul(self.steps_of(k), BLOCK // 2), pairs)
        at = panel.frame.address(self.panel, f.mul(pairs, width))
        clear(Vectors(f, SIDE), at, f.mul(left, width), "float32")

    def _emit_added(self, panel: Panel) -> str:
        """Emit the function that adds products of `%k` blocks of packed factors to sums.

        The sums begin at 0 if the blocks, from row `%p` of b on, are the first ones.
        """
        vectors = panel.vectors
        rows = max(SUMS // 2 // vectors, 1)

        def emit(f: Function) -> None:
            chunks = f.ceiling("%count", CHUNK)
            full = f.round_down(chunks, rows)
            f.loop(0, full, rows, lambda i, _: _emit_tiles(f, i, rows, vectors))
            f.loop(full, chunks, 1, lambda i, _: _emit_tiles(f, i, 1, vectors))

        arguments = "ptr %s, i64 %count, ptr %v, i64 %k, ptr %sums, i64 %p"
        return panel.frame.module.function("added", arguments, emit, ("tiles", vectors))


def _emit_tiles(f: Function, chunk: Value, rows: int, columns: int) -> None:
    """Emit the sums of some tiles, from a chunk of rows on."""
    width = columns * SIDE
    sums = {
        i * columns + j: f.address(
            "%sums", f.add(f.mul(f.add(chunk, i), SIDE * width), j * SIDE), "float"
        )
        for i in range(rows)
        for j in range(columns)
    }
    of_b = REGISTERS - min(columns, REGISTERS - SUMS - rows)

    def clear_sums() -> None:
        for register in sums:
            instruction(f, "tilezero", f"i8 {register}")

    def load_sums() -> None:
        for register, place in sums.items():
            _move(f, "tileloadd64", register, place, columns * LINE)

    f.when(f.less("%p", 1), clear_sums)
    f.when(f.less(0, "%p"), load_sums)

    def block(p: Value, _: list[Value]) -> None:
        for i in range(rows):
            tile = f.mul(f.add(f.mul(f.add(chunk, i), "%k"), p), SIDE * SIDE)
            _move(f, "tileloadd64", SUMS + i, f.address("%s", tile, "i32"), LINE)
        for j in range(columns):
            register, place = of_b + j % (REGISTERS - of_b), f.add(f.mul(p, SIDE * width), j * SIDE)
            _move(f, "tileloadd64", register, f.address("%v", place, "i32"), columns * LINE)
            for i in range(rows):
                each = i * columns + j, SUMS + i, register
                instruction(f, "tdpbf16ps", *(f"i8 {x}" for x in each))

    f.loop(0, "%k", 1, block)
    for register, place in sums.items():
        _move(f, "tilestored64", register, place, columns * LINE)


def _move(f: Function, name: str, register: int, place: Value, pitch: int) -> None:
    """Emit the load or the store of a register, whose rows are `pitch` bytes apart in memory."""
    instruction(f, name, f"i8 {register}", f"ptr {place}", f"i64 {pitch}")


def instruction(f: Function, name: str, *arguments: str) -> None:
    """Emit an instruction of registers of tiles."""
    types = ", ".join(
        argument.split()[0] + (" immarg" if argument.startswith("i8") else "")
        for argument in arguments
    )
    f.module.declare(f"declare void @llvm.x86.{name}({types})")
    f.do(f"call void @llvm.x86.{name}({', '.join(arguments)})")


def _emit_pack(module: Module, transposed: bool) -> str:
    """Return the function that packs k factors of 16 rows of a, tile after tile.

    Of `%rows` rows only so many exist.  `transposed`, a is stored as rows of k.
    """

    def emit(f: Function) -> None:
        (_pack_columns if transposed else _pack_rows)(f)

    return module.function("pack", packing("%rows"), emit, ("pack tiles", transposed))


def _pack_rows(f: Function) -> None:
    """Emit the copy of the blocks of 16 rows; the last row is repeated."""
    v, last = Vectors(f, BLOCK), f.sub("%rows", 1)
    starts = [f.mul(f.smaller(row, last), "%pitch") for row in range(SIDE)]

    def block(p: Value, mask: Value | None) -> None:
        for row, start in enumerate(starts):
            x = v.load(f.address("%from", f.add(start, p), "i16"), BITS, mask)
            v.store(x, f.address("%to", f.add(f.mul(p, SIDE), row * BLOCK), "i16"), BITS)

    each_vector(v, "%k", block)


def _pack_columns(f: Function) -> None:
    """Emit the transposition of blocks of rows of k; what does not exist is 0."""
    v = Vectors(f, SIDE)

    def row(number: Value, mask: Value | None) -> Value:
        at = f.address("%from", f.mul(number, "%pitch"), "i16")
        return v.cast(v.load(at, BITS, mask), BITS, "int32")

    def block(p: Value, mask_of: Callable[[Value], Value | None]) -> None:
        words = []
        for pair in range(SIDE):
            numbers = [f.add(p, 2 * pair + i) for i in range(2)]
            first, second = (row(number, mask_of(number)) for number in numbers)
            upper = v.binary("shl", second, v.const(16, "int32"), "int32")
            words.append(v.binary("or", first, upper, "int32"))
        for i, line in enumerate(v.transpose(words, "int32")):
            place = f.add(f.mul(f.quotient(p, 2), SIDE), i * SIDE)
            v.store(line, f.address("%to", place, "i32"), "int32")

    def existing(number: Value) -> Value:
        return v.mask_below(f.select(f.less(number, "%k"), "i64", "%rows", 0))

    whole, all_rows = f.round_down("%k", BLOCK), f.less(SIDE - 1, "%rows")
    full = f.select(all_rows, "i64", whole, 0)
    f.loop(0, full, BLOCK, lambda p, _: block(p, lambda number: None))
    f.loop(full, "%k", BLOCK, lambda p, _: block(p, existing))
