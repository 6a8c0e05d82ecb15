"""The functions of matrix products and of stacks of them: thread partition, choice of method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphc.backends.native.bfloat16_scratch import (
    BlockMatrixScratch,
    BlockPlacesScratch,
    BlockWindowScratch,
    WideScratch,
)
from graphc.backends.native.choose_scratch import is_long, scratch_of
from graphc.backends.native.gemm_block_places import BlockPlaces
from graphc.backends.native.gemm_block_windows import BlockWindows
from graphc.backends.native.gemm_blocks import BlockSums
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.gemm_groups import GroupWindows, GroupWindowSums
from graphc.backends.native.gemm_int8 import Int8
from graphc.backends.native.gemm_long import LongSums
from graphc.backends.native.gemm_pairs import PairSums
from graphc.backends.native.gemm_scratch import FEW, LongScratch, WindowScratch, WordScratch
from graphc.backends.native.gemm_sums import Blocks, Registers, Squares, Sweeps, is_near
from graphc.backends.native.gemm_tile import tile_of
from graphc.backends.native.gemm_tiles import Tiles
from graphc.backends.native.gemm_wide import COPIES, Widened
from graphc.backends.native.gemm_windows import Windows
from graphc.backends.native.ir import Callee, Function, Module, Range, Value
from graphc.backends.native.loop_structure import THREAD_ARGUMENTS, each_index, moved
from graphc.backends.native.target import WORDS, Words
from graphc.backends.native.vectors import element_type
from graphc.backends.native.window_sums import WindowSums
from graphc.ir.tensor_type import Dim, Shape
from graphc.kernels.kernel import CHUNK, BatchedGemm, Convolution, Gemm, buffers_of
from graphc.kernels.stack import parts_of, single_product


def emit_gemm(
    module: Module,
    kernel: Gemm,
    pitch: Mapping[str, Dim],
    bits: int,
    words: Mapping[str, Words] = WORDS,
    *,
    packed: bool = False,
    full: bool = False,
    rows: int = 1,
) -> Callee:
    """Emit the function of a product for registers of `bits` unless the module has it.

    `void @gemm(ptr buffers..., ptr %scratch, i64 %n, i64 %tid, i64 %threads)`; the buffers are
    `Callee.buffers`, in order.  `pitch` has the elements from row to row of every matrix; `words`
    are those of each narrow dtype.  With `packed`, b is stored in the order of its panels.  With
    `full`, a loop has made panels of it: their address, `ptr %panels`, is before the scratch.  A
    batch has at most `rows` rows.
    No store of the body may share memory with `a` or `b`.
    """
    buffers = buffers_of(kernel)
    tile = tile_of(kernel, bits, words, packed=packed or full)
    long = is_long(kernel, tile, rows)

    def emit(f: Function) -> None:
        if kernel.order == "pairs" and isinstance(kernel, Convolution):
            _emit_widened(f, kernel, buffers, pitch, bits)
        else:
            given = module, f, kernel, buffers, pitch, tile
            _emit(Frame(*given, packed=packed, full=full, long=long))

    key = (*_key(kernel, buffers, pitch, bits), tile.words, packed, full, long)
    return Callee(module.function("gemm", _arguments(len(buffers), full), emit, key), buffers)


def _arguments(buffers: int, full: bool = False) -> str:
    """Return the arguments of a product that is called with that many buffers."""
    pointers = "".join(f"ptr %b{i}, " for i in range(buffers))
    panels = "ptr %panels, " if full else ""
    return f"{pointers}{panels}ptr %scratch, {THREAD_ARGUMENTS}"


def _key(
    kernel: Gemm, buffers: tuple[str, ...], pitch: Mapping[str, Dim], bits: int
) -> tuple[object, ...]:
    """Return a key of all that determines the text; buffers appear by their position."""
    place = {buffer: f"b{i}" for i, buffer in enumerate(buffers)}
    types = tuple(type(step.value) for step in kernel.body.steps)  # 1 equals 1.0 and True
    return "gemm", kernel.renamed(place), types, bits, tuple(pitch.get(b) for b in buffers)


def _emit(frame: Frame) -> None:
    """Emit the whole function for this thread's rows and panels, by the method that fits."""
    scratch, (rows, panels) = frame.scratch, _share(frame)
    if isinstance(scratch, BlockPlacesScratch):
        BlockPlaces(frame, scratch).emit(rows, panels)
    elif isinstance(scratch, BlockWindowScratch):
        BlockWindows(frame, scratch).emit(rows, panels)
    elif type(scratch) is LongScratch:
        LongSums(frame).emit(rows, panels)
    elif isinstance(scratch, WordScratch):
        Int8(frame, scratch).emit(rows, panels)
    elif not isinstance(scratch, WindowScratch):
        _emit_matrices(frame, rows, panels)
    elif scratch.across_groups:
        in_groups = GroupWindowSums if scratch.kernel.trans_a else GroupWindows
        in_groups(frame, scratch).emit(rows, panels)
    else:
        over = WindowSums if scratch.kernel.trans_a else Windows
        over(frame, scratch).emit(rows, panels)


def _emit_widened(
    f: Function,
    kernel: Convolution,
    buffers: Sequence[str],
    pitch: Mapping[str, Dim],
    bits: int,
) -> None:
    """Emit a convolution of bfloat16, which calls that of float32."""
    scratch = scratch_of(kernel, tile_of(kernel, bits))
    assert isinstance(scratch, WideScratch)
    arguments = {buffer: f"%b{i}" for i, buffer in enumerate(buffers)}
    plain = replace(scratch.plain, a=COPIES[0], b=COPIES[1])
    of_plain = {**pitch, **dict(zip(COPIES, (0, kernel.n), strict=True))}
    callee = emit_gemm(f.module, plain, of_plain, bits)
    Widened(f, kernel, scratch, pitch).emit(callee, arguments)


def _emit_matrices(frame: Frame, rows: Range, panels: Range) -> None:
    """Emit the product of two stored matrices, by a method for few rows or for many."""
    f, kernel = frame.f, frame.kernel
    tiles = _tiles(frame)
    in_rows = Registers(frame) if is_near(frame) and not kernel.ordered else Sweeps(frame)
    few = Squares(frame) if kernel.trans_b else in_rows
    if frame.tiles_only:
        tiles.emit(rows, panels)
    elif isinstance(kernel.m, int):
        few.emit(rows, panels)
    else:
        count = f.sub(rows[1], rows[0])
        f.when(f.less(FEW, count), lambda: tiles.emit(rows, panels))
        f.when(f.less(count, FEW + 1), lambda: few.emit(rows, panels))


def _tiles(frame: Frame) -> Blocks | Tiles | PairSums:
    """Return the method for many rows."""
    if isinstance(frame.scratch, BlockMatrixScratch):
        return BlockSums(frame, frame.scratch)
    if frame.kernel.order == "pairs":
        return PairSums(frame)
    return Blocks(frame) if frame.scratch.in_blocks else Tiles(frame)


def _share(frame: Frame) -> tuple[Range, Range]:
    """Emit the first and end row, and the first and end panel, of this thread."""
    f, rows, panels = frame.f, ("0", frame.m), ("0", frame.panels)
    if frame.kernel.partition == "rows":
        return f.thread_part(frame.m, CHUNK), panels
    if frame.kernel.partition == "columns":
        return rows, f.thread_part(frame.panels)
    only = f.value("icmp eq i64 %tid, 0")
    return ("0", f.select(only, "i64", frame.m, 0)), panels


def emit_batched(
    module: Module, kernel: BatchedGemm, bits: int, words: Mapping[str, Words] = WORDS
) -> Callee:
    """Emit the function of many products unless the module has it; its signature is a product's."""
    parts = {part.name: part for part in parts_of(kernel)}
    pitch = {name: p.pitch for name, p in parts.items() if isinstance(p.pitch, int)}
    code = emit_gemm(module, single_product(kernel), pitch, bits, words)
    passed = [parts[name] for name in code.buffers]
    names = tuple(dict.fromkeys(part.buffer for part in passed))
    place = {name: f"%b{i}" for i, name in enumerate(names)}
    sizes = kernel.sizes
    addressed = [(place[p.buffer], element_type(p.dtype), p.strides) for p in passed]
    name = module.function(
        "stack",
        _arguments(len(names)),
        lambda f: _emit_stack(f, code.name, sizes, addressed),
        ("stack", code.name, sizes, tuple(addressed)),
    )
    return Callee(name, names)


def _emit_stack(
    f: Function, product: str, sizes: Shape, parts: Sequence[tuple[Value, str, Shape]]
) -> None:
    """Emit the loop over a thread's matrices; a part is a buffer, its element type and strides."""
    for place in each_index(f, [f.size(dim) for dim in sizes]):
        pointers = [moved(f, *part, place) for part in parts]
        f.call(product, *pointers, "%scratch", "%n", 0, 1)
