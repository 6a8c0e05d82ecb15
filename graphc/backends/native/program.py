"""A program as LLVM modules: a function for each run of kernels between other calls.

    void segment(ptr table, i64 n, i64 tid, i64 threads, i64 epoch)

`table` holds the address of every block of memory that the program touches.  A call computes part
`tid` of `threads` of one epoch, the kernels between two barriers; or, if `epoch` is negative, all
epochs in order as one part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType

from graphc.backends.layout import (
    SCRATCH,
    Block,
    Segment,
    block_of,
    layout,
    pitches,
    start_of,
    table_index,
)
from graphc.backends.native.ir import Callee, Function, Module, Value
from graphc.backends.native.panels import packed_buffers
from graphc.backends.native.program_code import code_of
from graphc.backends.native.target import Target
from graphc.kernels.kernel import BatchedGemm, Chain, Gemm, Kernel, Loop, Permutation, ScatterAdd
from graphc.kernels.program import Buffer, Program

PART = 1 << 14
"""The characters of a module, about 10 ms of LLVM's time.  An empty module takes it 1.5 ms."""


def program_ir(
    program: Program, target: Target, skip: frozenset[int] = frozenset()
) -> tuple[str, ...]:
    """Return the texts of a program's modules, without the instructions in `skip`.

    They are written from its `code_of` alone, and do not depend on the number of threads that
    compile them.
    """
    return _Emission(code_of(program), target, skip).texts()


class Kernels:
    """The kernels of programs as functions of one module; programs share equal functions."""

    def __init__(self, module: Module, target: Target) -> None:
        self.module, self.bits, self.words = module, target.bits, target.words

    def call(
        self,
        function: Function,
        program: Program,
        number: int,
        pointer: Callable[[Buffer], Value],
        scratch: Callable[[], Value],
        packed: Collection[str] = (),
        epoch: int = 0,
        turn: Value = "-1",
        panels: Mapping[str, Value] = MappingProxyType({}),
    ) -> None:
        """Append the call of an instruction's kernel, with %n, %tid and %threads of the function.

        `pointer` returns the address of a buffer, `scratch` that of a product's scratch.  The
        buffers `packed` are factors that are stored in panels; `panels` are the addresses of those
        that a loop has packed.  Of a loop whose steps run at once it is one `epoch`; of one whose
        steps have barriers it is the epoch in `turn`, or all if that is negative.
        """
        instr = program.instrs[number]
        if instr.inside is not None:
            from graphc.backends.native import scan

            target = self.bits, self.words
            callee = scan.emit_scan(self.module, program, instr, target, self.call, epoch)
        else:
            assert instr.body is not None, "the instruction is a kernel"
            callee = self._callee(program, instr.body, packed, panels)
        pointers = [pointer(program.buffers[name]) for name in callee.buffers]
        if isinstance(instr.body, Gemm) and instr.body.b in panels:
            pointers.append(panels[instr.body.b])
        if instr.inside is not None or isinstance(instr.body, (Gemm, Chain)):
            pointers.append(scratch())
        last = (turn,) if instr.inside is not None and instr.inside.in_turns else ()
        sizes = map(function.size, callee.sizes)
        function.call(callee.name, *pointers, "%n", "%tid", "%threads", *last, *sizes)

    def _callee(
        self,
        program: Program,
        kernel: Kernel,
        packed: Collection[str] = (),
        panels: Collection[str] = (),
    ) -> Callee:
        # Programs with a cached object never import these.
        from graphc.backends.native import chain, gemm, loops, transpose_scatter

        if isinstance(kernel, Chain):
            dtypes = {name: b.type.dtype for name, b in program.buffers.items()}
            return chain.emit_chain(self.module, kernel, dtypes, partial(self._callee, program))
        if isinstance(kernel, Permutation):
            return transpose_scatter.emit_permuted(self.module, kernel)
        if isinstance(kernel, ScatterAdd):
            return transpose_scatter.emit_scatter_add(self.module, kernel)
        pitch = pitches(kernel, program.buffers)
        if isinstance(kernel, Loop):
            counted = {name: size for name, size in pitch.items() if isinstance(size, int)}
            return loops.emit_loop(self.module, kernel, counted)
        if isinstance(kernel, BatchedGemm):
            return gemm.emit_batched(self.module, kernel, self.bits, self.words)
        given = self.module, kernel, pitch, self.bits, self.words
        stored, full = kernel.b in packed, kernel.b in panels
        return gemm.emit_gemm(*given, packed=stored, full=full, rows=program.capacity)


class _Emission:
    """The module of a program under construction."""

    def __init__(self, program: Program, target: Target, skip: frozenset[int]) -> None:
        self.program = program
        self.module = Module(fused=program.contract == "fused", keeps_indices=not target.arm)
        self.kernels = Kernels(self.module, target)
        self.layout = layout(program, skip)
        self.packed = packed_buffers(program, target.bits)
        self.slots = {block: slot for slot, block in enumerate(self.layout.blocks)}

    def texts(self) -> tuple[str, ...]:
        for segment in self.layout.segments:
            if segment.symbol is not None:
                self._segment(segment, segment.symbol)
        return self.module.parts(PART)

    def _segment(self, segment: Segment, symbol: str) -> None:
        arguments = "ptr %table, i64 %n, i64 %tid, i64 %threads, i64 %epoch"
        function = Function(self.module, symbol, arguments, linkage="")
        pointer, scratch = partial(self._pointer, function), partial(self._scratch, function)
        later = range(1, len(segment.epochs))
        loops = {epoch[0]: i for i, epoch in enumerate(segment.epochs) if self._in_turns(epoch)}
        loops = {number: segment.epochs.index((number,)) for number in loops}
        for number, first in loops.items():
            turn = function.sub("%epoch", first)
            inside = function.value(f"icmp ult i64 {turn}, {segment.epochs.count((number,))}")
            function.when_goes(inside, f"epoch{first}")
        cases = " ".join(
            f"i64 {i}, label %epoch{i}" for i in later if segment.epochs[i][0] not in loops
        )
        function.do(f"switch i64 %epoch, label %epoch0 [{cases}]")
        begun: Counter[int] = Counter()
        for i, epoch in enumerate(segment.epochs):
            if epoch[0] in loops and i > loops[epoch[0]]:
                continue
            function.do(f"\nepoch{i}:")
            for number in epoch:
                turn = self._turn(function, i) if number in loops else "-1"
                of_call = number, pointer, scratch, self.packed, begun[number], turn
                begun[number] += 1
                self.kernels.call(function, self.program, *of_call)
            following = i + segment.epochs.count(epoch) if epoch[0] in loops else i + 1
            if following in later:
                continues = function.value("icmp slt i64 %epoch, 0")
                function.do(f"br i1 {continues}, label %epoch{following}, label %end")
        function.do("br label %end\nend:")
        function.ret()
        self.module.add(function)

    def _in_turns(self, epoch: tuple[int, ...]) -> bool:
        """Return whether an epoch is one of a loop whose steps have barriers."""
        inside = self.program.instrs[epoch[0]].inside
        return inside is not None and inside.in_turns

    def _turn(self, function: Function, first: int) -> Value:
        """Return the epoch within a loop that begins at epoch `first`; negative for all."""
        together = function.value("icmp slt i64 %epoch, 0")
        turn = function.sub("%epoch", first)
        return function.value(f"select i1 {together}, i64 -1, i64 {turn}")

    def _pointer(self, function: Function, buffer: Buffer) -> Value:
        base = self._block(function, block_of(buffer))
        return function.address(base, start_of(buffer), "i8")

    def _scratch(self, function: Function) -> Value:
        """Return the address of this thread's scratch; its size, known last, is in the table."""
        base = self._block(function, SCRATCH)
        pointer = function.address("%table", 2, "ptr")
        size = function.value(f"load i64, ptr {pointer}")
        return function.address(base, function.mul("%tid", size), "i8")

    def _block(self, function: Function, block: Block) -> Value:
        pointer = function.address("%table", table_index(self.slots[block]), "ptr")
        return function.value(f"load ptr, ptr {pointer}")
