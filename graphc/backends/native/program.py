"""A program as one LLVM module: a function for each run of kernels between other calls.

    void segment(ptr table, i64 n, i64 tid, i64 threads, i64 epoch)

`table` holds the address of every block of memory that the program touches.  A call computes part
`tid` of `threads` of one epoch, the kernels between two barriers; or, if `epoch` is negative, all
epochs in order as one part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.backends.native.ir import Callee, Function, Module, Value
from graphc.backends.native.target import Target
from graphc.ir.tensor_type import ITEMSIZE, Dim
from graphc.kernels.kernel import BatchedGemm, Gemm, Kernel, Loop, Permutation, ScatterAdd
from graphc.kernels.program import Buffer, Instr, Program

Block = tuple[str, str]
"""A block of memory: the space, and the key in it if it has several blocks."""

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


@dataclass(frozen=True)
class Layout:
    """The segments of a program, and the blocks of memory that its table holds."""

    segments: tuple[Segment, ...]
    blocks: tuple[Block, ...]

    @property
    def symbols(self) -> list[str]:
        """The names of the functions of native code that a run calls, in order."""
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
    """Yield the instructions that become native code."""
    for i, instr in enumerate(program.instrs):
        if instr.body is not None and i not in skip:
            yield instr


def _runs(program: Program, skip: frozenset[int]) -> Iterator[tuple[int, int, bool]]:
    """Yield runs of kernels as (start, end, is native).

    A reference rule, a send or a receive ends a run, and so does the forward/backward boundary.
    """
    start = 0
    for i, instr in enumerate((*program.instrs, None)):
        native = instr is not None and instr.kind in ("kernel", "barrier")
        if native and i != program.boundary:
            continue
        if any(program.instrs[j].body is not None and j not in skip for j in range(start, i)):
            yield start, i, True
        start = i
        if instr is not None and not native:
            if i not in skip:
                yield i, i + 1, False
            start = i + 1


def _epochs(
    program: Program, start: int, end: int, skip: frozenset[int]
) -> tuple[tuple[int, ...], ...]:
    """Return the kernels between barriers; parts left without kernels are dropped."""
    found: list[tuple[int, ...]] = []
    epoch: list[int] = []
    for i in range(start, end):
        if program.instrs[i].body is None:
            found.append(tuple(epoch))
            epoch = []
        elif i not in skip:
            epoch.append(i)
    return tuple(kept for kept in (*found, tuple(epoch)) if kept)


def _blocks(program: Program, skip: frozenset[int]) -> dict[Block, None]:
    names = (name for instr in kernels(program, skip) for name in (*instr.ins, *instr.outs))
    used = (block_of(program.buffers[name]) for name in names)
    return dict.fromkeys((ARENA, SCRATCH, *used))


def table_index(slot: int) -> int:
    """Return the index of a block's address in the table; entry 2 is a thread's scratch size."""
    return slot if slot < 2 else slot + 1


def block_of(buffer: Buffer) -> Block:
    """Return the block that a buffer lies in."""
    return ARENA if buffer.space == "arena" else (buffer.space, buffer.key)


def program_ir(program: Program, target: Target, skip: frozenset[int] = frozenset()) -> str:
    """Return the text of a program's module, without the instructions in `skip`."""
    return _Emission(program, target, skip).text()


class _Emission:
    """The module of a program under construction."""

    def __init__(self, program: Program, target: Target, skip: frozenset[int]) -> None:
        self.program, self.bits = program, target.bits
        self.module = Module()
        self.layout = layout(program, skip)
        self.slots = {block: slot for slot, block in enumerate(self.layout.blocks)}

    def text(self) -> str:
        for segment in self.layout.segments:
            if segment.symbol is not None:
                self._segment(segment, segment.symbol)
        return self.module.text()

    def _segment(self, segment: Segment, symbol: str) -> None:
        arguments = "ptr %table, i64 %n, i64 %tid, i64 %threads, i64 %epoch"
        function = Function(self.module, symbol, arguments, linkage="")
        later = range(1, len(segment.epochs))
        cases = " ".join(f"i64 {i}, label %epoch{i}" for i in later)
        function.do(f"switch i64 %epoch, label %epoch0 [{cases}]")
        for i, epoch in enumerate(segment.epochs):
            function.do(f"\nepoch{i}:")
            for number in epoch:
                kernel = self.program.instrs[number].body
                assert kernel is not None, "epochs are of kernels"
                self._kernel(function, kernel)
            if i + 1 in later:
                continues = function.value("icmp slt i64 %epoch, 0")
                function.do(f"br i1 {continues}, label %epoch{i + 1}, label %end")
        function.do("br label %end\nend:")
        function.ret()
        self.module.add(function)

    def _kernel(self, function: Function, kernel: Kernel) -> None:
        callee = self._callee(kernel)
        pointers = [self._pointer(function, name) for name in callee.buffers]
        if isinstance(kernel, Gemm):
            pointers.append(self._scratch(function))
        function.call(callee.name, *pointers, "%n", "%tid", "%threads")

    def _callee(self, kernel: Kernel) -> Callee:
        # Programs with a cached object never import these.
        from graphc.backends.native import gemm, loops, transpose_scatter

        if isinstance(kernel, Permutation):
            return transpose_scatter.emit_permuted(self.module, kernel)
        if isinstance(kernel, ScatterAdd):
            return transpose_scatter.emit_scatter_add(self.module, kernel)
        if isinstance(kernel, Loop):
            return loops.emit_loop(self.module, kernel, self._pitches(kernel))
        if isinstance(kernel, BatchedGemm):
            return gemm.emit_batched(self.module, kernel, self.bits)
        return gemm.emit_gemm(self.module, kernel, self._rows(kernel), self.bits)

    def _pitches(self, kernel: Loop) -> dict[str, int]:
        """Return the number of elements from row to row of each buffer, if it is counted."""
        found = self._rows(kernel)
        return {name: pitch for name, pitch in found.items() if isinstance(pitch, int)}

    def _rows(self, kernel: Kernel) -> dict[str, Dim]:
        """Return the number of elements from row to row of each buffer that has rows."""
        widths = dict.fromkeys((*kernel.body.loads, *kernel.body.written), kernel.space[1])
        if isinstance(kernel, Gemm):
            widths |= kernel.factor_columns
        return {name: self.program.buffers[name].pitch or widths[name] for name in widths}

    def _pointer(self, function: Function, name: str) -> Value:
        buffer = self.program.buffers[name]
        base = self._block(function, block_of(buffer))
        return function.address(base, _offset(buffer), "i8")

    def _scratch(self, function: Function) -> Value:
        """Return the address of this thread's scratch.

        Its size is known only after all kernels are emitted, so it is loaded from the table.
        """
        base = self._block(function, SCRATCH)
        pointer = function.address("%table", 2, "ptr")
        size = function.value(f"load i64, ptr {pointer}")
        return function.address(base, function.mul("%tid", size), "i8")

    def _block(self, function: Function, block: Block) -> Value:
        pointer = function.address("%table", table_index(self.slots[block]), "ptr")
        return function.value(f"load ptr, ptr {pointer}")


def _offset(buffer: Buffer) -> int:
    """Return the bytes from the start of the block to the buffer."""
    base = buffer.offset if buffer.space == "arena" else 0
    return base + buffer.shift * ITEMSIZE[buffer.type.dtype]
