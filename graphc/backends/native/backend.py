"""The native backend: LLVM compiles a program for this machine, and the code is bound to memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from graphc.backends.backend import (
    Call,
    Link,
    Memory,
    Order,
    Part,
    PeakWork,
    Ready,
    SideBySide,
    ZeroCopy,
)
from graphc.backends.compiled import CompiledProgram
from graphc.backends.layout import Segment, steps_apart, table_index
from graphc.backends.native import pool
from graphc.backends.native.cache_keys import program_key
from graphc.backends.native.feeds import bind_feeds, readable
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.libraries import Library, load, load_by_key, stale
from graphc.backends.native.panels import packed_buffers, packed_factors, scratch_sizes
from graphc.backends.native.program import program_ir
from graphc.backends.native.side_by_side import Runs
from graphc.backends.native.target import DOTS, TILES, available, host
from graphc.backends.native.vectors import Vectors
from graphc.base.usable_cores import thread_count
from graphc.ir.forms import TermOrder
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.kernels.duration import epoch_microseconds, is_shared, microseconds
from graphc.kernels.program import Program

SHARED = 5
"""The microseconds from which a run may be shared by threads."""


class NativeProgram(CompiledProgram):
    """A program whose functions LLVM compiled, shared by threads."""

    backend = "native"

    def __init__(
        self,
        program: Program,
        skip: frozenset[int],
        memory: Memory,
        link: Link | None = None,
    ) -> None:
        sends = any(instr.kind == "send" for instr in program.instrs)
        super().__init__(program, skip, memory, link if sends else None)
        self.threads = memory.threads
        scratch = len(memory.scratch) // self.threads
        target = host()
        key = program_key(program, skip)
        write = partial(program_ir, program, target, skip)
        self.library = load_by_key(key, write, self.layout.symbols, target)
        self.table[2] = scratch
        self._addresses, fixed = self.table.copy(), self._fixed_feeds()
        self.feeds = {
            key: table_index(slot)
            for slot, (space, key) in enumerate(self.layout.blocks)
            if space == "feed" and key not in fixed
        }
        """The table entry that holds the address of each feed that only native code reads."""

    def _fixed_feeds(self) -> set[str]:
        """Return the feeds whose address is fixed: other calls read them, or they are results."""
        instrs, buffers = self.program.instrs, self.program.buffers
        names = [*self.program.outputs.values(), *self.program.gradients.values()]
        for segment in self.layout.segments:
            if segment.symbol is None:
                names.extend(instrs[segment.start].ins)
        for instr in instrs:
            names.extend(instr.outs)
        return {buffers[name].key for name in names if buffers[name].space == "feed"}

    def feed_in_place(self) -> None:
        """Reset the table to the workspace's addresses for all feeds."""
        self.table[:] = self._addresses

    def zero_copy(self, types: Mapping[str, TensorType]) -> tuple[ZeroCopy, tuple[str, ...]] | None:
        """Return a check of feeds of these types, and which feeds are copied; None if all are."""
        if not readable():
            return None
        entries = {name: self.feeds[name] for name in types if name in self.feeds}
        written, rows = self.memory.written, self.program.capacity
        check = bind_feeds(self.program, types, entries, self.table, written, rows)
        read = [name for name in self.program.feeds if name in types]
        return check, tuple(name for name in read if name not in entries)

    def side_by_side(self, work: SideBySide) -> Ready | None:
        """Return the calls that make these runs, each thread its own ones.

        Return None for a program that is not one function, for outputs that are not in the arena,
        and without an arena for each thread.
        """
        return None if self._runs is None else self._runs.ready(work)

    @cached_property
    def _runs(self) -> Runs | None:
        program, segments = self.program, self.layout.segments
        if not self.uninterrupted or len(segments) != 1 or self._fixed_feeds():
            return None
        if len(self.memory.arena) < self.threads * program.arena.nbytes:
            return None
        entries = {block: table_index(slot) for slot, block in enumerate(self.layout.blocks)}
        time = microseconds(program.instrs, program.capacity)
        address = self.library.address(self.layout.symbols[0])
        return Runs(program, address, self._addresses, entries, self.memory, time)

    def _calls_of(self, segment: Segment, symbol: str, n: int) -> list[Call]:
        calls: list[Call] = [partial(self._native(segment, symbol, n), n)]
        # Messages advance only while somebody asks about them.
        return calls if self._link is None else [*calls, self._link.poke]

    def _parts_of(self, segment: Segment, symbol: str, n: int, threads: int) -> list[Part]:
        found: list[Part] = []
        address = self.library.address(symbol)
        for epoch, numbers in enumerate(segment.epochs):
            call = pool.pool().in_turns(address, self.table, n, threads, epoch)
            before, after = segment.epochs[:epoch], segment.epochs[epoch + 1 :]
            starts = tuple(i for i in numbers if not any(i in others for others in before))
            ends = tuple(i for i in numbers if not any(i in others for others in after))
            found.append(Part((call,), starts, ends))
        return found

    def _native(self, segment: Segment, symbol: str, n: int) -> Callable[[int], None]:
        instrs = self.program.instrs
        times = [sum(epoch_microseconds(instrs[i], n) for i in epoch) for epoch in segment.epochs]
        shared = [is_shared(time) for time in times]
        return pool.bind(
            self.library,
            symbol,
            self.table,
            shared=shared,
            threads=self.threads if sum(times) >= SHARED and any(shared) else 1,
            estimate=sum(times),
        )


TILE_RATE = 8.0
"""The speed of products by tiles, from packed factors, where that of float32 is 1."""
CHAINS = 12
"""The number of independent sums of the loop that runs at the machine's peak: enough to hide the
latency of two multiply-adds a cycle, and few enough for the registers of every machine."""
ROUNDS = 20_000
"""The rounds of one call: about 0.1 ms, long compared with the call itself."""


def fma_loop(lanes: int) -> str:
    """Return LLVM IR of CHAINS sums of `lanes` floats each: x = x * 0.5 + 1, `rounds` times."""
    module = Module()
    f = Function(module, "fma_loop", "ptr %sink, i64 %rounds", linkage="")
    v = Vectors(f, lanes)
    half, one = v.const(0.5, "float32"), v.const(1, "float32")

    def multiply_add(_: Value, sums: list[Value]) -> list[Value]:
        return [v.fma(x, half, one, "float32") for x in sums]

    sums = f.loop(0, "%rounds", 1, multiply_add, [(v.type("float32"), one)] * CHAINS)
    for i, x in enumerate(sums):
        v.store(x, f.address("%sink", i * lanes, "float"), "float32")
    f.ret()
    module.add(f)
    return module.text()


class NativeBackend:
    """The backend that compiles programs for the machine that it runs on."""

    name = "native"
    compiles = True
    by_row = True

    def missing(self) -> str | None:
        """Return why native code cannot be compiled here, or None if it can."""
        return available()

    def threads(self, asked: int | None) -> int:
        """Return how many cores a plan may use, at most as many as asked for."""
        return thread_count(asked)

    def rates_of_orders(self) -> Mapping[TermOrder, float]:
        """Return those measured: widening costs nothing; pairs and tiles have instructions."""
        words = host().words
        rates: dict[TermOrder, float] = {"pairs": 2.0 if words["pairs"] == DOTS else 1.0}
        return {**rates, "blocks": TILE_RATE} if words["blocks"] == TILES else rates

    def scratch(self, program: Program) -> Sequence[int]:
        """Return the scratch bytes that a thread needs in each instruction."""
        target = host()
        packed = packed_buffers(program, target.bits)
        return scratch_sizes(program, target.bits, target.words, packed)

    def orders(self, program: Program) -> Mapping[str, Order]:
        """Return the packing of each constant that only products read."""
        orders = packed_factors(program, host().bits, host().words)
        return {name: order.writes for name, order in orders.items()}

    def bind(
        self, program: Program, skip: frozenset[int], memory: Memory, link: Link | None = None
    ) -> NativeProgram:
        """Return the compiled code of a program on its memory."""
        return NativeProgram(program, skip, memory, link)

    def wrong_code(self, program: Program, emits: bool) -> str | None:
        """Return why the code that the cache holds for a program is not its own, or None."""
        target = host()
        for one in (program, *steps_apart(program)):
            key = program_key(one, frozenset())
            why = stale(key, partial(program_ir, one, target), target, emits)
            if why is not None:
                return why
        return None

    def peak_work(self) -> PeakWork:
        """Return a loop of independent multiply-adds, which runs at the machine's peak."""
        lanes = host().bits // 32
        library = load(fma_loop(lanes), ("fma_loop",), host())
        code = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(library.address("fma_loop"))

        def run(sink: Array, library: Library = library) -> None:  # keeps the code in memory
            code(sink.ctypes.data, ROUNDS)

        def make() -> Call:
            return partial(run, np.zeros(CHAINS * lanes, np.float32))

        return PeakWork("native multiply-adds", 2 * lanes * CHAINS * ROUNDS, make)


BACKEND = NativeBackend()
