"""The memory of one executor: arena, scratch, feeds, constants, and gradients when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod

import numpy as np

from graphc.backends.backend import Call, backend
from graphc.backends.layout import columns_of
from graphc.base.door import ask, higher
from graphc.base.errors import OutOfMemoryError
from graphc.compiler.plan import Plan
from graphc.compiler.sizes import (
    ThreadMemory,
    arena_bytes,
    block_bytes,
    constant_types,
    feed_types,
    placed,
    result_types,
    run_rows,
    scratch_size,
)
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, TensorType, numpy_dtype, shape_at
from graphc.kernels.program import PREPARE, Buffer, Program
from graphc.ops.source import Constant
from graphc.runtime.entry import run_all
from graphc.runtime.state import Owner, State, block, large_block

WORTH_ASKING = 1 << 26
"""The bytes above which a plan asks how many there are: it takes 0.1 ms."""


class Workspace:
    """The memory on which the programs of a plan run.

    `capacity` is the most rows of a run.  `threads` is the option of `compile`: the number of
    threads, or None for all cores.  With `sparing` there is one arena, which all threads share.
    With `side_by_side` each thread has an arena and feeds, to make whole runs.
    """

    def __init__(
        self,
        programs: Mapping[str, Program],
        capacity: int,
        state: State,
        threads: int | None = None,
        sparing: bool = False,
        side_by_side: bool = False,
    ) -> None:
        self._capacity, self._state = capacity, state
        own = 1 if sparing else threads
        # Programs share the arena, since only one of them runs at a time.
        own_size = ThreadMemory.of(programs, own) if side_by_side else None
        arenas = arena_bytes(programs, capacity, own) if own_size is None else own_size.arenas
        self.arena = block(arenas)
        self.scratch_size = scratch_size(programs, threads)
        self.scratch = block(self.scratch_size.nbytes)
        copies = 1 if own_size is None else own_size.threads
        self.feeds = _Region(feed_types(programs), run_rows(programs), block, copies)
        self.results = _Region(result_types(programs, capacity), capacity, block)
        self.constants = _Region(constant_types(programs), capacity, large_block)
        self._gradients: Array | None = None
        for program in programs.values():
            run_all(self.constant_writes(program))

    def poison(self) -> None:
        """Poison all that is dead between runs: the arena and the scratch."""
        poison(self.arena)
        poison(self.scratch)

    @property
    def threads(self) -> int:
        """The most threads that may run a program."""
        return self.scratch_size.threads

    @property
    def nbytes(self) -> int:
        """The number of bytes that are allocated, alignment included."""
        regions = self.feeds, self.results, self.constants
        parts = [len(self.arena), len(self.scratch), *(region.nbytes for region in regions)]
        if self._gradients is not None:
            parts.append(len(self._gradients))
        return sum(block_bytes(part) for part in parts)

    @property
    def feed_bytes(self) -> int:
        """The bytes of the feeds of a thread; those of the next thread, if it has any, follow."""
        return self.feeds.one

    @property
    def written(self) -> list[Array]:
        """The memory that runs write to; users may hold views of it."""
        return [self.arena, self.feeds.memory, self.results.memory, *self._state.blocks]

    def own(self, array: Array) -> Array:
        """Return the array, or a copy of it if runs may write to its memory."""
        shared = any(np.may_share_memory(array, memory) for memory in self.written)
        return array.copy() if shared else array

    def result(self, program: Program, name: str, n: int) -> Array:
        """Return the array that gathers an output of `n` rows, which run in blocks."""
        return self.results.view(name, program.buffers[program.outputs[name]].type, n)

    def constant_writes(self, program: Program) -> Iterator[Call]:
        """Yield the calls that copy the constants of a program to their memory."""
        ops = {name: program.graph[name].op for name in program.constants}
        values = {name: op.array() for name, op in ops.items() if isinstance(op, Constant)}
        yield from self._constant_writes(program, values)

    def prepared(self, programs: Mapping[str, Program]) -> dict[str, Array]:
        """Return views of what inference keeps of the state, once `prepare` has run."""
        program = programs["infer"]
        return {name: self._prepared(programs, name) for name in sorted(program.kept)}

    def _prepared(self, programs: Mapping[str, Program], name: str) -> Array:
        source = higher("moved")(programs["infer"].graph, name)
        if source is None:
            return self.view(programs[PREPARE], name, 1)
        array = self._state.arrays[source.state].reshape(source.shape)
        return array.transpose(source.axes)

    def prepared_writes(self, programs: Mapping[str, Program]) -> Iterator[Call]:
        """Yield the calls that copy these to where inference reads them."""
        yield from self._constant_writes(programs["infer"], self.prepared(programs))

    def _constant_writes(self, program: Program, values: Mapping[str, Array]) -> Iterator[Call]:
        orders = backend(program.backend).orders(program)
        for name, value in values.items():
            key, type = f"{program.name}:{name}", program.constants[name].type
            array = self.constants.view(key, type, self._capacity)
            if name in orders:
                yield from orders[name](array, value)
            else:
                yield partial(np.copyto, array, value)

    def view(self, program: Program, name: str, n: int) -> Array:
        """Return the array of a buffer for a run of `n` rows."""
        buffer = program.buffers[name]
        shape = shape_at(buffer.type.shape, n)
        if buffer.pitch:
            return columns_of(self.view(program, program.aliases[name], n), buffer, shape)
        if buffer.space == "state":
            return self._state.arrays[buffer.key].reshape(shape)
        if buffer.space == "constant":
            return self.constants.view(f"{program.name}:{buffer.key}", buffer.type, n)
        if buffer.key in program.fed_gradients:
            return self._gradient_feed(buffer, program.fed_gradients[buffer.key], n)
        if buffer.space == "feed":
            return self.feeds.view(buffer.key, buffer.type, n)
        memory = self._gradient_block(program) if buffer.space == "gradient" else self.arena
        return _typed(memory, buffer.offset, buffer.type, n)

    def put_gradients(self, grad: Program, apply: Program, arrays: Mapping[str, Array]) -> None:
        """Write a user's gradients to the buffers of `grad`, where `apply` reads them."""
        self._gradient_block(grad)
        for name, array in arrays.items():
            np.copyto(self.view(apply, name, 1), array)

    def _gradient_block(self, program: Program) -> Array:
        """Return the block for a program's gradients, made at its first use."""
        if self._gradients is None:
            self._gradients = block(program.gradient_bytes)
            self._gradient_offsets = {
                b.key: b.offset for b in program.buffers.values() if b.space == "gradient"
            }
        return self._gradients

    def _gradient_feed(self, buffer: Buffer, wrt: str, n: int) -> Array:
        assert self._gradients is not None
        return _typed(self._gradients, self._gradient_offsets[wrt], buffer.type, n)


class _Region:
    """Named arrays in one block, each with room for the whole batch."""

    def __init__(
        self,
        types: Mapping[str, TensorType],
        capacity: int,
        make: Callable[[int], Array],
        copies: int = 1,
    ) -> None:
        self._offsets, self.one = placed(types, capacity)
        self.nbytes = self.one * copies
        self.memory = make(self.nbytes)

    def view(self, name: str, type: TensorType, n: int) -> Array:
        return _typed(self.memory, self._offsets[name], type, n)


def poison(memory: Array) -> None:
    """Set every byte to 255: NaN as a number of any float, -1 as an integer of any size."""
    memory[...] = np.frombuffer(b"\xff" * memory.itemsize, memory.dtype)


def poisoned(memory: Array) -> Array:
    """Return which numbers of an array have the bytes that `poison` sets."""
    raw = np.ascontiguousarray(memory).view(np.uint8).reshape(*memory.shape, memory.itemsize)
    return np.asarray((raw == 255).all(axis=-1))


def memory_of(
    plan: Plan, seed: int, state: State | None, side_by_side: bool = False
) -> tuple[State, Workspace]:
    """Return a new state, or the one given, and the memory of one executor.

    With `side_by_side` each thread has memory of its own.  Raise OutOfMemoryError if memory does
    not suffice, StateError if a given state belongs to another optimizer of that name; the state is
    then as it was.
    """
    own, owners = State({}, seed) if state is None else state, Owner.of(plan)
    for owner in owners:
        owner.check(own.owners)
    most = ask("most bytes") if plan.memory.total > WORTH_ASKING else None
    if most is not None:
        plan.memory.check_machine(most)
    try:
        options = plan.options
        of_plan = options.threads, options.arena_threads == 1, side_by_side
        workspace = Workspace(plan.programs, plan.batch, own, *of_plan)
        own.extend(plan.state_nodes)
    except MemoryError:
        raise OutOfMemoryError(
            f"there is not enough memory for this plan, which needs {plan.memory.total:,} bytes",
            hint="plan.memory says what for; compile with a smaller batch, or with budget=",
        ) from None
    own.owners += [owner for owner in owners if owner not in own.owners]
    return own, workspace


def _typed(memory: Array, offset: int, type: TensorType, n: int) -> Array:
    shape = shape_at(type.shape, n)
    raw = memory[offset : offset + prod(shape) * ITEMSIZE[type.dtype]]
    return raw.view(numpy_dtype(type.dtype)).reshape(shape)
