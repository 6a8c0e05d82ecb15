"""Whole native programs run slowly, on the memory that was planned for them.

Threads take turns: between two barriers first one does all that is its own, then the next, in
the order asked for.  Kernels run by the interpreter, in small units that each read memory
afresh, as generated code does.  Where a barrier is missing, or two buffers that are in use have
the same bytes, a result is wrong.  At each barrier bytes that nobody will read become NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from graphc.backends.backend import bind_reference
from graphc.compiler.plan import Plan
from graphc.ir.expr import Broadcast
from graphc.ir.graph import Graph
from graphc.ir.tensor_type import ITEMSIZE, dim_at, numpy_dtype, shape_at
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Gemm, Kernel, ScatterAdd
from graphc.kernels.program import PREPARE, Instr, Program
from graphc.kernels.scan import CarriedBuffer, ScanKernel
from graphc.runtime.reference import evaluate

Array = NDArray[Any]
Range = tuple[int, int]
Unit = tuple[slice, slice]

SHARE_ROWS, SHARE_COLUMNS, SHARE_PANELS = 2, 4, 6
"""Threads split rows, columns, and the columns of products at multiples of these: smaller than
they are in generated code, so that small nets are shared."""
UNIT_ROWS, UNIT_COLUMNS = 2, 16
MOST_UNITS = 24
"""A kernel is run again for each unit: of many rows, as those of images, units have more."""
NAN = 0xFF
"""A byte that makes a NaN of any float."""


class Interpreted:
    """A program for `n` rows on memory of its own, and the state in `arrays`."""

    def __init__(
        self, program: Program, n: int, arrays: Mapping[str, Array], order: Sequence[int]
    ) -> None:
        self.program, self.n, self.order = program, n, order
        self.arena = np.full(program.arena.nbytes, NAN, np.uint8)
        self.gradients = np.full(program.gradient_bytes, NAN, np.uint8)
        self.blocks: dict[tuple[str, str], Array] = {
            ("state", name): array.reshape(-1).view(np.uint8) for name, array in arrays.items()
        }
        for name, value in _constants(program, arrays).items():
            dtype = numpy_dtype(program.constants[name].type.dtype)
            self.blocks["constant", name] = np.array(value, dtype).reshape(-1).view(np.uint8)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run, and return the outputs; `gradient` has the gradients."""
        for name, type in self.program.feeds.items():
            array = np.array(feeds[name], type.dtype)
            assert array.shape == shape_at(type.shape, self.n)
            self.blocks["feed", name] = array.reshape(-1).view(np.uint8)
        self.run_epochs(self.order)
        return {k: self.view(v).copy() for k, v in self.program.outputs.items()}

    def run_epochs(self, order: Sequence[int]) -> None:
        """Run what some threads do of all instructions."""
        for start, end in self._epochs():
            self._poison(start)
            instrs = self.program.instrs[start:end]
            if len(instrs) == 1 and instrs[0].body is None:
                self._call(instrs[0])
                continue
            for thread in order:
                for instr in instrs:
                    self._part(instr, thread)

    def gradient(self) -> dict[str, Array]:
        """The gradients that were asked for."""
        return {wrt: self.view(name).copy() for wrt, name in self.program.gradients.items()}

    # ------------------------------------------------------------------ memory

    def view(self, name: str) -> Array:
        """A buffer as an array; of one that is columns of another it is a matrix."""
        buffer = self.program.buffers[name]
        shape = shape_at(buffer.type.shape, self.n)
        memory = {"arena": self.arena, "gradient": self.gradients}.get(buffer.space)
        block = self.blocks[buffer.space, buffer.key] if memory is None else memory
        size = ITEMSIZE[buffer.type.dtype]
        at = (buffer.offset if memory is not None else 0) + buffer.shift * size
        if not buffer.pitch:
            return (
                block[at : at + int(np.prod(shape)) * size]
                .view(numpy_dtype(buffer.type.dtype))
                .reshape(shape)
            )
        matrix = shape[0], int(np.prod(shape[1:]))
        whole = block[at:][: ((matrix[0] - 1) * buffer.pitch + matrix[1]) * size]
        return as_strided(
            whole.view(numpy_dtype(buffer.type.dtype)), matrix, (buffer.pitch * size, size)
        )

    def bytes_of(self, name: str) -> Array:
        """The bytes of a buffer."""
        return self.view(name).reshape(-1).view(np.uint8)

    def _poison(self, start: int) -> None:
        """Fill with NaN what no instruction from here on reads as it is now."""
        live = np.zeros(len(self.arena), bool)
        for first, end in self._live(start):
            live[first:end] = True
        self.arena[~live] = NAN

    def _live(self, start: int) -> Iterator[Range]:
        """The bytes of what is written before an instruction and read from it on."""
        instrs = self.program.instrs
        written = {out for instr in instrs[:start] for out in instr.outs}
        read = {name for instr in instrs[start:] for name in instr.ins}
        read |= set(self.program.outputs.values())
        both = {self._home(name) for name in written} & {self._home(name) for name in read}
        for buffer in self.program.buffers.values():
            if buffer.space == "arena" and self._home(buffer.name) in both:
                yield buffer.offset, buffer.offset + buffer.type.nbytes(self.n)

    def _home(self, name: str) -> tuple[str, str, int]:
        buffer = self.program.buffers[name]
        return buffer.space, buffer.key, buffer.offset

    # ------------------------------------------------------------------ instructions

    def _epochs(self) -> Iterator[Range]:
        """Instructions between barriers, calls and the boundary."""
        start, instrs = 0, self.program.instrs
        for i, instr in enumerate(instrs):
            if i == self.program.boundary and start < i:
                yield start, i
                start = i
            if instr.body is not None:
                continue
            if start < i:
                yield start, i
            if instr.kind != "barrier":
                yield i, i + 1
            start = i + 1
        if start < len(instrs):
            yield start, len(instrs)

    def _call(self, instr: Instr) -> None:
        if isinstance(instr.inside, ScanKernel):
            run_scan(self, instr.inside)
            return
        with np.errstate(all="ignore"):
            bind_reference(instr, self.n, self.view)()

    def _part(self, instr: Instr, thread: int) -> None:
        """What one thread does of a kernel."""
        kernel = instr.body
        assert kernel is not None
        for unit in units(kernel, self.n, thread, len(self.order)):
            self._write(kernel, unit, ("each", *own_kinds(kernel)))
        if thread == 0 and any(
            s.broadcast not in ("each", *own_kinds(kernel)) for s in kernel.body.stores
        ):
            everything = slice(None), slice(None)
            rest = tuple(s for s in ("row", "column", "one") if s not in own_kinds(kernel))
            self._write(kernel, everything, rest)  # type: ignore[arg-type]

    def _write(self, kernel: Kernel, unit: Unit, broadcasts: Sequence[Broadcast]) -> None:
        """Compute the whole kernel; write the stores of some broadcasts, and of them one unit."""
        body = kernel.body
        names = (*body.loads, *besides(kernel))
        assert not set(names) & set(body.written), "what is written has another name"
        arrays = {name: self.view(name) for name in names}
        targets = {name: self.view(name) for name in body.written}
        results = {name: np.empty_like(target) for name, target in targets.items()}
        run(kernel, {**arrays, **results}, self.n)
        rows, columns = (dim_at(dim, self.n) for dim in kernel.space)
        for store in body.stores:
            if store.broadcast in broadcasts:
                shape = (
                    rows if store.broadcast in ("each", "row") else 1,
                    (columns if store.broadcast in ("each", "column") else 1),
                )
                at = (
                    unit[0] if shape[0] > 1 else slice(None),
                    unit[1] if shape[1] > 1 else slice(None),
                )
                target = _matrix(targets[store.buffer], shape)
                target[at] = results[store.buffer].reshape(shape)[at]


class Steps(Interpreted):
    """The steps of a loop, on the workspace that was planned for them."""

    def __init__(self, outer: Interpreted, scan: ScanKernel, n: int) -> None:
        super().__init__(scan.program, n, {}, outer.order)
        self.outer, self.scan = outer, scan
        self.memory = outer.bytes_of(scan.workspace)
        self.arena = self.memory[: scan.program.arena.nbytes]
        whole = dict(scan.whole)
        if scan.at_once:
            whole |= {**scan.sequences, **scan.stacked}
        self.places = {name: outer.bytes_of(around) for name, around in whole.items()}
        for buffer in scan.program.buffers.values():
            if buffer.name in scan.slots:
                self.places[buffer.name] = self._slot(buffer.name)

    def view(self, name: str) -> Array:
        """A buffer as an array; what lies around the step, and what aliases it, is found there."""
        buffer = self.program.buffers[name]
        root = self.program.aliases.get(name, name)
        if root in self.places:
            self.blocks[buffer.space, buffer.key] = self.places[root]
        return super().view(name)

    def run_steps(self, count: int, order: Sequence[int]) -> None:
        """Run what some threads do of all steps."""
        for one in self.scan.carried:
            self.places[one.feed] = self._first(one)
        for i in range(count):
            t = count - 1 - i if self.scan.reverse else i
            for name, around in (*self.scan.sequences.items(), *self.scan.stacked.items()):
                self.places[name] = self._slice(around, t)
            if self.scan.number:
                self.places[self.scan.number] = np.array([t], np.int32).view(np.uint8)
            nexts = {one.result: self._next(one, i, t, count) for one in self.scan.carried}
            self.places |= nexts
            for one in self.scan.carried:
                if one.before:
                    np.copyto(self._slice(one.before, t), self.places[one.feed])
            self.run_epochs(order)
            for one in self.scan.carried:
                self.places[one.feed] = nexts[one.result]

    def _first(self, one: CarriedBuffer) -> Array:
        return self.outer.bytes_of(one.initial) if one.initial else self._slot(one.feed)

    def _next(self, one: CarriedBuffer, i: int, t: int, count: int) -> Array:
        """The place of a next value: where it is asked for, or one of two slots."""
        if one.stacked:
            return self._slice(one.stacked, t)
        if one.before and i + 1 < count:
            return self._slice(one.before, t - 1 if self.scan.reverse else t + 1)
        return self._slot(one.feed if i % 2 else one.result)

    def _slot(self, name: str) -> Array:
        at, type = self.scan.slots[name], self.program.buffers[name].type
        return self.memory[at : at + type.nbytes(self.n)]

    def _slice(self, around: str, t: int) -> Array:
        return self.outer.bytes_of(around).reshape(self.scan.steps, -1)[t]


def run_scan(outer: Interpreted, scan: ScanKernel) -> None:
    """Run a loop: one step after the other, or all at once."""
    count = scan.count(outer.view)
    outer.bytes_of(scan.workspace)[...] = NAN
    steps = Steps(outer, scan, count * outer.n if scan.at_once else outer.n)
    if not scan.at_once:
        _run_in_turn(outer, scan, steps, count)
        return
    for name in scan.sequences_written():  # a sum of no step is 0, too
        outer.view(name)[...] = 0
    if count:
        steps.run_epochs(outer.order)


def _run_in_turn(outer: Interpreted, scan: ScanKernel, steps: Steps, count: int) -> None:
    """Run the steps; of threads that share no rows each runs all before the next one starts."""
    for one in scan.carried:
        if not one.initial:
            steps.places[one.feed][...] = 0
    for order in [(thread,) for thread in outer.order] if scan.shared else [outer.order]:
        steps.run_steps(count, order)
    for one in scan.carried:
        if one.last:
            np.copyto(outer.bytes_of(one.last), steps.places[one.feed])
    for name in scan.sequences_written():
        if outer.program.buffers[name].type.shape[0] == scan.steps:
            outer.view(name)[count:] = 0


def prepared(plan: Plan, arrays: Mapping[str, Array], order: Sequence[int]) -> dict[str, Array]:
    """The state, and what its plan computes of it before inference."""
    program = plan.programs.get(PREPARE)
    found = {} if program is None else Interpreted(program, 1, arrays, order).run({})
    return {**arrays, **found}


def _constants(program: Program, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The constants, and what inference keeps of the state, which is not written meanwhile."""
    graph = program.graph
    needed = graph.upstream(program.constants)
    nodes = (node for node in graph if node.name in needed)
    values = evaluate(Graph(graph.name, nodes, outputs={}), {}, {}, 1, known=arrays)
    return {name: values[name] for name in program.constants}


def _matrix(target: Array, shape: tuple[int, int]) -> Array:
    matrix = target if target.shape == shape else target.reshape(shape)
    assert np.shares_memory(matrix, target)
    return matrix


def besides(kernel: Kernel) -> tuple[str, ...]:
    """The buffers that a kernel reads besides what its body loads."""
    if isinstance(kernel, Gemm):
        return kernel.a, kernel.b
    return (kernel.source, kernel.indices) if isinstance(kernel, ScatterAdd) else ()


def own_kinds(kernel: Kernel) -> tuple[Broadcast, ...]:
    """What is stored once a row or once a column by the thread that has it to itself."""
    both: tuple[Broadcast, ...] = ("row", "column")
    return {"rows": both[:1], "columns": both[1:], "none": both, "matrices": both}[kernel.partition]


def units(kernel: Kernel, n: int, thread: int, threads: int) -> Iterator[Unit]:
    """The parts of its elements that a thread computes one after the other."""
    rows, columns = (dim_at(dim, n) for dim in kernel.space)
    block = SHARE_PANELS if isinstance(kernel, Gemm) else SHARE_COLUMNS
    mine = {
        "rows": (share(rows, SHARE_ROWS, thread, threads), (0, columns)),
        "columns": ((0, rows), share(columns, block, thread, threads)),
        "none": ((0, rows), (0, columns if thread == 0 else 0)),
        "matrices": (
            (0, rows),
            (0, columns if thread == 0 else 0),
        ),  # whichever: barriers are around
    }[kernel.partition]
    by_rows = isinstance(kernel, Gemm) or kernel.axis == "columns"
    by_columns = isinstance(kernel, Gemm) or kernel.axis == "rows"
    few = max(UNIT_ROWS, rows // MOST_UNITS)
    for row in pieces(*mine[0], few if by_rows else rows):
        for column in pieces(*mine[1], UNIT_COLUMNS if by_columns else columns):
            yield row, column


def share(size: int, chunk: int, thread: int, threads: int) -> Range:
    """A thread's part of `size` rows or columns."""
    chunks = -(-size // chunk)
    first, last = thread * chunks // threads, (thread + 1) * chunks // threads
    return min(first * chunk, size), min(last * chunk, size)


def pieces(first: int, last: int, size: int) -> Iterator[slice]:
    """From first to before last in steps."""
    for start in range(first, last, size):
        yield slice(start, min(start + size, last))
