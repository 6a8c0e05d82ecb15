"""The code of loops: the kernels of a step, called for each step on the buffers of that step.

    void @scan(ptr buffers..., ptr %scratch, i64 %n, i64 %tid, i64 %threads)

A thread runs all steps on its own rows, without waiting for others.  A loop whose steps need a
barrier is run by the first thread alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphc.backends.layout import start_of
from graphc.backends.native.ir import Callee, Function, Module, Value
from graphc.backends.native.loop_structure import THREAD_ARGUMENTS
from graphc.backends.native.loops import emit_loop
from graphc.ir.expr import BodyBuilder
from graphc.ir.tensor_type import ITEMSIZE, Dim, TensorType, count
from graphc.kernels.iteration_space import matrix
from graphc.kernels.kernel import Loop, loop_partition
from graphc.kernels.program import Buffer, Instr, Program
from graphc.kernels.scan import CarriedBuffer, ScanKernel
from graphc.ops.source import Constant

Kernel = Callable[[Function, Program, int, Callable[[Buffer], Value], Callable[[], Value]], None]
"""Appends the call of an instruction's kernel: function, program, number, pointers, scratch."""


def emit_scan(
    module: Module, program: Program, instr: Instr, kernel: Kernel, epoch: int = 0
) -> Callee:
    """Return the function of one epoch of a loop, added to the module."""
    scan = instr.scan
    assert scan is not None, "the instruction of a loop"
    names = tuple(dict.fromkeys((*instr.ins, *instr.outs)))
    pointers = "".join(f"ptr %o{i}, " for i in range(len(names)))
    arguments = f"{pointers}ptr %scratch, {THREAD_ARGUMENTS}"

    def emit(function: Function) -> None:
        outer = {name: f"%o{i}" for i, name in enumerate(names)}
        lengths = program.buffers[scan.lengths].type if scan.lengths else None
        _Emission(function, scan, outer, kernel).emit(lengths)

    def emit_rows(function: Function) -> None:
        outer = {name: f"%o{i}" for i, name in enumerate(names)}
        _Emission(function, scan, outer, kernel).emit_epoch(epoch)

    if scan.at_once:
        rows = module.function("rows", arguments, emit_rows)
        write = partial(_at_once, scan, program, names, rows, epoch)
        return Callee(module.function("at_once", arguments, write), names)
    inner = module.function("steps", arguments, emit)
    if scan.shared:
        return Callee(inner, names)
    return Callee(module.function("scan", arguments, partial(_alone, inner, names)), names)


def _at_once(
    scan: ScanKernel,
    program: Program,
    names: tuple[str, ...],
    rows: str,
    epoch: int,
    f: Function,
) -> None:
    """Call an epoch of all steps with the rows of all steps; the first one sets the others to 0."""
    pointers = {name: f"%o{i}" for i, name in enumerate(names)}
    made = _Emission(f, scan, pointers, lambda *_: None)
    lengths = program.buffers[scan.lengths].type if scan.lengths else None
    count = f.mul(made.longest(lengths), "%n")
    f.call(rows, *pointers.values(), "%scratch", count, "%tid", "%threads")
    if lengths is not None and epoch == 0:
        made.zero_rest(count, f.mul(scan.steps, "%n"))


def _alone(inner: str, names: tuple[str, ...], function: Function) -> None:
    """Call a loop on the first thread."""
    pointers = [f"%o{i}" for i in range(len(names))]
    first = function.value("icmp eq i64 %tid, 0")
    function.when(first, lambda: function.call(inner, *pointers, "%scratch", "%n", 0, 1))


@dataclass
class _Emission:
    """The function of one loop under construction; `outer` are the addresses of its operands."""

    function: Function
    scan: ScanKernel
    outer: Mapping[str, Value]
    kernel: Kernel

    @property
    def program(self) -> Program:
        """The program of a step."""
        return self.scan.program

    def emit_epoch(self, epoch: int) -> None:
        """Append the kernels of one epoch of all steps, which run at once."""
        self.constants = {b.name: self._constant(b) for b in self.program.constants.values()}
        given = {**self.scan.sequences, **self.scan.whole, **self.scan.stacked}
        pointer = partial(self._pointer, {name: self.outer[of] for name, of in given.items()})
        epochs = sorted(set(self.program.epochs))
        for number, instr in enumerate(self.program.instrs):
            if instr.kind != "barrier" and epochs.index(self.program.epochs[number]) == epoch:
                self.kernel(self.function, self.program, number, pointer, lambda: "%scratch")

    def zero_rest(self, count: Value, rows: Value) -> None:
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

    def emit(self, lengths: TensorType | None) -> None:
        """Append the loop over the steps, and what happens before and after it."""
        f, scan = self.function, self.scan
        self.number = f.stack("i32") if scan.number else ""
        self.constants = {b.name: self._constant(b) for b in self.program.constants.values()}
        steps = self.longest(lengths)
        first = [self._initial(one) for one in scan.carried]
        start = [("ptr", pointer) for pointer in first]
        last = f.loop(0, steps, 1, partial(self._step, steps), start)
        for one, pointer in zip(scan.carried, last, strict=True):
            if one.last:
                self._copy(one.feed, pointer, self.outer[one.last])
        if lengths is not None:
            f.loop(steps, scan.steps, 1, self._zeros)

    def longest(self, lengths: TensorType | None) -> Value:
        """Return the number of steps: the largest length, if rows have their own."""
        if lengths is None:
            return str(self.scan.steps)
        f, type = self.function, f"i{8 * ITEMSIZE[lengths.dtype]}"
        base = self.outer[self.scan.lengths]

        def larger(i: Value, found: list[Value]) -> list[Value]:
            one = f.value(f"load {type}, ptr {f.address(base, i, type)}")
            wide = one if type == "i64" else f.value(f"sext {type} {one} to i64")
            return [f.larger(found[0], wide)]

        (most,) = f.loop(0, f.size(count(lengths.shape)), 1, larger, [("i64", "0")])
        return f.smaller(most, self.scan.steps)

    def _initial(self, one: CarriedBuffer) -> Value:
        """Return the address of a value before the first step, filled with zeros if need be."""
        if one.initial:
            return self.outer[one.initial]
        slot = self._slot(one.feed)
        self._fill(one.feed, slot)
        return slot

    # ------------------------------------------------------------------ one step

    def _step(self, steps: Value, i: Value, carried: list[Value]) -> list[Value]:
        """Append the kernels of a step; return the addresses of the values that it hands on."""
        f, scan = self.function, self.scan
        t = f.sub(f.sub(steps, 1), i) if scan.reverse else i
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
        for one in scan.carried:
            if one.before:
                self._keep_before(one, i, t, places[one.feed])
        pointer = partial(self._pointer, places)
        for number, instr in enumerate(self.program.instrs):
            if instr.kind != "barrier":
                self.kernel(f, self.program, number, pointer, lambda: "%scratch")
        return nexts

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

    def _keep_before(self, one: CarriedBuffer, i: Value, t: Value, value: Value) -> None:
        """Append the copy of a carried value to the slice before the step, unless it lies there."""
        f, kept = self.function, self._slice(one.feed, one.before, t)
        apart = f.value(f"icmp ne ptr {value}, {kept}")
        f.when(apart, partial(self._copy, one.feed, value, kept))

    def _zeros(self, t: Value, _: list[Value]) -> None:
        """Append zeros as the results of a step that no row has."""
        for name, outer in self.scan.stacked.items():
            self._fill(name, self._slice(name, outer, t))
        for one in self.scan.carried:
            for outer in filter(None, (one.stacked, one.before)):
                self._fill(one.result, self._slice(one.result, outer, t))

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
        f, op = self.function, self.program.graph[buffer.name].op
        assert isinstance(op, Constant), "constants are nodes"
        numbers = np.frombuffer(op.data, np.uint8)
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

    def _copy(self, name: str, source: Value, out: Value) -> None:
        """Append a copy of a buffer, each row by the thread that has it."""
        self._loop(name, source, out)

    def _fill(self, name: str, out: Value) -> None:
        """Append zeros, in each row by the thread that has it."""
        self._loop(name, None, out)

    def _loop(self, name: str, source: Value | None, out: Value) -> None:
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


def _scaled(dim: Dim, factor: int) -> Dim:
    return dim * factor
