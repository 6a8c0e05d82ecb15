"""The function of a matrix product: its signature, its thread partition, its choice of method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphc.backends.native.gemm_blocks import Blocks
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.gemm_groups import GroupWindows, GroupWindowSums
from graphc.backends.native.gemm_rows import Sweeps
from graphc.backends.native.gemm_squares import Squares
from graphc.backends.native.gemm_tiles import Tiles
from graphc.backends.native.gemm_window_sums import WindowSums
from graphc.backends.native.gemm_windows import Windows
from graphc.backends.native.ir import Module, Value
from graphc.backends.native.scratch import Scratch
from graphc.backends.native.tile import FEW, Tile, choose_tile
from graphc.kernels.kernel import CHUNK, Gemm


@dataclass(frozen=True, slots=True)
class GemmCode:
    """The function of a product: its name, and the buffers that it is called with."""

    name: str
    buffers: tuple[str, ...]
    kernel: Gemm
    tile: Tile

    def scratch(self, n: int) -> int:
        """Return the bytes of thread-private memory, 64-byte aligned, for up to n batch rows."""
        return Scratch(self.kernel, self.tile).size(n)


def emit_gemm(module: Module, kernel: Gemm, pitch: Mapping[str, int], bits: int) -> GemmCode:
    """Emit the function of a product for registers of `bits` unless the module has it.

    `void @gemm(ptr buffers..., ptr %scratch, i64 %n, i64 %tid, i64 %threads)`; the buffers are
    those of the result, in order.  `pitch` has the elements between the rows of every matrix.
    No store of the body may share memory with `a` or `b`.
    """
    body = kernel.body
    buffers = tuple(dict.fromkeys((kernel.a, kernel.b, *body.loads, *body.written)))
    tile = choose_tile(kernel.dtype, bits)
    key = _key(kernel, buffers, pitch, bits)
    name = module.known(key)
    if name is None:
        name = module.name("gemm", key)
        _emit(Frame(module, name, kernel, buffers, pitch, tile))
    return GemmCode(name, buffers, kernel, tile)


def _key(kernel: Gemm, buffers: tuple[str, ...], pitch: Mapping[str, int], bits: int) -> object:
    """Return all that decides the text; buffers count by their position."""
    place = {buffer: i for i, buffer in enumerate(buffers)}
    steps = tuple(
        (s.op, s.args, s.span, s.dtype, place.get(s.buffer), type(s.value), s.value)
        for s in kernel.body.steps
    )
    stores = tuple((place[s.buffer], s.step, s.span) for s in kernel.body.stores)
    sides = (kernel.trans_a, kernel.trans_b, kernel.window)
    sizes = (kernel.m, kernel.n, kernel.k, *sides, kernel.dtype)
    operands = (place[kernel.a], place[kernel.b], kernel.split, bits)
    return ("gemm", sizes, operands, steps, stores, tuple(pitch.get(b) for b in buffers))


def _emit(frame: Frame) -> None:
    """Emit the whole function for this thread's rows and panels, by the method that fits."""
    f, kernel = frame.f, frame.kernel
    rows, panels = _share(frame)
    if kernel.window is not None:
        if frame.scratch.across_groups:
            in_groups = GroupWindowSums if kernel.trans_a else GroupWindows
            in_groups(frame, kernel.window).emit(rows, panels)
        else:
            over = WindowSums if kernel.trans_a else Windows
            over(frame, kernel.window).emit(rows, panels)
    else:
        _emit_matrices(frame, rows, panels)
    f.ret()
    frame.module.add(f)


def _emit_matrices(frame: Frame, rows: tuple[Value, Value], panels: tuple[Value, Value]) -> None:
    """Emit the product of two stored matrices, by a method for few rows or for many."""
    f, kernel = frame.f, frame.kernel
    tiles = Blocks(frame) if frame.scratch.in_blocks else Tiles(frame)
    few = Squares(frame) if kernel.trans_b else Sweeps(frame)
    if kernel.trans_a or (isinstance(kernel.m, int) and kernel.m > FEW):
        tiles.emit(rows, panels)
    elif isinstance(kernel.m, int):
        few.emit(rows, panels)
    else:
        count = f.sub(rows[1], rows[0])
        f.when(f.value(f"icmp sgt i64 {count}, {FEW}"), lambda: tiles.emit(rows, panels))
        f.when(f.value(f"icmp sle i64 {count}, {FEW}"), lambda: few.emit(rows, panels))


def _share(frame: Frame) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """Emit the first and end row, and the first and end panel, of this thread."""
    f = frame.f

    def part(count: Value) -> tuple[Value, Value]:
        first, last = (f.mul(x, count) for x in ("%tid", f.add("%tid", 1)))
        return f.value(f"udiv i64 {first}, %threads"), f.value(f"udiv i64 {last}, %threads")

    rows, panels = ("0", frame.m), ("0", str(frame.panels))
    if frame.kernel.split == "rows":
        first, last = part(f.value(f"udiv i64 {f.add(frame.m, CHUNK - 1)}, {CHUNK}"))
        return (f.mul(first, CHUNK), f.smaller(f.mul(last, CHUNK), frame.m)), panels
    if frame.kernel.split == "columns":
        return rows, part(panels[1])
    only = f.value("icmp eq i64 %tid, 0")
    return ("0", f.value(f"select i1 {only}, i64 {frame.m}, i64 0")), panels
