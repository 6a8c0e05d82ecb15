"""The functions of matrix products and of stacks of them: thread partition, choice of method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from graphc.backends.native.gemm_blocks import Blocks
from graphc.backends.native.gemm_few_rows import Squares, Sweeps
from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.gemm_groups import GroupWindows, GroupWindowSums
from graphc.backends.native.gemm_sizes import FEW, Scratch, Tile, choose_tile
from graphc.backends.native.gemm_tiles import Tiles
from graphc.backends.native.gemm_windows import Windows, WindowSums
from graphc.backends.native.ir import Function, Module, Range, Value
from graphc.backends.native.loop_structure import THREAD_ARGUMENTS, each_index
from graphc.backends.native.registers import element_type
from graphc.ir.expr import Body
from graphc.ir.tensor_type import Dim, Shape
from graphc.kernels.iteration_space import dense_strides
from graphc.kernels.kernel import CHUNK, Gemm, Stack, stored


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
    name = module.function(
        "gemm",
        _arguments(len(buffers)),
        lambda f: _emit(Frame(module, f, kernel, buffers, pitch, tile)),
        _key(kernel, buffers, pitch, bits),
    )
    return GemmCode(name, buffers, kernel, tile)


def _arguments(buffers: int) -> list[tuple[str, str]]:
    """Return the arguments of a product that is called with that many buffers."""
    pointers = [("ptr", f"%b{i}") for i in range(buffers)]
    return [*pointers, ("ptr", "%scratch"), *THREAD_ARGUMENTS]


def _key(kernel: Gemm, buffers: tuple[str, ...], pitch: Mapping[str, int], bits: int) -> object:
    """Return all that decides the text; buffers count by their position."""
    place = {buffer: i for i, buffer in enumerate(buffers)}
    steps = tuple(
        (s.op, s.args, s.broadcast, s.dtype, place.get(s.buffer), type(s.value), s.value)
        for s in kernel.body.steps
    )
    stores = tuple((place[s.buffer], s.step, s.broadcast) for s in kernel.body.stores)
    sides = (kernel.trans_a, kernel.trans_b, kernel.window)
    sizes = (kernel.m, kernel.n, kernel.k, *sides, kernel.dtype)
    operands = (place[kernel.a], place[kernel.b], kernel.partition, bits)
    return ("gemm", sizes, operands, steps, stores, tuple(pitch.get(b) for b in buffers))


def _emit(frame: Frame) -> None:
    """Emit the whole function for this thread's rows and panels, by the method that fits."""
    kernel = frame.kernel
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


def _emit_matrices(frame: Frame, rows: Range, panels: Range) -> None:
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


def _share(frame: Frame) -> tuple[Range, Range]:
    """Emit the first and end row, and the first and end panel, of this thread."""
    f = frame.f

    def part(count: Value) -> Range:
        first, last = (f.mul(x, count) for x in ("%tid", f.add("%tid", 1)))
        return f.value(f"udiv i64 {first}, %threads"), f.value(f"udiv i64 {last}, %threads")

    rows, panels = ("0", frame.m), ("0", str(frame.panels))
    if frame.kernel.partition == "rows":
        first, last = part(f.value(f"udiv i64 {f.add(frame.m, CHUNK - 1)}, {CHUNK}"))
        return (f.mul(first, CHUNK), f.smaller(f.mul(last, CHUNK), frame.m)), panels
    if frame.kernel.partition == "columns":
        return rows, part(panels[1])
    only = f.value("icmp eq i64 %tid, 0")
    return ("0", f.value(f"select i1 {only}, i64 {frame.m}, i64 0")), panels


LEFT, RIGHT, STORED = "left ", "right ", "stored "
"""The prefixes of part names: a buffer may be several parts of a product, at other addresses."""


def emit_stack(module: Module, kernel: Gemm, bits: int) -> GemmCode:
    """Emit the function of a stack unless the module has it; its signature is a product's."""
    assert kernel.stack is not None
    one, buffers, apart = _one(kernel, kernel.stack)
    code = emit_gemm(module, one, _pitches(kernel, kernel.stack), bits)
    lies = tuple((buffers[name], apart[name]) for name in code.buffers)
    names = tuple(dict.fromkeys(buffer for buffer, _ in lies))
    place = {name: f"%b{i}" for i, name in enumerate(names)}
    passed = [(place[buffer], strides) for buffer, strides in lies]
    types, sizes = _types(one), kernel.stack.sizes
    parts = [(*where, types[part]) for part, where in zip(code.buffers, passed, strict=True)]
    name = module.function(
        "stack",
        _arguments(len(names)),
        lambda f: _emit_stack(f, code.name, sizes, parts),
        ("stack", code.name, sizes, tuple(passed)),
    )
    return GemmCode(name, names, kernel, choose_tile(kernel.dtype, bits))


def _one(kernel: Gemm, stack: Stack) -> tuple[Gemm, dict[str, str], dict[str, Shape]]:
    """Return one of the products, with parts as its buffers, and the buffer of each part.

    The third result has the elements between the matrices of each part, per leading dimension.
    """
    body = kernel.body
    each = dense_strides((*stack.sizes, kernel.m, kernel.n))[:-2]
    row = dense_strides((*stack.sizes, kernel.m))[:-1]
    none: Shape = (0,) * len(stack.sizes)
    broadcasts = {"each": each, "row": row, "column": none, "one": none}
    buffers = {LEFT: kernel.a, RIGHT: kernel.b}
    apart = {LEFT: stack.a[:-1], RIGHT: stack.b[:-1]}
    for step in body.steps:
        if step.op == "load":
            buffers[step.broadcast + step.buffer] = step.buffer
            apart[step.broadcast + step.buffer] = broadcasts[step.broadcast]
    for store in body.stores:
        buffers[STORED + store.buffer] = store.buffer
        apart[STORED + store.buffer] = stored(kernel, stack, store.buffer)[:-1]
    steps = [s._replace(buffer=s.broadcast + s.buffer) if s.op == "load" else s for s in body.steps]
    stores = [s._replace(buffer=STORED + s.buffer) for s in body.stores]
    one = replace(
        kernel,
        a=LEFT,
        b=RIGHT,
        body=Body(tuple(steps), tuple(stores)),
        partition="none",
        stack=None,
    )
    return one, buffers, apart


def _pitches(kernel: Gemm, stack: Stack) -> dict[str, int]:
    """Return the elements from row to row of each part, except those that the batch decides."""
    found: dict[str, Dim] = {LEFT: stack.a[-1], RIGHT: stack.b[-1]}
    found |= {s.broadcast + s.buffer: kernel.n for s in kernel.body.steps if s.op == "load"}
    for store in kernel.body.stores:
        found[STORED + store.buffer] = stored(kernel, stack, store.buffer)[-1]
    return {part: pitch for part, pitch in found.items() if isinstance(pitch, int)}


def _types(one: Gemm) -> Mapping[str, str]:
    """Return the LLVM type in memory of an element of each part."""
    dtypes = {LEFT: one.dtype, RIGHT: one.dtype}
    dtypes |= {s.buffer: s.dtype for s in one.body.steps if s.op == "load"}
    dtypes |= {s.buffer: one.body.steps[s.step].dtype for s in one.body.stores}
    return {part: element_type(dtype) for part, dtype in dtypes.items()}


def _emit_stack(
    f: Function, product: str, sizes: Shape, parts: Sequence[tuple[Value, Shape, str]]
) -> None:
    """Emit the loop over a thread's matrices.

    Each of `parts` is a buffer, the strides of its matrices, and its element type.
    """

    def matrix(place: list[Value]) -> None:
        pointers = [_moved(f, part, place) for part in parts]
        listed = ", ".join(f"ptr {pointer}" for pointer in pointers)
        f.do(f"call void @{product}({listed}, ptr %scratch, i64 %n, i64 0, i64 1)")

    each_index(f, [f.size(dim) for dim in sizes], matrix)


def _moved(f: Function, part: tuple[Value, Shape, str], place: list[Value]) -> Value:
    pointer, strides, type = part
    for index, stride in zip(place, strides, strict=True):
        if stride != 0:
            pointer = f.address(pointer, f.mul(index, f.size(stride)), type)
    return pointer
