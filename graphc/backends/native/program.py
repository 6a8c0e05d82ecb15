"""A program as one module: a function for each run of kernels between NumPy calls.

    void segment(ptr table, i64 n, i64 tid, i64 threads, ptr barrier)

`table` holds the address of every block of memory that the program touches.  Each thread calls
the kernels in order, and waits at the barriers between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.loops import emit_loop
from graphc.backends.native.target import Target
from graphc.backends.native.threads_ir import add_barrier
from graphc.kernels.kernel import Gemm, Kernel, factor_columns
from graphc.plan import Buffer, Instr, Program
from graphc.tensor_type import ITEMSIZE

Place = tuple[str, str]
"""A block of memory: the space, and in it the key where there are several blocks."""

ARENA: Place = ("arena", "")
SCRATCH: Place = ("scratch", "")


@dataclass(frozen=True)
class Segment:
    """Instructions from `start` to before `end`: kernels in one function, or one NumPy call."""

    start: int
    end: int
    symbol: str | None


@dataclass(frozen=True)
class ProgramCode:
    """The text of a program, and what its table holds."""

    ir: str
    segments: tuple[Segment, ...]
    places: tuple[Place, ...]
    scratch: int
    """The bytes of scratch that each thread needs."""

    @property
    def symbols(self) -> list[str]:
        """The functions to call, in order."""
        return [segment.symbol for segment in self.segments if segment.symbol is not None]


def segments(program: Program, skip: frozenset[int]) -> Iterator[tuple[int, int, bool]]:
    """Runs of kernels, ended by NumPy calls and by the border; (start, end, is native)."""
    start = 0
    for i, instr in enumerate((*program.instrs, None)):
        native = instr is not None and instr.kind in ("kernel", "barrier")
        if native and i != program.border:
            continue
        if any(program.instrs[j].body is not None and j not in skip for j in range(start, i)):
            yield start, i, True
        start = i
        if instr is not None and not native:
            if i not in skip:
                yield i, i + 1, False
            start = i + 1


def program_code(
    program: Program, target: Target, skip: frozenset[int] = frozenset()
) -> ProgramCode:
    """The module of a program without the instructions in `skip`."""
    return _Emission(program, target, skip).code()


class _Emission:
    def __init__(self, program: Program, target: Target, skip: frozenset[int]) -> None:
        self.program, self.bits, self.skip = program, target.bits, skip
        self.module = Module()
        add_barrier(self.module, target)
        self.places: dict[Place, int] = {ARENA: 0, SCRATCH: 1}
        self.scratch = 0

    def code(self) -> ProgramCode:
        found: list[Segment] = []
        for start, end, native in segments(self.program, self.skip):
            symbol = f"segment{len(found)}" if native else None
            if symbol is not None:
                self._segment(symbol, start, end)
            found.append(Segment(start, end, symbol))
        return ProgramCode(self.module.text(), tuple(found), tuple(self.places), self.scratch)

    def _segment(self, symbol: str, start: int, end: int) -> None:
        arguments = [
            ("ptr", "%table"),
            ("i64", "%n"),
            ("i64", "%tid"),
            ("i64", "%threads"),
            ("ptr", "%barrier"),
        ]
        function = Function(symbol, arguments, linkage="")
        waiting = False
        for i in range(start, end):
            instr = self.program.instrs[i]
            if instr.body is None:
                waiting = True
            elif i not in self.skip:
                if waiting:
                    function.do("call void @barrier(ptr %barrier, i64 %threads)")
                waiting = False
                self._kernel(function, instr, instr.body)
        function.ret()
        self.module.add(function)

    def _kernel(self, function: Function, instr: Instr, kernel: Kernel) -> None:
        pitch = self._pitches(instr, kernel)
        if isinstance(kernel, Gemm):
            code = emit_gemm(self.module, kernel, pitch, self.bits)
            per_thread = -(-code.scratch(self.program.capacity) // 64) * 64
            self.scratch = max(self.scratch, per_thread)
            pointers = [self._pointer(function, name) for name in code.buffers]
            pointers.append(self._scratch(function))
            name = code.name
        else:
            loop = emit_loop(self.module, kernel, pitch)
            pointers = [self._pointer(function, name) for name in loop.buffers]
            name = loop.name
        listed = ", ".join(f"ptr {pointer}" for pointer in pointers)
        function.do(f"call void @{name}({listed}, i64 %n, i64 %tid, i64 %threads)")

    def _pitches(self, instr: Instr, kernel: Kernel) -> dict[str, int]:
        """The elements between two rows of each buffer that has rows."""
        found: dict[str, int] = {}
        columns = kernel.n if isinstance(kernel, Gemm) else kernel.columns
        for name in (*kernel.body.loads, *kernel.body.written):
            pitch = self.program.buffers[name].pitch or columns
            if isinstance(pitch, int):
                found[name] = pitch
        if isinstance(kernel, Gemm):
            for name, width in factor_columns(kernel).items():
                pitch = self.program.buffers[name].pitch or width
                assert isinstance(pitch, int), "the columns of a factor are counted"
                found[name] = pitch
        return found

    def _pointer(self, function: Function, name: str) -> Value:
        buffer = self.program.buffers[name]
        base = self._block(function, place_of(buffer))
        return function.address(base, _offset(buffer), "i8")

    def _scratch(self, function: Function) -> Value:
        """This thread's scratch: its size is known only when all kernels are, so it is loaded."""
        base = self._block(function, SCRATCH)
        pointer = function.address("%table", 2, "ptr")
        size = function.value(f"load i64, ptr {pointer}")
        return function.address(base, function.mul("%tid", size), "i8")

    def _block(self, function: Function, place: Place) -> Value:
        slot = self.places.setdefault(place, len(self.places))
        index = slot if slot < 2 else slot + 1  # entry 2 is the size of a thread's scratch
        pointer = function.address("%table", index, "ptr")
        return function.value(f"load ptr, ptr {pointer}")


def table_index(slot: int) -> int:
    """Where the address of a block stands in the table."""
    return slot if slot < 2 else slot + 1


def place_of(buffer: Buffer) -> Place:
    """The block that a buffer lies in."""
    return ARENA if buffer.space == "arena" else (buffer.space, buffer.key)


def _offset(buffer: Buffer) -> int:
    """The bytes from the start of the block."""
    base = buffer.offset if buffer.space == "arena" else 0
    return base + buffer.shift * ITEMSIZE[buffer.type.dtype]
