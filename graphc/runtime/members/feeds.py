"""The feeds of a population: arrays that all members share, one for each, and rows to gather."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from graphc.backends.backend import Rows, Spread
from graphc.base.arguments import array_of
from graphc.base.errors import FeedError
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, N, TensorType
from graphc.kernels.program import Program
from graphc.runtime.feeds import FeedCheck
from graphc.runtime.row_axis import RowAxis, rows_of

FEW = 16
"""The times that an array has more rows than are chosen, up to which it is checked, not copied."""


class SpreadFeeds(NamedTuple):
    """The feeds of members that run side by side."""

    rows: Rows
    """The number of rows of each run."""
    feeds: dict[str, Spread]
    chosen: Rows | None = None
    """The rows that each gathers, one member after the other."""
    begin: Rows | None = None
    """The number of each member's first run, and of all runs; None if each makes one."""


class MemberFeeds(NamedTuple):
    """The feeds of some members."""

    types: Mapping[str, TensorType]
    shared: Mapping[str, Any]
    """The feeds that are the same for all."""
    own: Mapping[str, Array]
    """The feeds whose first axis numbers the members."""
    rows: list[Rows] | None
    """The rows that each member takes from its arrays; None for all of them."""
    members: Sequence[int]
    """The numbers of the members, for errors."""
    batch: int | None = None
    """The rows of a step, of which each member makes as many as its rows need; None for one."""

    @classmethod
    def of(
        cls,
        plan: Plan,
        feeds: Mapping[str, Any],
        rows: Any,
        members: Sequence[int],
        batch: int | None = None,
    ) -> MemberFeeds:
        """Tell apart what is shared and what is not; raise FeedError for wrong numbers of arrays.

        Whether an array fits its input is not checked.
        """
        types = {name: plan.declared[name].type for name in plan.input_names}
        own = {name: array for name, array in feeds.items() if _is_own(types.get(name), array)}
        own = {name: array_of(_named(name), array, FeedError) for name, array in own.items()}
        for name, array in own.items():
            if len(array) != len(members):
                raise FeedError(
                    f"input {name!r} has arrays for {len(array)} members, {len(members)} run",
                    hint="give one array for each, along a first axis, or one for all without it",
                )
        shared = {name: array for name, array in feeds.items() if name not in own}
        chosen = None if rows is None else _chosen(rows, members)
        return cls(types, shared, own, chosen, members, batch)

    @property
    def same(self) -> bool:
        """True if all members are fed alike."""
        return not self.own and self.rows is None

    def held(self, own: range) -> MemberFeeds:
        """Return the feeds of those members whose numbers are among these."""
        at = [place for place, member in enumerate(self.members) if member in own]
        arrays = {name: array[at] for name, array in self.own.items()}
        rows = None if self.rows is None else [self.rows[place] for place in at]
        members = [self.members[place] for place in at]
        return self._replace(own=arrays, rows=rows, members=members)

    def each(self) -> Iterator[dict[str, Any]]:
        """Yield the feeds of each member."""
        return map(self.at, range(len(self.members)))

    def spread(self, program: Program, check: FeedCheck) -> SpreadFeeds | None:
        """Return the feeds of runs side by side; None if members are to be fed one by one.

        That is so for unusual feeds, also those that do not fit.
        """
        types = [self.types.get(name) for name in (*self.shared, *self.own)]
        if not all(type is not None and has_plain_rows(type) for type in types):
            return None
        if any(isinstance(limit, Batch) for limit in program.index_bounds.values()):
            return None
        try:
            found = self._of_one_array(check) if self.rows is None else self._taken(program, check)
        except FeedError:
            return None
        fits = found is not None and 1 <= found.rows.min() <= found.rows.max() <= program.capacity
        return found if fits else None

    def _of_one_array(self, check: FeedCheck) -> SpreadFeeds | None:
        """Return the feeds of members that share arrays, or have equal parts of one."""
        flat = self.flat()
        shared, rows = check.arrays(self.shared, optional=True, limit=False)
        own = {name: flat[name] for name in self.own}
        parts, total = check.arrays(own, optional=True, limit=False)
        count = len(self.members)
        if not any(self.types[name].batched for name in self.shared):
            rows = total // count
        if not all(self.types[name].batched for name in own) or (own and total != count * rows):
            return None
        feeds = {name: Spread(array) for name, array in shared.items()}
        return SpreadFeeds(np.full(count, rows), feeds | self._by_rows(parts))

    def _taken(self, program: Program, check: FeedCheck) -> SpreadFeeds | None:
        """Return the feeds of members that take rows: gathered by each, if that is possible."""
        assert self.rows is not None
        rows, chosen, begin = self.chosen()
        feeds, taken = dict[str, Spread](), dict[str, Any]()
        first, last = int(chosen.min()), int(chosen.max())
        whole = {name: x for name, x in self.shared.items() if not self.types[name].batched}
        for name in self.shared.keys() - whole.keys():
            array, type = self.shared[name], self.types[name]
            if not isinstance(array, np.ndarray) or first < 0 or last >= len(array):
                return None
            plain = array.flags.c_contiguous and array.flags.aligned and array.dtype == type.dtype
            if plain and (name not in program.index_bounds or len(array) <= FEW * len(chosen)):
                check.arrays({name: array}, optional=True, limit=False)
                feeds[name] = Spread(array, "chosen", type.nbytes(1))
            else:
                taken[name] = np.take(array, chosen, 0)
        shared, _ = check.arrays(whole, optional=True, limit=False)
        parts, total = check.arrays(taken, optional=True, limit=False)
        if self.own or (taken and total != len(chosen)):
            return None
        feeds |= {name: Spread(array) for name, array in shared.items()} | self._by_rows(parts)
        return SpreadFeeds(rows, feeds, chosen, begin)

    def chosen(self) -> tuple[Rows, Rows, Rows | None]:
        """Return the number of rows of each run, these of all one by one, and `SpreadFeeds.begin`.

        A member makes a run for each `batch` of its rows, and one for the rest of them.
        """
        assert self.rows is not None
        rows, chosen = np.array(list(map(len, self.rows))), np.concatenate(self.rows)
        if self.batch is None:
            return rows, chosen, None
        last = np.cumsum(self.steps) - 1
        by_run = np.full(last[-1] + 1, self.batch)
        by_run[last] = (rows - 1) % self.batch + 1
        return by_run, chosen, np.append(0, last + 1)

    @property
    def steps(self) -> list[int]:
        """The number of steps of each member, if they make several."""
        batch = self.batch
        return [] if batch is None else [-(-len(rows) // batch) for rows in self.rows or ()]

    def turns(self) -> Iterator[MemberFeeds]:
        """Yield the feeds of each step, of the members that make so many."""
        assert self.rows is not None and self.batch is not None
        for start in range(0, max(map(len, self.rows)), self.batch):
            left = [i for i, rows in enumerate(self.rows) if start < len(rows)]
            yield self._replace(
                own={name: array[left] for name, array in self.own.items()},
                rows=[self.rows[i][start : start + self.batch] for i in left],
                members=[self.members[i] for i in left],
                batch=None,
            )

    @property
    def kind(self) -> tuple[Any, ...]:
        """The names, and what else two calls have in common if the same code can feed them."""
        names = (*self.shared, *self.own)
        return names, len(self.own), self.rows is None, tuple(self.members), tuple(self.steps)

    def flat(self) -> dict[str, Any]:
        """Return arrays without the axis that numbers the members."""
        own = {name: array.reshape(-1, *array.shape[2:]) for name, array in self.own.items()}
        return {**self.shared, **own}

    def _by_rows(self, arrays: Mapping[str, Array]) -> dict[str, Spread]:
        """Return arrays of the rows of all members, one member after the other."""
        types = self.types
        return {name: Spread(x, "first", types[name].nbytes(1)) for name, x in arrays.items()}

    def at(self, number: int) -> dict[str, Any]:
        """Return the feeds of one of the members."""
        found = {**self.shared, **{name: array[number] for name, array in self.own.items()}}
        if self.rows is None:
            return found
        return {name: self._gathered(name, found[name], number) for name in found}

    def _gathered(self, name: str, value: Any, number: int) -> Any:
        """Return the rows of an array that a member takes; raise FeedError if it has not them."""
        assert self.rows is not None
        type, chosen = self.types.get(name), self.rows[number]
        if type is None or not type.batched:
            return value
        axis, array = RowAxis.of(type), value
        if not isinstance(value, list):
            array = array_of(_named(name), value, FeedError)
        if axis is None:
            raise FeedError(
                f"rows: input {name!r} has pairs of rows, of which none can be chosen",
                hint="feed each member its own array instead",
            )
        fits = isinstance(array, list) or array.ndim == type.rank
        count = len(array) if isinstance(array, list) else array.shape[axis.axis] // axis.factor
        if fits and chosen.size and not 0 <= chosen.min() <= chosen.max() < count:
            wrong = chosen.min() if chosen.min() < 0 else chosen.max()
            raise FeedError(
                f"rows: member {self.members[number]} takes row {wrong}, "
                f"{name!r} has rows 0 to {count - 1}",
                hint="rows are numbered from 0 in the arrays that are fed",
            )
        return rows_of(array, type, chosen) if fits else array


def has_plain_rows(type: TensorType) -> bool:
    """Return whether the rows of a type follow one another, if it has rows."""
    return type.shape[:1] == (N,) or not type.batched


def _named(name: str) -> str:
    return f"input {name!r}"


def _is_own(type: TensorType | None, value: Any) -> bool:
    """Return whether a feed has an axis more than declared."""
    try:
        return type is not None and np.ndim(value) == type.rank + 1
    except ValueError:  # rows of different lengths
        return False


def _chosen(rows: Any, members: Sequence[int]) -> list[Rows]:
    """Return the rows that each member takes; raise FeedError if they are not lists of numbers."""
    lists = rows if isinstance(rows, (Sequence, np.ndarray)) else []
    if len(lists) != len(members):
        raise FeedError(
            f"rows has {len(lists)} lists for {len(members)} members",
            hint="rows=[indices of the first member, of the second, ...]",
        )
    found = list(map(np.asarray, lists))
    for member, chosen in zip(members, found, strict=True):
        if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
            raise FeedError(
                f"rows: member {member} has {chosen.dtype}{list(chosen.shape)}, "
                "not a list of the numbers of rows",
                hint="rows=[indices of the first member, of the second, ...], each at least one",
            )
    wide = np.dtype(np.int64)
    return [chosen if chosen.dtype is wide else chosen.astype(wide) for chosen in found]
