"""The agreement of ranks: that they are about to do the same, and that none of them has failed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, TypeVar

from graphc.base import __version__
from graphc.base.errors import GraphError, RankError
from graphc.compiler.plan import Plan, program_name
from graphc.ir.text.graph import graph_text
from graphc.runtime.distributed.communicator import Communicator

T = TypeVar("T")


def on_all_ranks(ranks: Communicator, work: Callable[[], T]) -> list[T]:
    """Return what `work` gives on each rank.

    If it fails on one, all raise: that rank its own error, the others RankError.  `work` may
    exchange by this function, too.
    """
    found: T | None = None
    error: Exception | None = None
    try:
        found = work()
    except RankError:  # the other ranks know of it, or are gone
        raise
    except Exception as caught:
        error = caught
    gathered = ranks.gather((found, None if error is None else _text(error)))
    if error is not None:
        raise error
    for rank, (_, text) in enumerate(gathered):
        if text is not None:
            raise RankError(f"rank {rank}: {text}", hint="no rank has gone on")
    return [one for one, _ in gathered]


def _text(error: Exception) -> str:
    return error.sentence if isinstance(error, GraphError) else repr(error)


def check_equal(ranks: Communicator, plan: Plan, choices: Mapping[str, Any]) -> None:
    """Raise RankError on all ranks if they differ, with the ranks and the differences.

    `choices` are compared, and with them the net and the programs.
    """
    mine = {
        "version of graphc": __version__,
        "net": digest(graph_text(plan.declared).encode()),
        "optimizer": ", ".join(type(rule.optimizer).__name__ for rule in plan.rules),
        "rows of a plan": str(plan.rows),
        "shards": str(plan.shards),
        **dict(_flat(choices)),
        _PROGRAM: digest(str(plan.programs[program_name(plan)]).encode()),
    }
    gathered = ranks.gather(mine)
    groups: dict[str, list[int]] = {}
    for rank, theirs in enumerate(gathered):
        if theirs != gathered[0]:
            groups.setdefault(_differences(theirs, gathered[0]), []).append(rank)
    if groups:
        raise RankError(
            "; ".join(f"{rank_list(odd)} {text}" for text, odd in [*groups.items()][:3]),
            hint="all ranks take the same model, data, options and version of graphc, on "
            "processors of one kind",
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


def digest(data: memoryview | bytes) -> bytes:
    """Return a short digest of bytes."""
    return blake2b(data, digest_size=16).digest()


def rank_list(ranks: list[int]) -> str:
    """Return ranks in words: "ranks 1, 3"."""
    return f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
