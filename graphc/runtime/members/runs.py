"""The executor on whose memory the members of a population run, side by side or in turns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from graphc.backends.backend import Call, Ready, SideBySide, Spread
from graphc.base.errors import FeedError
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.runtime.entry import run_all
from graphc.runtime.executor import Executor
from graphc.runtime.feeds import FeedCheck
from graphc.runtime.members.feeds import MemberFeeds
from graphc.runtime.members.states import MemberStates

Run = tuple[int, Mapping[str, Any]]
"""The number of a member, and its feeds."""


class MemberRuns(Executor):
    """The executor on whose memory members run, side by side or in turns."""

    has_thread_memory = True
    _last: Mapping[bool, LastRun] = {}
    """The last step (True) and inference that members made side by side, which may be repeated."""

    def side_by_side(
        self, given: MemberFeeds, members: MemberStates, *, train: bool
    ) -> tuple[Sequence[Call], dict[str, Array]] | None:
        """Return the calls that run members side by side, and the arrays that they fill.

        These are losses, or all outputs at inference, of each run.  Return None if members cannot.
        """
        if not given.members or not self._can_side_by_side:
            return None
        last = self._last.get(train)
        if last is not None and last.feed(given, members):
            return last.calls, last.results()
        program = self._program("step" if train else "infer")
        check = self._check(program)
        work = given.spread(program, check)
        if work is None:
            return None
        missing = frozenset(program.feeds.keys() - work.feeds)
        bound = self._binder.layout(program, program.capacity, missing)
        names = program.graph.losses if train else bound.outputs
        if not names or (missing and train):
            return None
        types = {name: program.buffers[program.outputs[name]].type for name in names}
        count, n = len(work.rows), int(work.rows[0])
        empty = {k: ((count, *shape_at(x.shape, n)), x.dtype) for k, x in types.items()}
        results = {name: np.empty(*each) for name, each in empty.items()}
        work = work._replace(
            feeds={
                k: x._replace(array=self._workspace.own(x.array)) for k, x in work.feeds.items()
            },
            results={k: Spread(x, "number", types[k].nbytes(n)) for k, x in results.items()},
            states=members.spread,
            numbers=members.places[np.array(given.numbers) - members.own.start],
        )
        ready = bound.runner.side_by_side(work)
        if ready is None:
            return None
        if train or given.rows is None:  # else outputs may have another shape
            run = LastRun(given, work, ready, empty, members, check, program.capacity)
            self._last = {**self._last, train: run}
        return ready.calls, results

    @property
    def _can_side_by_side(self) -> bool:
        """False also for a sparing plan, which has one arena and one place for feeds."""
        plain = self._sequences is None and self.sharded is None
        return plain and self.plan.accumulate <= 1 and not self.plan.options.sparing

    def checked(self, given: MemberFeeds) -> Iterable[Run]:
        """Return the steps of members in turns; raise FeedError if the feeds of one do not fit.

        All feeds are checked; those of one step each are also gathered, so that this is done once.
        """
        check = self._check(self._program(self._step_name))
        gathered = None if given.batch else [*given.runs()]
        for member, feeds in gathered or given.runs():
            try:
                check.feeds(self.padded(feeds))
            except FeedError as error:
                given.note(error, member)
                raise
            if given.same:
                break
        return gathered or given.runs()

    def in_turns(
        self,
        given: MemberFeeds,
        members: MemberStates,
        work: Callable[[Mapping[str, Any]], Any],
        steps: Iterable[Run] | None = None,
    ) -> list[Any]:
        """Make one run after the other, steps or inference, and return what `work` gives for each.

        A failure of a step leaves all states broken.
        """
        found, writes = list[Any](), steps is not None

        def run(member: int, feeds: Mapping[str, Any]) -> None:
            memory = members.memory[members.place(member)]
            self.run(memory, lambda: found.append(work(feeds)), writes)

        calls = (partial(run, *each) for each in steps or given.runs())
        try:
            (members.lock.write if writes else run_all)(calls)
        except FeedError as error:
            given.note(error, given.numbers[len(found)])
            raise
        return found

    def run(self, memory: Array, work: Callable[[], None], writes: bool) -> None:
        """Do the work with the state that lies in this memory."""
        (own,) = self._state.blocks
        self._state.lock.broken = False
        np.copyto(own, memory)
        work()
        if writes:
            np.copyto(memory, own)


class LastRun:
    """A run of members side by side, which may be made again with feeds of the same kind."""

    def __init__(
        self,
        given: MemberFeeds,
        work: SideBySide,
        ready: Ready,
        empty: Mapping[str, tuple[tuple[int, ...], str]],
        members: MemberStates,
        check: FeedCheck,
        capacity: int,
    ) -> None:
        self.calls = ready.calls
        self._ready, self._kind, self._empty = ready, given.kind, empty
        self._places = members.places
        self._converted, self._capacity = check.converted, capacity
        self._rows = int(work.rows.sum() if given.own else work.rows[0])
        """The rows of the arrays, where members do not choose among them."""
        by_first = [name for name, x in work.feeds.items() if x.by == "first"]
        self._taken = () if given.rows is None else tuple(by_first)
        """The inputs whose chosen rows are copied."""
        types = {name: given.types[name] for name in self._kind[0]}
        taken = {name: types.pop(name) for name in self._taken}
        self._chosen = {name for name, type in types.items() if given.rows and type.batched}
        """The inputs whose rows native code chooses from arrays as they are."""
        self._check = ready.refeed(types, [members.memory])
        self._check_taken = ready.refeed(taken, [members.memory])
        self._fed: Sequence[Mapping[str, Array]] = ()
        """The arrays, which must last as long as they are read."""

    def feed(self, given: MemberFeeds, members: MemberStates) -> bool:
        """Let the calls read these feeds; return False if they are of another kind."""
        # After some have left, the same numbers are those of other members.
        same = members.places is self._places and given.kind == self._kind
        if not same or not self._ready.current():
            return False
        if given.rows is None:
            return self._read(given.flat(), {}, 0) == self._rows
        rows, chosen, _ = given.chosen()
        if not 1 <= rows.min() <= rows.max() <= self._capacity or chosen.min() < 0:
            return False
        arrays = given.flat()
        try:
            taken = {name: np.take(arrays.pop(name), chosen, 0) for name in self._taken}
        except IndexError:
            return False
        n = self._read(arrays, taken, len(chosen))
        if n is None or (self._chosen and chosen.max() >= n):
            return False
        self._ready.choose(rows, chosen)
        return True

    def _read(self, arrays: dict[str, Any], taken: dict[str, Any], count: int) -> int | None:
        """Let the calls read arrays, and `count` taken rows; return the arrays' number of rows.

        Return None if the calls cannot.
        """
        try:
            for some in (arrays, taken):
                for name in some.keys() - self._chosen:
                    some[name] = self._converted(name, some[name])
        except FeedError:
            return None
        self._fed = arrays, taken
        if taken and self._check_taken(taken) != count:
            return None
        return self._check(arrays)

    def results(self) -> dict[str, Array]:
        """Return arrays that the calls fill, new ones each time."""
        found = {name: np.empty(*each) for name, each in self._empty.items()}
        self._ready.fill(list(found.values()))
        return found
