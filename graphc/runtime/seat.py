"""The executor on whose memory the members of a population run, side by side or in turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.backends.backend import Call, Ready, SideBySide, Spread
from graphc.base.errors import FeedError
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.runtime.executor import Executor
from graphc.runtime.member_feeds import MemberFeeds, SpreadFeeds
from graphc.runtime.members import Members


class Seat(Executor):
    """The executor on whose memory members run, side by side or in turns."""

    has_members = True
    _last: LastStep | None = None
    """The last step that members made side by side, if another may follow."""

    def side_by_side(
        self, given: MemberFeeds, members: Members, *, train: bool
    ) -> tuple[Sequence[Call], dict[str, Array]] | None:
        """Return the calls that run members side by side, and the arrays that they fill.

        These are losses, or all outputs at inference, of each run.  Return None if members cannot.
        """
        if self._sequences is not None or self.sharded is not None or self.plan.accumulate > 1:
            return None
        if self.plan.options.sparing:  # threads have one arena and one place for feeds
            return None
        if train and self._last is not None and self._last.feed(given):
            return self._last.calls, self._last.results
        program = self._program("step" if train else "infer")
        fed = given.spread(program, self._check(program))
        if fed is None:
            return None
        missing = frozenset(program.feeds.keys() - fed.feeds)
        bound = self._binder.layout(program, program.capacity, missing)
        names = program.graph.losses if train else bound.outputs
        if not names or (missing and train):
            return None
        types = {name: program.buffers[program.outputs[name]].type for name in names}
        count, n = len(fed.rows), int(fed.rows[0])
        results = {k: np.empty((count, *shape_at(x.shape, n)), x.dtype) for k, x in types.items()}
        own = {k: x._replace(array=self._workspace.own(x.array)) for k, x in fed.feeds.items()}
        made = {k: Spread(array, "number", types[k].nbytes(n)) for k, array in results.items()}
        numbers = members.places[given.members]
        if fed.begin is not None:
            numbers = np.repeat(numbers, np.diff(fed.begin))
        work = SideBySide(fed.rows, own, made, members.spread, numbers, fed.chosen, fed.begin)
        ready = bound.runner.side_by_side(work)
        if ready is None:
            return None
        # Rows that were copied to be checked are not those that the next step is fed with.
        copied = given.rows is not None and any(x.by == "first" for x in own.values())
        if train and not copied:
            self._last = LastStep(given, fed, ready, results, members.memory, program.capacity)
        return ready.calls, results

    def checked(self, given: MemberFeeds, *, train: bool) -> list[Mapping[str, Any]]:
        """Return the feeds of each member, or of all if they are fed alike.

        Raise FeedError for the first that does not fit its input.
        """
        program = self._program(self._step_name if train else "infer")
        check = self._check(program)
        found: list[Mapping[str, Any]] = []
        for number, feeds in enumerate(given.each()):
            try:
                check.feeds(self.padded(feeds), optional=not train)
            except FeedError as error:
                if not given.same:
                    error.add_note(f"in the feeds of member {given.members[number]}")
                raise
            found.append(feeds)
            if given.same:
                break
        return found

    def run(self, memory: Array, work: Callable[[], None], writes: bool) -> None:
        """Do the work with the state that lies in this memory."""
        (own,) = self._state.blocks
        self._state.lock.broken = False
        np.copyto(own, memory)
        work()
        if writes:
            np.copyto(memory, own)

    def forget(self) -> None:
        """Forget the last step: the members are others."""
        self._last = None


class LastStep:
    """A step of members side by side, which may be made again with feeds of the same kind."""

    def __init__(
        self,
        given: MemberFeeds,
        fed: SpreadFeeds,
        ready: Ready,
        results: dict[str, Array],
        states: Array,
        capacity: int,
    ) -> None:
        self.calls, self.results = ready.calls, results
        self._ready, self._kind, self._capacity = ready, given.kind, capacity
        types = {name: given.types[name] for name in self._kind[0]}
        self._check = ready.refeed(types, [states])
        self._rows = int(fed.rows.sum() if given.own else fed.rows[0])
        """The rows of the arrays, where members do not choose among them."""
        self._fed: Mapping[str, Array] = {}
        """The arrays, which must last as long as they are read."""

    def feed(self, given: MemberFeeds) -> bool:
        """Let the calls read these feeds; return False if they are of another kind."""
        if given.kind != self._kind or not self._ready.current():
            return False
        self._fed = given.flat()
        n = self._check(self._fed)
        if given.rows is None or n is None:
            return n == self._rows
        rows, chosen, _ = given.chosen()
        fits = 1 <= rows.min() <= rows.max() <= self._capacity
        if not fits or not 0 <= chosen.min() <= chosen.max() < n:
            return False
        self._ready.choose(rows, chosen)
        return True
