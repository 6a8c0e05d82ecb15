"""Judges the kernels of a program, and the bound code that runs them, one instruction at a time.

The bound code runs in parts.  After each, every value that it has computed is compared with the
reference rules in float64, applied to the operands that the code itself has read: so a fault shows
where it arises, and the bound is that of rounding in one kernel.  The interpreter of kernels runs
on the same operands.  If it is wrong, too, the kernel is not what the graph means (lowering); or
else the backend does not compute the kernel.  Operands must still have the bytes that were written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from graphc.backends.backend import Call, Part, Runner, backend, in_order
from graphc.check.validation.compare import gap, same_bytes
from graphc.check.validation.faults import Count, Fault, Layer
from graphc.check.validation.local import Local, wide_nodes
from graphc.check.validation.random_numbers import wrong_draw
from graphc.check.validation.run import result_names
from graphc.check.validation.unwritten import Bytes, first_unwritten, overlap
from graphc.compiler.plan import Plan
from graphc.compiler.prepare import moved
from graphc.compiler.sizes import ScratchSize
from graphc.features.precision.bfloat16 import widened
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, numpy_dtype, shape_at
from graphc.kernels import interpret as interpreter
from graphc.kernels.kernel import Chain
from graphc.kernels.program import Instr, Program
from graphc.kernels.text import kernel_text
from graphc.runtime.bound import Binder
from graphc.runtime.entry import run_all
from graphc.runtime.state import State, block
from graphc.runtime.workspace import Workspace, poison

THREADS = 2
"""The number of threads whose parts are run in turns."""
MOST_WORK = 1 << 27
"""The most multiply-adds of a kernel that the interpreter runs."""


class Memory(Workspace):
    """The memory of a plan's programs, with scratch for `THREADS` threads on any machine."""

    def __init__(self, programs: Mapping[str, Program], capacity: int, state: State) -> None:
        super().__init__(programs, capacity, state, THREADS)
        self.scratch_size = ScratchSize(self.scratch_size.thread, THREADS)
        self.scratch = block(self.scratch_size.nbytes)


@dataclass
class Bench:
    """The programs of a plan on memory of their own."""

    plan: Plan
    programs: Mapping[str, Program]
    count: Count = field(default_factory=Count)

    def __post_init__(self) -> None:
        nodes = {n.name: n for p in self.programs.values() for n in p.graph if n.op.persistent}
        self.state = State({**self.plan.state_nodes, **nodes})
        self.memory = Memory(self.programs, self.plan.batch, self.state)
        self._runners: dict[str, Runner] = {}
        self._parts: dict[tuple[str, int, int], Sequence[Part]] = {}
        self._wide: dict[str, Mapping[str, Node]] = {}

    def run(self, program: Program, arrays: Mapping[str, Array], n: int, threads: int = 1) -> Run:
        """Return a run of a program, with its feeds and states written and the rest poisoned."""
        self.memory.poison()
        for name, array in self.state.arrays.items():
            if name in arrays:
                array[...] = arrays[name]
        wrt = program.fed_gradients
        if wrt:
            given = {name: arrays[name] for name in wrt}
            self.memory.put_gradients(self.programs["grad"], program, given)
        for name in program.feeds:
            if name not in wrt:
                np.copyto(self.memory.view(program, name, n), arrays[name])
        if program.name == "infer":
            run_all(self._preparation)
        return Run(self, program, n, threads, arrays)

    def wide(self, program: Program) -> Mapping[str, Node]:
        """Return the nodes of a program in float64, in order."""
        if program.name not in self._wide:
            self._wide[program.name] = wide_nodes(program.graph)
        return self._wide[program.name]

    def parts(self, program: Program, n: int, threads: int) -> Sequence[Part]:
        """Return the parts of a program's bound code, made once."""
        key = program.name, n, threads
        if key not in self._parts:
            view = lru_cache(None)(lambda name: self.memory.view(program, name, n))
            self._parts[key] = self._runner(program).parts(n, view, threads)
        return self._parts[key]

    @cached_property
    def _preparation(self) -> Sequence[Call]:
        return Binder(self.memory).preparation(self.programs)

    def _runner(self, program: Program) -> Runner:
        """Return the bound code of a program, bound once."""
        if program.name not in self._runners:
            made = backend(program.backend)
            self._runners[program.name] = made.bind(program, frozenset(), self.memory)
        return self._runners[program.name]


@dataclass
class Run:
    """One run of a program for `n` rows, on memory in which its feeds and states are written."""

    bench: Bench
    program: Program
    n: int
    threads: int
    arrays: Mapping[str, Array]
    """The arrays of its feeds and states."""
    interpreted_only: bool = False
    """True if the code cannot be run, so that the interpreter does all."""

    def __post_init__(self) -> None:
        self.graph, arrays = self.program.graph, self.arrays
        self.state, self.count = self.bench.state.arrays, self.bench.count
        self._views: dict[str, Array] = {}
        self.written = {
            node.name: np.array(arrays[node.name] if node.name in arrays else node.op.reference([]))
            for node in self.graph
            if node.op.is_source
        }
        """The bytes of each buffer as they were written, by the buffer that holds them."""
        self.saved = dict(self.written)
        """The values of nodes: sources, and what instructions have computed so far."""
        if self.program.name == "infer":
            kept = self.bench.memory.prepared(self.bench.programs)
            copies = {name: array.copy() for name, array in kept.items()}
            self.written |= copies
            computed = (name for name in copies if moved(self.graph, name) is None)
            self.saved |= {name: copies[name] for name in computed}  # judged in `prepare`
        self._orders = backend(self.program.backend).orders(self.program)

    def view(self, name: str) -> Array:
        """Return the array of a buffer."""
        if name not in self._views:
            self._views[name] = self.bench.memory.view(self.program, name, self.n)
        return self._views[name]

    def whole(self) -> dict[str, Array]:
        """Run all parts, and return copies of outputs, gradients and next states."""
        for part in self.parts():
            _run(part)
        return self.results()

    def results(self) -> dict[str, Array]:
        """Return copies of outputs, gradients and next states."""
        found = {f"output {k}": self.view(v).copy() for k, v in self.program.outputs.items()}
        gradients = self.program.gradients.items()
        found |= {f"gradient {k}": self.view(v).copy() for k, v in gradients}
        return found | {f"update {k}": self.state[k].copy() for k in self.graph.updates}

    # ------------------------------------------------------------------ judging

    def judge(self) -> Fault | None:
        """Run, and return the first fault."""
        wrong = wrong_draw(self.graph, self.saved, self.n)
        if wrong is not None:
            return self._fault("reference", wrong[1], wrong[0], None)
        try:
            parts = self.parts()
        except Exception as error:  # of a kernel that no code can be made of
            return self._failed(range(len(self.program.instrs)), error)
        for part in parts:
            fault = self._overwritten(part)
            if fault is not None:
                return fault
            self._poison(part)
            try:
                _run(part)
            except Exception as error:  # of code that does not fit its operands
                return self._failed(part.starts, error)
            faults = (self._instruction(number, part) for number in part.ends)
            if fault := next(filter(None, faults), None):
                return fault
        return self._wrong_root()

    def _poison(self, part: Part) -> None:
        """Poison what a part is to write, except for what it writes in the place of an operand."""
        made: set[str] = set()
        read: list[Bytes] = []
        for instr in (self.program.instrs[number] for number in part.starts):
            read += [self.range_of(name) for name in instr.ins if self.root(name) not in made]
            made.update(instr.outs)
        for name in made:
            if not any(overlap(self.range_of(name), other) for other in read):
                poison(self.view(name))

    def _failed(self, numbers: Sequence[int], error: Exception) -> Fault:
        """Return the fault of code that raised an error: of lowering, if kernels are wrong, too."""
        self.interpreted_only = True
        for number in numbers:
            instr = self.program.instrs[number]
            if instr.body is not None:
                fault = self._instruction(number, Part((), (), (number,)))
                if fault is not None:
                    return fault
            elif instr.op is not None:
                ins = [self._array(name) for name in instr.ins]
                for name in instr.outs:
                    self.written[name] = instr.op.at(self.n).reference(ins)
        alone = self.program.instrs[numbers[0]] if len(numbers) == 1 else None
        name = "its code" if alone is None else repr(alone.node)
        node = None if alone is None else self.graph.nodes.get(alone.node)
        what = f"{name} cannot be run: {type(error).__name__}: {error}"
        return self._fault("backend", what, node, alone)

    def _fault(self, layer: Layer, what: str, node: Node | None, instr: Instr | None) -> Fault:
        body = None if instr is None else instr.body
        text = "" if body is None else kernel_text(body)
        return Fault(layer, self.program.name, what, self.n, node, text, self.threads)

    def _overwritten(self, part: Part) -> Fault | None:
        """Return the fault of an operand that has no longer the bytes that were written."""
        made = {name for i in part.starts for name in self.program.instrs[i].outs}
        for number in part.starts:
            instr = self.program.instrs[number]
            for name in instr.ins:
                root = self.root(name)
                known = self.written.get(root) if root not in made else None
                if known is not None and root in self._orders:
                    known = in_order(self._orders[root], known)
                if known is not None and not same_bytes(self.view(root), known):
                    node = self.graph.nodes.get(root)
                    what = f"the bytes of {root!r} are overwritten before {instr.node!r} reads them"
                    return self._fault("memory", what, node, instr)
        return None

    def _instruction(self, number: int, part: Part) -> Fault | None:
        """Compare what an instruction has written."""
        instr = self.program.instrs[number]
        if instr.kind == "barrier":
            return None
        try:
            interpreted = self._interpreted(instr)
        except Exception as error:  # of a kernel that does not fit its operands
            what = f"the kernel of {instr.node!r} cannot be interpreted: {error}"
            return self._fault("lowering", what, self.graph.nodes.get(instr.node), instr)
        own = [self._keep(name, number, part, interpreted) for name in instr.outs]
        for name in instr.outs:
            if name not in self.graph and name in interpreted:
                found, expected = self._array(name), interpreted[name]
                if not same_bytes(found, expected):
                    what = f"{name!r} {gap(expected, found, 0.0)}, the interpreter's copy"
                    return self._fault("backend", what, self.graph.nodes.get(instr.node), instr)
        targets = [name for name in self._targets[number] if name in self.program.buffers]
        fault = self._compared(targets, instr, interpreted) if targets else None
        if all(own):  # the interpreter's copies are rounded in another way
            self.saved.update((name, self._array(name)) for name in targets)
        return fault

    def _interpreted(self, instr: Instr) -> dict[str, Array]:
        """Return what the interpreter computes of an instruction's operands, by buffer."""
        kernel = instr.body
        if kernel is None:
            return {}
        self.count.kernels += 1
        if interpreter.work(kernel, self.n) > MOST_WORK:
            self.count.large += 1
            return {}
        arrays = {name: np.ascontiguousarray(self._array(name)) for name in instr.ins}
        buffers = self.program.buffers
        types = {name: buffers[name].type for name in instr.outs}
        results = {
            name: np.empty(shape_at(type.shape, self.n), numpy_dtype(type.dtype))
            for name, type in types.items()
        }
        for result in results.values():
            poison(result)
        interpreter.run(kernel, arrays | results, self.n)
        if isinstance(kernel, Chain):
            del results[kernel.workspace]  # nothing reads it afterwards
        return results

    def _compared(
        self, targets: Sequence[str], instr: Instr, interpreted: Mapping[str, Array]
    ) -> Fault | None:
        """Compare the values of nodes with those of the reference rules."""
        local = self._local(targets)
        for name in targets:
            each = local.exact[name], interpreted.get(name), self._array(name)
            if unwritten := first_unwritten(*each):
                layer, at = unwritten
                what = f"{name!r}{at} is not written, or is computed of what is not written"
                # A kernel may read beyond what the code has written.
                wrong = self._wrong(name, local, 8, instr, interpreted)
                if layer == "backend" and wrong is not None and wrong.layer == "lowering":
                    return wrong
                return self._fault(layer, what, self.graph[name], instr)
        for runs in (0, 2, 8):  # most values need no bound by runs, which take long
            faults = (self._wrong(name, local, runs, instr, interpreted) for name in targets)
            fault = next(filter(None, faults), None)
            if fault is None:
                self.count.values += len(targets)
                return None
        if local.near_kink():
            self.count.near += len(targets)
            return None
        return fault

    def _wrong(
        self, name: str, local: Local, runs: int, instr: Instr, interpreted: Mapping[str, Array]
    ) -> Fault | None:
        exact, bound = local.exact[name], local.bound(name, runs)
        node, found = self.graph[name], self._array(name)
        ran = interpreted.get(name)
        if node.type.dtype == "bfloat16" and exact.dtype.kind == "f":
            found, ran = widened(found), None if ran is None else widened(ran)
        if ran is not None and (text := gap(exact, ran, bound)):
            what = f"{name!r} {text} by the interpreter of kernels, on the same operands"
            return self._fault("lowering", what, node, instr)
        text = gap(exact, found, bound)
        if not text:
            return None
        same = ", and the interpreter of kernels agrees with that" if ran is not None else ""
        copied = instr.body is not None and name not in instr.outs  # its parts are right
        layer: Layer = "lowering" if copied else "backend"
        return self._fault(layer, f"{name!r} {text}{same}", node, instr)

    def _wrong_root(self) -> Fault | None:
        """Return the fault of an output, gradient or next state that is not the node's value."""
        graph, names, results = self.graph, result_names(self.graph), self.results()
        local = self._local([names[what] for what in results])
        for what, found in results.items():
            name = names[what]
            known = self.saved.get(name)
            bound = 0.0 if known is not None else local.bound(name, 2)
            text = gap(local.exact[name] if known is None else known, found, bound)
            if text and not (known is None and local.near_kink()):
                text = f"{what} {text}, at the end of the run"
                return self._fault("memory", text, graph[name], None)
        for name, node in graph.nodes.items():
            if node.op.persistent and name not in graph.updates:
                text = gap(self.written[name], self.state[name], 0.0)
                if text:
                    return self._fault("memory", f"state {name!r} {text}", node, None)
        return None

    # ------------------------------------------------------------------ values

    def parts(self) -> Sequence[Part]:
        """Return the parts of the bound code."""
        return self.bench.parts(self.program, self.n, self.threads)

    def _local(self, targets: Sequence[str]) -> Local:
        wide = self.bench.wide(self.program)
        return Local(self.graph, wide, self.saved, self.n, targets)

    @cached_property
    def _targets(self) -> dict[int, list[str]]:
        """The nodes that are complete after each instruction: one that several write, the last."""
        last: dict[str, int] = {}
        for number, instr in enumerate(self.program.instrs):
            stored = {self.root(name) for name in instr.outs}
            nodes = instr.nodes or instr.outs
            last.update((n, number) for n in nodes if n in self.graph and n in stored)
        found: dict[int, list[str]] = {i: [] for i in range(len(self.program.instrs))}
        for name, number in last.items():
            found[number].append(name)
        return found

    def root(self, name: str) -> str:
        """Return the buffer that holds the bytes of a buffer."""
        while name in self.program.aliases:
            name = self.program.aliases[name]
        return name

    def _keep(self, name: str, number: int, part: Part, made: Mapping[str, Array]) -> bool:
        """Keep the bytes of a result, and return whether they are the code's own.

        What the code overwrote is the interpreter's copy, or by the reference rule of a loop.
        """
        root = self.root(name)
        later = (i for i in part.ends if i > number)
        ranges = [self.range_of(other) for i in later for other in self.program.instrs[i].outs]
        mine = self.range_of(name)
        hidden = self.interpreted_only or any(overlap(mine, other) for other in ranges)
        if hidden and name not in made and name in self.graph:
            node = self.graph[name]
            ins = [self._array(operand) for operand in node.inputs]
            made = {name: node.op.at(self.n).reference_in(ins, True)}
        if name in made and hidden:
            kept = self.written.setdefault(root, np.zeros_like(self.view(root)))
            self._within(kept, name)[...] = made[name]
        else:
            self.written[root] = self.view(root).copy()
        return not hidden

    def range_of(self, name: str) -> Bytes:
        """Return the memory of a buffer."""
        buffer = self.program.buffers[self.root(name)]
        if buffer.space != "arena":
            return f"{buffer.space} {buffer.key}", 0, 1
        return "arena", buffer.offset, buffer.offset + buffer.type.nbytes(self.n)

    def _array(self, name: str) -> Array:
        """Return the value of a buffer as it was written."""
        return self._within(self.written[self.root(name)], name)

    def _within(self, root: Array, name: str) -> Array:
        """Return a buffer as a view of the array of the buffer that holds its bytes."""
        buffer = self.program.buffers.get(name)
        if buffer is None or root is self.written.get(name):
            return root
        shape, flat = shape_at(buffer.type.shape, self.n), root.reshape(-1)[buffer.shift :]
        if not buffer.pitch:
            return flat[: prod(shape)].reshape(shape)
        size = ITEMSIZE[buffer.type.dtype]
        strides = (buffer.pitch * size, size)
        return as_strided(flat, (shape[0], prod(shape[1:])), strides)


def _run(part: Part) -> None:
    with np.errstate(all="ignore"):
        for call in part.calls:
            call()
