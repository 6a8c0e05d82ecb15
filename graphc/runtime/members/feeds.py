"""The feeds of a population: arrays that all members share, one for each, and rows to gather."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from graphc.backends.backend import Rows, SideBySide, Spread
from graphc.base.arguments import array_of
from graphc.base.errors import FeedError
from graphc.compiler.plan import Plan
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, TensorType
from graphc.kernels.program import Program
from graphc.runtime.feeds import FeedCheck
from graphc.runtime.row_axis import RowAxis, has_plain_rows, rows_of

By = Literal["none", "first", "chosen"]
FEW = 16
"""The times that an array has more rows than are chosen, up to which it is checked, not copied."""


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
    """The rows of a run, of which each member makes as many as its rows need; None for one."""

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

    @property
    def steps(self) -> list[int]:
        """The number of runs of each member, if they make several."""
        batch = self.batch
        return [] if batch is None else [-(-len(rows) // batch) for rows in self.rows or ()]

    @property
    def numbers(self) -> list[int]:
        """The number of the member of each run."""
        found: list[int] = np.repeat(self.members, self.steps or 1).tolist()
        return found

    @property
    def kind(self) -> tuple[Any, ...]:
        """The names, and what else two calls have in common if the same code can feed them."""
        names = (*self.shared, *self.own)
        return names, len(self.own), self.rows is None, tuple(self.members), tuple(self.steps)

    def held(self, own: range) -> MemberFeeds:
        """Return the feeds of those members whose numbers are among these."""
        at = [place for place, member in enumerate(self.members) if member in own]
        arrays = {name: array[at] for name, array in self.own.items()}
        rows = None if self.rows is None else [self.rows[place] for place in at]
        members = [self.members[place] for place in at]
        return self._replace(own=arrays, rows=rows, members=members)

    def note(self, error: FeedError, member: int) -> None:
        """Add the number of a member to an error about its feeds, unless all are fed alike."""
        if not self.same:
            error.add_note(f"in the feeds of member {member}")

    # ------------------------------------------------------------------ runs side by side

    def spread(self, program: Program, check: FeedCheck) -> SideBySide | None:
        """Return runs side by side, without states and results; None to feed members one by one.

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

    def _of_one_array(self, check: FeedCheck) -> SideBySide | None:
        """Return the runs of members that share arrays, or have equal parts of one."""
        flat, count = self.flat(), len(self.members)
        own = {name: flat.pop(name) for name in self.own}
        shared, rows = self._spread(flat, check, "none")
        parts, total = self._spread(own, check, "first")
        if not any(self.types[name].batched for name in flat):
            rows = total // count
        if own and (total != count * rows or not all(self.types[k].batched for k in own)):
            return None
        return SideBySide(np.full(count, rows), shared | parts, {})

    def _taken(self, program: Program, check: FeedCheck) -> SideBySide | None:
        """Return the runs of members that take rows: gathered by each, if that is possible."""
        rows, chosen, begin = self.chosen()
        first, last = int(chosen.min()), int(chosen.max())
        whole, taken, gathered = dict[str, Any](), dict[str, Any](), dict[str, Spread]()
        for name, array in self.shared.items():
            type = self.types[name]
            if not type.batched:
                whole[name] = array
                continue
            if not isinstance(array, np.ndarray) or first < 0 or last >= len(array):
                return None
            plain = array.flags.c_contiguous and array.flags.aligned and array.dtype == type.dtype
            if plain and (name not in program.index_bounds or len(array) <= FEW * len(chosen)):
                gathered |= self._spread({name: array}, check, "chosen")[0]
            else:
                taken[name] = np.take(array, chosen, 0)
        shared, _ = self._spread(whole, check, "none")
        parts, total = self._spread(taken, check, "first")
        if self.own or (taken and total != len(chosen)):
            return None
        return SideBySide(rows, shared | gathered | parts, {}, chosen=chosen, begin=begin)

    def _spread(
        self, arrays: Mapping[str, Any], check: FeedCheck, by: By
    ) -> tuple[dict[str, Spread], int]:
        """Return arrays in the dtypes of their inputs, spread over runs, and their number of rows.

        Raise FeedError for an array that does not fit.
        """
        found, rows = check.arrays(arrays, optional=True, limit=False)
        strides = {name: 0 if by == "none" else self.types[name].nbytes(1) for name in found}
        return {name: Spread(x, by, strides[name]) for name, x in found.items()}, rows

    def chosen(self) -> tuple[Rows, Rows, Rows | None]:
        """Return the number of rows of each run, these of all one by one, and `SideBySide.begin`.

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

    def flat(self) -> dict[str, Any]:
        """Return arrays without the axis that numbers the members."""
        own = {name: array.reshape(-1, *array.shape[2:]) for name, array in self.own.items()}
        return {**self.shared, **own}

    # ------------------------------------------------------------------ runs in turns

    def runs(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number of the member and the feeds of each run, in the order of `numbers`.

        Raise FeedError for rows that an array has not.
        """
        for i, member in enumerate(self.members):
            whole = {**self.shared, **{name: array[i] for name, array in self.own.items()}}
            if self.rows is None:
                yield member, whole
                continue
            size = self.batch or len(self.rows[i])
            for start in range(0, len(self.rows[i]), size):
                rows = self.rows[i][start : start + size]
                yield member, {k: self._gathered(k, x, rows, member) for k, x in whole.items()}

    def _gathered(self, name: str, value: Any, rows: Rows, member: int) -> Any:
        """Return the rows of an array that a member takes; raise FeedError if it has not them."""
        type, array = self.types.get(name), value
        if type is None or not type.batched:
            return value
        axis = RowAxis.of(type)
        if not isinstance(value, list):
            array = array_of(_named(name), value, FeedError)
        if axis is None:
            raise FeedError(
                f"rows: input {name!r} has pairs of rows, of which none can be chosen",
                hint="feed each member its own array instead",
            )
        if not isinstance(array, list) and array.ndim != type.rank:
            return array
        count = len(array) if isinstance(array, list) else array.shape[axis.axis] // axis.factor
        if rows.size and not 0 <= rows.min() <= rows.max() < count:
            wrong = rows.min() if rows.min() < 0 else rows.max()
            raise FeedError(
                f"rows: member {member} takes row {wrong}, {name!r} has rows 0 to {count - 1}",
                hint="rows are numbered from 0 in the arrays that are fed",
            )
        return rows_of(array, type, rows)


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
    hint = "rows=[indices of the first member, of the second, ...]"
    lists = rows if isinstance(rows, (Sequence, np.ndarray)) else []
    if len(lists) != len(members):
        raise FeedError(f"rows has {len(lists)} lists for {len(members)} members", hint=hint)
    found = list(map(np.asarray, lists))
    for member, chosen in zip(members, found, strict=True):
        if chosen.ndim != 1 or not len(chosen) or chosen.dtype.kind not in "iu":
            raise FeedError(
                f"rows: member {member} has {chosen.dtype}{list(chosen.shape)}, "
                "not a list of the numbers of rows",
                hint=f"{hint}, each at least one",
            )
    wide = np.dtype(np.int64)
    return [chosen if chosen.dtype is wide else chosen.astype(wide) for chosen in found]
