"""Run the programs of a plan in one memory, for a caller that holds the lock of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from graphc.backends.backend import Call, SideBySide, Spread, ZeroCopy
from graphc.base.door import ask
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, TensorType
from graphc.kernels.program import Program
from graphc.runtime import errors
from graphc.runtime.bound import BOUND_BATCHES, NOTHING, Binder, Bound, Outcome, fixed
from graphc.runtime.entry import quiet_context, run_all
from graphc.runtime.feeds import FeedCheck, Feeds, program_check
from graphc.runtime.state import State
from graphc.runtime.workspace import memory_of

if TYPE_CHECKING:
    from graphc.runtime.cotangents import CotangentRuns
    from graphc.runtime.distributed.communicator import Communicator
    from graphc.runtime.distributed.step import ShardedStep

KNOWN_FEEDS = 64
"""The number of sets of inputs of a program that may be fed without a copy."""


class ZeroCopyProgram(NamedTuple):
    """A program for zero-copy feeds of certain names, bound for the numbers of rows so far."""

    check: ZeroCopy
    copied: tuple[str, ...]
    bind: Callable[[int], Bound]
    known: dict[int, Bound]


class ZeroCopyPrograms(dict[tuple[str, ...], ZeroCopyProgram]):
    """The variants of one program that read feeds without a copy, by the names of the feeds."""

    def ready(self, feeds: Mapping[str, Any]) -> Bound | None:
        """Return the program, set to read these arrays in its next run; None for unusual ones."""
        found = self.get(tuple(feeds))
        if found is None:
            return None
        check, copied, bind, known = found
        n = check(feeds)
        if n is None:
            return None
        bound = known.get(n)
        if bound is None:
            if len(known) >= BOUND_BATCHES:
                known.clear()
            bound = known[n] = bind(n)
        for name in copied:
            np.copyto(bound.feeds[name], feeds[name])
        return bound

    def add(
        self,
        binder: Binder,
        bound: Bound,
        types: Mapping[str, TensorType],
        missing: frozenset[str],
    ) -> None:
        """Let later runs read feeds of these names without a copy, if that is possible.

        The types are those declared, also of inputs that the program does not read: they have
        rows, too.
        """
        names, program = tuple(types), bound.program
        if names in self or len(self) >= KNOWN_FEEDS:
            return
        by_rows = any(isinstance(limit, Batch) for limit in bound.program.index_bounds.values())
        if by_rows or any(type.pairs_rows for type in types.values()):
            return  # that check knows one axis of rows, and numbers as bounds
        if (found := bound.runner.zero_copy(types)) is not None:
            self[names] = ZeroCopyProgram(*found, lambda n: binder.layout(program, n, missing), {})


class Runs:
    """The memory of an executor, its bound programs, and the work of its calls.

    Nothing here takes a lock: `Executor` does so by its `Entry`.
    """

    has_thread_memory = False
    """True if each thread has memory of its own, in which it makes whole runs."""

    def __init__(
        self, plan: Plan, seed: int, state: State | None, communicator: Communicator | None
    ) -> None:
        self.plan = plan
        self._state, self._workspace = memory_of(plan, seed, state, self.has_thread_memory)
        self._lock = self._state.lock
        self.sharded: ShardedStep | None = ask("sharded step", plan, communicator, self._state)
        """The step as the shards of this rank; None if the plan has no shards."""
        link = None if self.sharded is None else self.sharded.exchange
        self._binder = Binder(self._workspace, link)
        self._checks: dict[str, FeedCheck] = {}
        self._cotangents: CotangentRuns | None = ask("cotangent runs", plan, self._state)
        self._sequences: Any = ask("sequences", plan.declared, plan.rows)
        self._quiet = quiet_context()
        self._outcome = NOTHING
        self._prepared: object = None
        """The version of the state that what inference keeps is of."""
        self._step_name = "accumulate" if plan.accumulate > 1 else "step"
        self._zero_copy = {
            name: ZeroCopyPrograms() for name in plan.programs if name not in ("grad", "apply")
        }

    def _forward(self, feeds: Mapping[str, Any], train: bool, copy: bool) -> dict[str, Array]:
        self._lock.begin(writes=train)
        if self._sequences is not None:
            feeds = self._sequences.whole(feeds)
        if not train:
            self._outcome = self._infer(feeds)
        else:
            bound = self._ready("grad", feeds)
            self._outcome = NOTHING
            if self._cotangents is not None:
                self._cotangents.note()
            self._write(bound.calls[: bound.forward_calls])
            self._outcome = Outcome(bound.outputs, bound)
        return {k: v.copy() if copy else v for k, v in self._outcome.outputs.items()}

    def _infer(self, feeds: Mapping[str, Any]) -> Outcome:
        """Run inference, in blocks if there are more rows than the program takes at once."""
        bound = self._zero_copy["infer"].ready(feeds)
        if bound is None:
            program = self._program("infer")
            checked = self._check(program).feeds(feeds, optional=True)
            if checked.n > program.capacity:
                return self._infer_in_blocks(program, checked)
            bound = self._load(program, checked)
        if self._prepared is not self._lock.version:
            self._prepare()
        self._outcome = NOTHING
        call = bound.only_call
        if call is not None:
            call()
        else:
            self._run(bound.calls)
        return bound.outcome

    def _prepare(self) -> None:
        """Prepare what inference keeps of the state, as it is now."""
        version, self._prepared = self._lock.version, None
        if self._preparation:
            self._outcome = NOTHING
            self._run(self._preparation)
        self._prepared = version

    @cached_property
    def _preparation(self) -> list[Call]:
        return self._binder.preparation(self.plan.programs)

    def _infer_in_blocks(self, program: Program, feeds: Feeds) -> Outcome:
        """Run blocks of rows, and gather their outputs.

        Threads share the blocks, and then each block that is left.
        """
        bound = self._binder.layout(program, program.capacity, feeds.missing)
        if not bound.outputs:
            raise errors.no_output(feeds.missing & program.feeds.keys())
        given = [name for name in program.feeds if name in feeds.arrays]
        arrays = {name: self._workspace.own(feeds.arrays[name]) for name in given}
        results = {name: self._workspace.result(program, name, feeds.n) for name in bound.outputs}
        if self._prepared is not self._lock.version:
            self._prepare()
        self._outcome = NOTHING
        first = self._blocks_side_by_side(bound, arrays, results, feeds.n)
        for start in range(first, feeds.n, program.capacity):
            stop = min(start + program.capacity, feeds.n)
            part = {name: array[start:stop] for name, array in arrays.items()}
            done = self._infer(part).outputs
            for name, rows in done.items():
                np.copyto(results[name][start:stop], rows)
        return Outcome({name: fixed(array) for name, array in results.items()})

    def _blocks_side_by_side(
        self, bound: Bound, arrays: Mapping[str, Array], results: Mapping[str, Array], n: int
    ) -> int:
        """Run the first blocks, as many as make equal shares of threads; return their rows."""
        program, threads = bound.program, self._workspace.threads
        rows, types = program.capacity, {k: buffer.type for k, buffer in program.buffers.items()}
        count = n // rows // threads * threads
        of_rows = {k: Spread(x, "first", types[k].nbytes(1)) for k, x in arrays.items()}
        made = {
            k: Spread(x, "number", types[program.outputs[k]].nbytes(rows))
            for k, x in results.items()
        }
        ready = bound.runner.side_by_side(SideBySide(np.full(count, rows), of_rows, made))
        if not count or ready is None:
            return 0
        run_all(ready.calls)
        return count * rows

    def _backward(self, cotangents: Mapping[str, Any]) -> dict[str, Array]:
        self._lock.begin(writes=False)
        last = self._outcome
        saved = last.saved
        if saved is None:
            raise errors.no_forward()
        if cotangents:
            if self._cotangents is None:
                raise errors.no_cotangents()
            saved = self._cotangents.bind(saved, cotangents)
            self._run(saved.calls)
            return {name: array.copy() for name, array in saved.gradients.items()}
        if not saved.gradients:
            raise errors.no_losses()
        if not last.differentiated:  # only once: it overwrites the forward values
            self._outcome = NOTHING
            self._run(saved.calls[saved.forward_calls :])
            self._outcome = Outcome(last.outputs, saved, differentiated=True)
        return {name: array.copy() for name, array in saved.gradients.items()}

    def _update(self, program: Program, gradients: Mapping[str, Array] | None) -> None:
        self._lock.begin(writes=True)
        last = self._outcome
        accumulates = self.plan.accumulate > 1
        there = self._accumulated() if accumulates else last.differentiated
        if gradients is None and not there:
            raise errors.no_gradients(accumulates)
        outputs = last.copies()
        self._outcome = NOTHING
        if gradients is not None:
            self._workspace.put_gradients(self._program("grad"), program, gradients)
        self._write(self._binder.bound(program, 1).calls)
        self._outcome = Outcome(outputs)

    def _step(self, feeds: Mapping[str, Any]) -> float:
        lock = self._lock
        if lock.broken or not lock.writing:
            lock.begin(writes=True)
        if self._sequences is not None:
            feeds = self._sequences.whole(feeds)
        if self.sharded is not None:
            self._program(self._step_name)  # refuses a plan without an optimizer
            self._outcome = NOTHING
            return self._complete(*self.sharded(feeds, self._ready, self._run))
        bound = self._ready(self._step_name, feeds)
        call = bound.only_call
        # After `accumulate` an update may be due, which _complete adds.
        if call is None or self._step_name == "accumulate":
            return self._complete(bound, bound.calls)
        self._outcome = NOTHING
        call()
        self._outcome = bound.outcome
        return bound.loss()

    def _complete(self, bound: Bound, calls: Iterable[Call]) -> float:
        """Make the last calls of a step, an update included if it is due; return the loss."""
        self._outcome = NOTHING
        if self._step_name == "accumulate" and self._accumulated() + 1 >= self.plan.accumulate:
            apply = self._binder.bound(self._program("apply"), 1)
            # The update may write where the outputs are: programs share one arena.
            bound, keep = bound.kept()
            calls = chain(calls, keep, apply.calls)
        self._write(calls)
        self._outcome = bound.outcome
        return bound.loss()

    def _take_over(self, plan: Plan) -> None:
        self._lock.begin(writes=False)
        self._outcome = NOTHING
        # By run_all, an interrupt comes before all of these calls or after the last, which sets the
        # plan.
        constants = self._workspace.constant_writes(plan.programs["infer"])
        run_all([*constants, partial(setattr, self, "plan", plan)])

    # ------------------------------------------------------------------ programs and calls

    def _program(self, name: str) -> Program:
        if name in self.plan.programs:
            return self.plan.programs[name]
        raise errors.no_program(name)

    def _check(self, program: Program) -> FeedCheck:
        check = self._checks.get(program.name)
        if check is None:
            check = self._checks[program.name] = program_check(program, self.plan)
        return check

    def _ready(self, name: str, feeds: Mapping[str, Any]) -> Bound:
        """Return a program bound to zero-copy feeds if possible, or else to copies of them."""
        known = self._zero_copy.get(name)
        bound = None if known is None else known.ready(feeds)
        if bound is None:
            program = self._program(name)
            bound = self._load(program, self._check(program).feeds(feeds))
        return bound

    def _load(self, program: Program, feeds: Feeds) -> Bound:
        """Return a program with its feeds copied in."""
        bound = self._binder.bound(program, feeds.n, feeds.missing)
        if feeds.optional and not bound.outputs:
            raise errors.no_output(feeds.missing & program.feeds.keys())
        self._outcome = NOTHING
        bound.feed(feeds.arrays)
        if program.name in self._zero_copy:
            types = {name: self.plan.declared[name].type for name in feeds.names}
            self._zero_copy[program.name].add(self._binder, bound, types, feeds.missing)
        return bound

    def _accumulated(self) -> int:
        return int(self._state.arrays[self.plan.step_counter])

    def _run(self, calls: Iterable[Call]) -> None:
        self._quiet.run(run_all, calls)

    def _write(self, calls: Iterable[Call]) -> None:
        self._quiet.run(self._lock.write, calls)
