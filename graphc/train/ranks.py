"""The ranks that train one model together, as the training loop uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from graphc.base.errors import RankError
from graphc.runtime.distributed.agreement import check_equal, digest, rank_list
from graphc.runtime.distributed.communicator import Communicator, Solo
from graphc.runtime.executor import Executor
from graphc.train.history import Position

T = TypeVar("T")


class Ranks:
    """The ranks of a run: their states stay equal, and rank 0 alone writes files."""

    def __init__(self, ex: Executor) -> None:
        self._ex = ex
        self.all: Communicator = Solo() if ex.sharded is None else ex.sharded.communicator
        self.several = self.all.size > 1

    @property
    def first(self) -> bool:
        """True if this rank writes the files and shows the progress."""
        return self.all.rank == 0

    def from_first(self, make: Callable[[], T]) -> T | None:
        """Make an object on rank 0 and return it on all ranks."""
        made = make() if self.first else None
        return self.all.gather(made)[0] if self.several else made

    def check_equal_runs(self, choices: Mapping[str, Any]) -> None:
        """Raise RankError on all ranks if their runs differ, with the ranks and the differences.

        `choices` are the options of the run; the net and the program are compared with them.
        """
        seed = {"seed of the executor": self._ex.state.seed}
        check_equal(self.all, self._ex.plan, {**seed, **choices})

    def begin(self) -> None:
        """Copy rank 0's state to all ranks."""
        if not self.several:
            return
        self._ex.state.lock(self._broadcast)

    def _broadcast(self) -> None:
        """Send the state of rank 0 to all ranks."""
        state = self._ex.state
        arrays = [state.arrays[name].reshape(-1) for name in self._ex.plan.state_nodes]
        calls = (partial(self.all.broadcast, array) for array in arrays)
        state.lock.write(calls, broken=state.broken)

    def check(self, at: Position) -> None:
        """Raise RankError if the ranks' states differ, as after a fault of memory or network."""
        if not self.several:
            return
        arrays = self._ex.state.arrays
        mine = {name: digest(arrays[name].data) for name in self._ex.plan.state_nodes}
        gathered = self.all.gather(mine)
        odd = [rank for rank, digests in enumerate(gathered) if digests != gathered[0]]
        if odd:
            name = next(k for k, digest in gathered[0].items() if gathered[odd[0]][k] != digest)
            raise RankError(
                f"after step {at.steps} {name!r} is not the same on {rank_list(odd)} as on rank 0",
                hint="resume from the last checkpoint; if it happens again, look at that machine",
            )
