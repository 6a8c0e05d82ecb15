"""The ranks that train one model together, as the loop of training sees them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import TypeVar

from graphc.distributed.communicator import Communicator, Solo
from graphc.errors import RankError
from graphc.executor import Executor
from graphc.profile.times import program_name
from graphc.train.position import Position
from graphc.version import __version__

T = TypeVar("T")


class Ranks:
    """Start with one state, and stay with it; what only one of them does, rank 0 does."""

    def __init__(self, ex: Executor) -> None:
        self._ex = ex
        exchange = ex.exchange
        self.all: Communicator = Solo() if exchange is None else exchange.communicator
        self.several = self.all.size > 1

    @property
    def first(self) -> bool:
        """Whether this rank writes the files and shows the progress."""
        return self.all.rank == 0

    def from_first(self, make: Callable[[], T]) -> T | None:
        """What rank 0 makes, on all ranks."""
        made = make() if self.first else None
        return self.all.gather(made)[0] if self.several else made

    def begin(self, steps: int) -> None:
        """Take over rank 0's state; RankError where ranks run other programs or other steps."""
        if not self.several:
            return
        plan = self._ex.plan
        text = (
            f"{__version__} {steps} {plan.rows} {plan.shards} {plan.programs[program_name(plan)]}"
        )
        said = self.all.gather(blake2b(text.encode()).hexdigest())
        odd = [rank for rank, digest in enumerate(said) if digest != said[0]]
        if odd:
            raise RankError(
                f"{_named(odd)} would not run the same steps as rank 0",
                hint="all ranks take the same model, options and version of graphc, on processors "
                "of one kind",
            )
        self._ex.state.lock(self._broadcast)

    def _broadcast(self) -> None:
        """Let all ranks have the state of rank 0."""
        state = self._ex.state
        arrays = [state.arrays[name].reshape(-1) for name in self._ex.plan.state_nodes]
        calls = (partial(self.all.broadcast, array) for array in arrays)
        state.lock.write(calls, broken=state.broken)

    def check(self, at: Position) -> None:
        """RankError when the ranks' states differ, which a broken memory or network can do."""
        if not self.several:
            return
        arrays = self._ex.state.arrays
        mine = {name: _digest(arrays[name].data) for name in self._ex.plan.state_nodes}
        said = self.all.gather(mine)
        odd = [rank for rank, digests in enumerate(said) if digests != said[0]]
        if odd:
            name = next(k for k, digest in said[0].items() if said[odd[0]][k] != digest)
            raise RankError(
                f"after step {at.steps} {name!r} is not the same on {_named(odd)} as on rank 0",
                hint="resume from the last checkpoint; if it happens again, look at that machine",
            )


def _digest(data: memoryview) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _named(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
