"""A batch cut into shards: which rows each has, and what it is fed besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.errors import FeedError
from graphc.loc import caller_loc
from graphc.loss_share import SUM, WEIGHT
from graphc.op import Array
from graphc.ops.exchange import ShardInput
from graphc.plan import Plan, Program
from graphc.runtime.feeds import FeedCheck
from graphc.runtime.row_axis import RowAxis

SHARE = "shard.share."


@dataclass(frozen=True, slots=True)
class Part:
    """The rows of a shard by input, and the numbers about it."""

    feeds: dict[str, Array]
    numbers: dict[str, float]

    def put(self, feeds: Mapping[str, Array]) -> None:
        """Write the numbers that a program reads."""
        for name, number in self.numbers.items():
            if name in feeds:
                feeds[name][...] = number


class Shards:
    """Cuts batches into the shards of one rank: near-equal runs of rows, the larger ones first.

    Where there are fewer rows than shards, the shards without any run on the first row, and
    count for nothing.
    """

    def __init__(self, plan: Plan, program: Program, check: FeedCheck, rank: int) -> None:
        self._plan, self._check, self._shards = plan, check, plan.shards or 1
        self._mine = range(rank * plan.lanes, (rank + 1) * plan.lanes)
        self._axes = {name: RowAxis.of(plan.declared[name].type) for name in plan.input_names}
        self._numbers = [node.name for node in program.graph if isinstance(node.op, ShardInput)]

    def parts(self, feeds: Mapping[str, Any]) -> Iterator[Part]:
        """This rank's shards of a batch in order; FeedError when it has too many rows."""
        arrays, n = self._check.counted(feeds)
        if not 0 < n <= self._plan.rows:
            raise FeedError(
                f"the batch has {n} rows, a step of the plan takes 1 to {self._plan.rows}",
                loc=caller_loc(),
                hint=f"compile with batch={n}" if n else "a run takes at least one row",
            )
        for shard in self._mine:
            start, stop = bounds(n, self._shards, shard)
            rows = (start, stop) if stop > start else (0, 1)
            numbers = {k: self._number(k, feeds, (start, stop), n) for k in self._numbers}
            part = {name: self._rows_of(name, array, *rows) for name, array in arrays.items()}
            yield Part(part, numbers)

    def _rows_of(self, name: str, array: Array, start: int, stop: int) -> Array:
        axis = self._axes[name]
        return array if axis is None else axis.rows(array, start, stop)

    def _number(self, name: str, feeds: Mapping[str, Any], rows: tuple[int, int], n: int) -> float:
        """The first row of the shard, or its share of the rows or of the weights.

        Of what is summed over rows the share is 1, or 0 without any.
        """
        start, stop = rows
        if not name.startswith(SHARE):
            return start
        kind = name.removeprefix(SHARE).rpartition(".")[0]
        if kind == SUM:
            return float(stop > start)
        if not kind.startswith(WEIGHT):
            return (stop - start) / n
        weights = np.asarray(feeds[kind.removeprefix(WEIGHT)], np.float64)
        with np.errstate(all="ignore"):  # without any weight the loss is not defined
            return float(weights[start:stop].sum() / weights.sum())


def rank_rows(plan: Plan, rank: int, n: int) -> tuple[int, int]:
    """The rows of a batch of `n` that the shards of a rank run on, the first to before the last."""
    shards, first = plan.shards or 1, rank * plan.lanes
    start, stop = bounds(n, shards, first)[0], bounds(n, shards, first + plan.lanes - 1)[1]
    return (start, stop) if stop - start >= plan.lanes else (0, stop)


def bounds(n: int, shards: int, shard: int) -> tuple[int, int]:
    """The rows of a shard, from the first to before the last, of a batch of `n`."""
    size, more = divmod(n, shards)
    start = shard * size + min(shard, more)
    return start, start + size + (shard < more)
