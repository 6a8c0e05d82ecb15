"""The code of loops: the kernels of a step, called for each step on the buffers of that step.

    void @scan(ptr buffers..., ptr %scratch, i64 %n, i64 %tid, i64 %threads)

A thread runs all steps on its own rows, without waiting for others.  If steps have barriers, each
of their phases is an epoch of the program, and the function takes its number: `i64 %turn`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby

import numpy as np

from graphc.backends.layout import start_of
from graphc.backends.native.ir import Callee, Function, Module, Value
from graphc.backends.native.loop_structure import THREAD_ARGUMENTS
from graphc.backends.native.loops import emit_loop
from graphc.backends.native.pack_panels import emit_packing
from graphc.backends.native.panels import packed_once
from graphc.backends.native.target import Words
from graphc.ir.expr import BodyBuilder
from graphc.ir.tensor_type import ITEMSIZE, Dim, TensorType, count
from graphc.kernels.iteration_space import matrix
from graphc.kernels.kernel import Loop, loop_partition
from graphc.kernels.program import Buffer, Instr, Program
from graphc.kernels.scan import CarriedBuffer, ScanKernel

Kernel = Callable[..., None]
"""`Kernels.call`, which appends the call of an instruction's kernel."""


def emit_scan(
    module: Module,
    program: Program,
    instr: Instr,
    target: tuple[int, Mapping[str, Words]],
    kernel: Kernel,
    epoch: int = 0,
) -> Callee:
    """Return the function of one epoch of a loop, added to the module.

    `target` has the bits of vector registers, and the words of narrow factors.
    """
    scan = instr.inside
    assert isinstance(scan, ScanKernel), "the instruction of a loop"
    names = instr.buffers
    outer = {name: f"%o{i}" for i, name in enumerate(names)}
    lengths = program.buffers[scan.lengths].type if scan.lengths else None
    pointers = "".join(f"ptr {pointer}, " for pointer in outer.values())
    arguments = f"{pointers}ptr %scratch, {THREAD_ARGUMENTS}"

    def made(f: Function) -> _Emission:
        return _Emission(f, scan, outer, lengths, target, kernel)

    if scan.at_once:
        rows = module.function("rows", arguments, lambda f: made(f).emit_epoch(epoch))
        name = module.function("at_once", arguments, lambda f: made(f).emit_at_once(rows, epoch))
    elif scan.shared:
        name = module.function("steps", arguments, lambda f: made(f).emit())
    else:
        of_step = f"{arguments}, i64 %i, i64 %phase, i64 %steps"
        step = module.function("step", of_step, lambda f: made(f).emit_step())
        of_turn = f"{arguments}, i64 %turn"
        name = module.function("scan", of_turn, lambda f: made(f).emit_in_turns(step))
    return Callee(name, names)


@dataclass
class _Emission:
    """The function of one loop under construction; `outer` are the addresses of its operands."""

    function: Function
    scan: ScanKernel
    outer: Mapping[str, Value]
    lengths: TensorType | None
    target: tuple[int, Mapping[str, Words]]
    kernel: Kernel
    scratch: Value = "%scratch"
    panels: dict[str, Value] = field(default_factory=dict)
    """The addresses of the panels of factors that are packed before the first step."""

    @property
    def program(self) -> Program:
        """The program of a step."""
        return self.scan.program

    def emit_epoch(self, epoch: int) -> None:
        """Append the kernels of one epoch of all steps, which run at once."""
        self.constants = {b.name: self._constant(b) for b in self.program.constants.values()}
        given = {**self.scan.sequences, **self.scan.whole, **self.scan.stacked}
        pointer = partial(self._pointer, {name: self.outer[of] for name, of in given.items()})
        for number in self.scan.phases[epoch]:
            self.kernel(
                self.function, self.program, number, pointer, lambda: "%scratch", (), 0, "-1"
            )

    def emit_at_once(self, rows: str, epoch: int) -> None:
        """Append the call of an epoch of all steps with all rows; the first one zeros the rest."""
        f = self.function
        count = f.mul(self._longest(), "%n")
        f.call(rows, *self.outer.values(), "%scratch", count, "%tid", "%threads")
        if self.lengths is not None and epoch == 0:
            self._zero_rest(count, f.mul(self.scan.steps, "%n"))

    def _zero_rest(self, count: Value, rows: Value) -> None:
        """Append zeros as the results of steps that no row has, on the first thread."""
        f = self.function
        first = f.value("icmp eq i64 %tid, 0")
        for name, outer in self.scan.stacked.items():
            type = self.program.buffers[name].type
            if type.batched:
                row = type.nbytes(1)
                start = f.address(self.outer[outer], f.mul(count, row), "i8")
                size = f.mul(f.sub(rows, count), row)
                f.when(first, partial(f.zero, start, size))

    def emit(self) -> None:
        """Append the loop over the steps, and what happens before and after it."""
        f, scan = self.function, self.scan
        self.number = f.stack("i32") if scan.number else ""
        self.constants = {b.name: self._constant(b) for b in self.program.constants.values()}
        steps = self._longest()
        self._begin()
        self._pack()
        start = [("ptr", self._initial(one)) for one in scan.carried]
        last = f.loop(0, steps, 1, partial(self._step, steps), start)
        self._finish(last, steps)

    def emit_step(self) -> None:
        """Append one step, or one phase of it: what is between two barriers."""
        f, scan = self.function, self.scan
        self.number = f.stack("i32") if scan.number else ""
        self.constants = {b.name: self._constant(b) for b in self.program.constants.values()}
        carried = [self._value_at(one, "%i", "%steps") for one in scan.carried]
        self._step("%steps", "%i", carried)

    def emit_in_turns(self, step: str) -> None:
        """Append the epoch `%turn` of a loop whose steps have barriers; all if that is negative."""
        f, steps, phases = self.function, self._longest(), len(self.scan.phases)
        given = (*self.outer.values(), "%scratch", "%n", "%tid", "%threads")
        every = f.value("icmp slt i64 %turn, 0")
        before = f.value("icmp slt i64 %turn, 1")

        def each(i: Value, _: list[Value]) -> None:
            f.call(step, *given, i, -1, steps)

        f.when(before, self._begin)
        f.when(every, lambda: f.loop(0, steps, 1, each))
        number = f.sub("%turn", 1)
        i, phase = f.quotient(number, phases), f.remainder(number, phases)
        runs = f.both(f.less(0, "%turn"), f.less(i, steps))
        f.when(runs, lambda: f.call(step, *given, i, phase, steps))
        last = f.value(f"icmp eq i64 %turn, {self.scan.epochs - 1}")
        f.when(f.value(f"or i1 {every}, {last}"), lambda: self._end(steps))

    def _begin(self) -> None:
        """Append what happens before the first step: sums begin with zeros."""
        for one in self.scan.carried:
            if not one.initial:
                self._copy(one.feed, None, self._slot(one.feed))

    def _pack(self) -> None:
        """Append the packing of factors that all steps read, at the start of the scratch."""
        f, made = self.function, packed_once(self.scan, *self.target)
        for name, (kernel, nbytes) in made.items():
            pack = emit_packing(f.module, kernel, *self.target)
            source = self.outer[self.scan.whole[name]]
            f.call(pack, source, self.scratch, "%scratch", "%n", "%tid", "%threads")
            self.panels[name] = self.scratch
            self.scratch = f.address(self.scratch, nbytes, "i8")

    def _end(self, steps: Value) -> None:
        """Append what follows the last step."""
        carried = [self._value_at(one, steps, steps) for one in self.scan.carried]
        self._finish(carried, steps)

    def _finish(self, carried: list[Value], steps: Value) -> None:
        """Append the copies of the last values, and zeros for steps that no row has."""
        for one, pointer in zip(self.scan.carried, carried, strict=True):
            if one.last:
                self._copy(one.feed, pointer, self.outer[one.last])
        if self.lengths is not None:
            self.function.loop(steps, self.scan.steps, 1, self._zeros)

    def _value_at(self, one: CarriedBuffer, i: Value, steps: Value) -> Value:
        """Return the address of a carried value before a step, or behind the last one."""
        f = self.function
        even = f.value(f"icmp eq i64 {f.value(f'and i64 {i}, 1')}, 0")
        here, there = self._slot(one.feed), self._slot(one.result)
        found = f.value(f"select i1 {even}, ptr {here}, ptr {there}")
        if one.stacked:
            found = self._slice(one.result, one.stacked, self._position(f.sub(i, 1), steps))
        elif one.before:
            kept = self._slice(one.feed, one.before, self._position(i, steps))
            found = f.select(f.less(i, steps), "ptr", kept, found)
        first = f.value(f"icmp eq i64 {i}, 0")
        return f.value(f"select i1 {first}, ptr {self._initial(one)}, ptr {found}")

    def _position(self, i: Value, steps: Value) -> Value:
        """Return the position in the sequences of the step that runs as number i."""
        f = self.function
        return f.sub(f.sub(steps, 1), i) if self.scan.reverse else i

    def _longest(self) -> Value:
        """Return the number of steps: the largest length, if rows have their own."""
        if self.lengths is None:
            return str(self.scan.steps)
        f, type = self.function, f"i{8 * ITEMSIZE[self.lengths.dtype]}"
        base = self.outer[self.scan.lengths]

        def larger(i: Value, found: list[Value]) -> list[Value]:
            one = f.value(f"load {type}, ptr {f.address(base, i, type)}")
            wide = one if type == "i64" else f.value(f"sext {type} {one} to i64")
            return [f.larger(found[0], wide)]

        (most,) = f.loop(0, f.size(count(self.lengths.shape)), 1, larger, [("i64", "0")])
        return f.smaller(most, self.scan.steps)

    def _initial(self, one: CarriedBuffer) -> Value:
        """Return the address of a value before the first step."""
        return self.outer[one.initial] if one.initial else self._slot(one.feed)

    # ------------------------------------------------------------------ one step

    def _step(self, steps: Value, i: Value, carried: list[Value]) -> list[Value]:
        """Append the kernels of a step; return the addresses of the values that it hands on."""
        f, scan = self.function, self.scan
        t = self._position(i, steps)
        if scan.number:
            f.do(f"store i32 {f.value(f'trunc i64 {t} to i32')}, ptr {self.number}")
        places = {one.feed: at for one, at in zip(scan.carried, carried, strict=True)}
        places |= {k: self._slice(k, outer, t) for k, outer in scan.sequences.items()}
        places |= {k: self.outer[outer] for k, outer in scan.whole.items()}
        places |= {k: self._slice(k, outer, t) for k, outer in scan.stacked.items()}
        nexts = [self._next(one, steps, i, t) for one in scan.carried]
        places |= {one.result: at for one, at in zip(scan.carried, nexts, strict=True)}
        if scan.number:
            places[scan.number] = self.number
        self._phases(t, places, partial(self._pointer, places))
        return nexts

    def _phases(
        self, t: Value, places: Mapping[str, Value], pointer: Callable[[Buffer], Value]
    ) -> None:
        """Append the kernels of a step; of one with barriers, those of the phase asked for."""
        f, phases = self.function, self.scan.phases

        def kept() -> None:
            for one in self.scan.carried:
                if one.before:
                    self._keep_before(one, t, places[one.feed])

        def kernels(numbers: tuple[int, ...], inner: int, turn: Value) -> None:
            for number in numbers:
                of_loop = (), inner, turn, self.panels
                self.kernel(f, self.program, number, pointer, lambda: self.scratch, *of_loop)

        if self.scan.shared:
            kept()
            kernels(phases[0], 0, "-1")
            return
        every = f.value("icmp slt i64 %phase, 0")
        f.when(f.value("icmp slt i64 %phase, 1"), kept)
        for first, numbers, times in _runs(phases):
            inner = self.program.instrs[numbers[0]].inside
            if inner is not None and inner.in_turns:
                turn = f.value(f"select i1 {every}, i64 -1, i64 {f.sub('%phase', first)}")
                within = f.value(f"icmp ult i64 {f.sub('%phase', first)}, {times}")
                f.when(f.value(f"or i1 {every}, {within}"), partial(kernels, numbers, 0, turn))
                continue
            for more in range(times):
                here = f.value(f"icmp eq i64 %phase, {first + more}")
                run = f.value(f"or i1 {every}, {here}")
                f.when(run, partial(kernels, numbers, more, "-1"))

    def _next(self, one: CarriedBuffer, steps: Value, i: Value, t: Value) -> Value:
        """Return the address that a step writes a carried value to."""
        f = self.function
        if one.stacked:
            return self._slice(one.result, one.stacked, t)
        odd = f.value(f"and i64 {i}, 1")
        here, there = self._slot(one.feed), self._slot(one.result)
        even = f.value(f"icmp eq i64 {odd}, 0")
        slot = f.value(f"select i1 {even}, ptr {there}, ptr {here}")
        if not one.before:
            return slot
        following = f.sub(t, 1) if self.scan.reverse else f.add(t, 1)
        more = f.value(f"icmp slt i64 {f.add(i, 1)}, {steps}")
        kept = self._slice(one.result, one.before, following)
        return f.value(f"select i1 {more}, ptr {kept}, ptr {slot}")

    def _keep_before(self, one: CarriedBuffer, t: Value, value: Value) -> None:
        """Append the copy of a carried value to the slice before the step, unless it lies there."""
        f, kept = self.function, self._slice(one.feed, one.before, t)
        apart = f.value(f"icmp ne ptr {value}, {kept}")
        f.when(apart, partial(self._copy, one.feed, value, kept))

    def _zeros(self, t: Value, _: list[Value]) -> None:
        """Append zeros as the results of a step that no row has."""
        for name, outer in self.scan.stacked.items():
            self._copy(name, None, self._slice(name, outer, t))
        for one in self.scan.carried:
            for outer in filter(None, (one.stacked, one.before)):
                self._copy(one.result, None, self._slice(one.result, outer, t))

    # ------------------------------------------------------------------ addresses

    def _pointer(self, places: Mapping[str, Value], buffer: Buffer) -> Value:
        f = self.function
        root = self.program.aliases.get(buffer.name, buffer.name)
        if root in places:
            return f.address(places[root], start_of(buffer), "i8")
        if buffer.space == "constant":
            return f.address(self.constants[buffer.key], start_of(buffer), "i8")
        return f.address(self.outer[self.scan.workspace], start_of(buffer), "i8")

    def _constant(self, buffer: Buffer) -> Value:
        """Append the stores of a constant to the stack, and return its address."""
        f, array = self.function, self.program.graph[buffer.name].op.reference(())
        numbers = np.frombuffer(array.tobytes(), np.uint8)
        place = f.stack(f"[{max(len(numbers), 1)} x i8]")
        for i, number in enumerate(numbers):
            f.do(f"store i8 {number}, ptr {f.address(place, i, 'i8')}")
        return place

    def _slot(self, name: str) -> Value:
        """Return the address of a buffer's place in the workspace."""
        return self.function.address(self.outer[self.scan.workspace], self.scan.slots[name], "i8")

    def _slice(self, name: str, outer: str, t: Value) -> Value:
        """Return the address of the slice of a sequence at a step."""
        f, type = self.function, self.program.buffers[name].type
        nbytes = f.size(_scaled(count(type.shape), ITEMSIZE[type.dtype]))
        return f.address(self.outer[outer], f.mul(t, nbytes), "i8")

    # ------------------------------------------------------------------ copies

    def _copy(self, name: str, source: Value | None, out: Value) -> None:
        """Append a copy of a buffer, or of zeros, each row by the thread that has it."""
        type = self.program.buffers[name].type
        builder = BodyBuilder()
        value = (
            builder.const(0, type.dtype)
            if source is None
            else builder.load("source", "each", type.dtype)
        )
        builder.store(value, "out", "each")
        space, body = matrix(type.shape), builder.body()
        partition = loop_partition(*space, "columns", body, self.program.capacity, True)
        callee = emit_loop(self.function.module, Loop(*space, "columns", body, partition), {})
        places = {"source": source, "out": out}
        pointers = [places[name] or "null" for name in callee.buffers]
        self.function.call(callee.name, *pointers, "%n", "%tid", "%threads")


def _runs(phases: Sequence[tuple[int, ...]]) -> Iterator[tuple[int, tuple[int, ...], int]]:
    """Yield the first place, the phase and the number of equal phases in a row."""
    start = 0
    for phase, same in groupby(phases):
        count = len(list(same))
        yield start, phase, count
        start += count


def _scaled(dim: Dim, factor: int) -> Dim:
    return dim * factor
