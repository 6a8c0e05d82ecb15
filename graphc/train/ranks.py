"""The ranks that train one model together, as the training loop uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, TypeVar

from graphc.base import __version__
from graphc.base.errors import RankError
from graphc.ir.text.graph import graph_text
from graphc.runtime.distributed.communicator import Communicator, Solo
from graphc.runtime.executor import Executor
from graphc.train.history import Position
from graphc.train.nonfinite import step_program

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
        plan = self._ex.plan
        mine = {
            "version of graphc": __version__,
            "net": _digest(graph_text(plan.declared).encode()),
            "optimizer": ", ".join(type(rule.optimizer).__name__ for rule in plan.rules),
            "rows of a plan": str(plan.rows),
            "shards": str(plan.shards),
            "seed of the executor": str(self._ex.state.seed),
            **dict(_flat(choices)),
            _PROGRAM: _digest(str(plan.programs[step_program(plan)]).encode()),
        }
        gathered = self.all.gather(mine)
        groups: dict[str, list[int]] = {}
        for rank, theirs in enumerate(gathered):
            if theirs != gathered[0]:
                groups.setdefault(_differences(theirs, gathered[0]), []).append(rank)
        if groups:
            raise RankError(
                "; ".join(f"{_rank_list(ranks)} {text}" for text, ranks in [*groups.items()][:3]),
                hint="all ranks take the same model, data, options and version of graphc, on "
                "processors of one kind",
            )

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
        mine = {name: _digest(arrays[name].data) for name in self._ex.plan.state_nodes}
        gathered = self.all.gather(mine)
        odd = [rank for rank, digests in enumerate(gathered) if digests != gathered[0]]
        if odd:
            name = next(k for k, digest in gathered[0].items() if gathered[odd[0]][k] != digest)
            raise RankError(
                f"after step {at.steps} {name!r} is not the same on {_rank_list(odd)} as on rank 0",
                hint="resume from the last checkpoint; if it happens again, look at that machine",
            )


_PROGRAM = "compiled program"
_NUMBERS = "numbers of "
_SHOWN = 60
"""The length of the longest text of a choice that an error repeats."""


def _flat(choices: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield choices by name as text; data in words, and as a digest of their numbers."""
    for name, value in choices.items():
        if not isinstance(value, Mapping):
            yield name, str(value)
        elif "digest" in value:
            yield name, value["described"]
            yield _NUMBERS + name, value["digest"]
        else:
            yield from _flat({f"{name} {key}": inner for key, inner in value.items()})


def _differences(theirs: Mapping[str, Any], first: Mapping[str, Any]) -> str:
    """Return the differences of a rank from rank 0, without consequences of others."""
    names = [name for name in {**first, **theirs} if theirs.get(name) != first.get(name)]
    implied = {_NUMBERS + name for name in names}
    causes = [name for name in names if name not in implied and name != _PROGRAM] or names
    return "differs from rank 0 in " + ", ".join(
        _difference(name, theirs.get(name), first.get(name)) for name in causes
    )


def _difference(name: str, here: Any, there: Any) -> str:
    shown = all(isinstance(value, str) and len(value) <= _SHOWN for value in (here, there))
    return f"{name} ({here}, not {there})" if shown else name


def _digest(data: memoryview | bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _rank_list(ranks: list[int]) -> str:
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
