"""Limits compilation to the first passes and the first rewrites, by environment variables.

    GRAPHC_PASS_LIMIT=3      the first three of the passes that can be left out
    GRAPHC_PASS_LIMIT=3.17   and of the fourth, in every program, its first 17 rewrites
    GRAPHC_PASS_LOG=file     a line of JSON for each compilation, and for each cut pass

Passes that a plan cannot do without always run.  The purpose is to bisect a list of passes that
shows a symptom, as `graphc bisect` does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError
from graphc.check.validation.rewrites import between, rewrites
from graphc.ir.graph import Graph

if TYPE_CHECKING:
    from passes.pass_list import PassList
    from passes.pipeline import Pass, Preserves

LIMIT, LOG = "GRAPHC_PASS_LIMIT", "GRAPHC_PASS_LOG"


@dataclass(frozen=True)
class FirstRewrites:
    """A pass of which only the first `count` rewrites are made."""

    step: Pass
    count: int
    log: str | None = None

    @property
    def name(self) -> str:
        """The name of the whole pass."""
        from passes.pipeline import name_of

        return name_of(self.step)

    @property
    def preserves(self) -> Preserves:
        """The class of what the whole pass preserves."""
        from passes.pipeline import preserves_of

        return preserves_of(self.step)

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph with the first `count` of the pass's rewrites."""
        made = self.step(graph)
        changes = rewrites(graph, made)
        last = str(changes[self.count - 1]) if 0 < self.count <= len(changes) else None
        _write(self.log, {"rewrites": len(changes), "last": last})
        return between(graph, made, self.count) if self.count < len(changes) else made


def from_environment(passes: PassList) -> PassList:
    """Return the list as GRAPHC_PASS_LIMIT limits it; raise GraphError if that is not a limit."""
    log = os.environ.get(LOG)
    _write(log, {"passes": optional(passes)})
    text = os.environ.get(LIMIT)
    return passes if text is None else limited(passes, text, log)


def optional(passes: PassList) -> list[str]:
    """Return the names of the passes that a limit counts, in order."""
    return [name for name in passes.names if name not in passes.required]


def limited(passes: PassList, limit: str, log: str | None = None) -> PassList:
    """Return the list up to a limit such as "3" or "3.17"; raise GraphError for another text."""
    from passes.pass_list import PassList

    whole, _, part = limit.partition(".")
    if not whole.isdecimal() or not (part.isdecimal() or part == ""):
        raise GraphError(
            f"{LIMIT} is {limit!r}, not a number of passes",
            hint="3 for the first three passes, 3.17 for 17 rewrites of the fourth, too",
        )
    entries: list[Pass | str] = []
    number = 0
    for entry, name in _pairs(passes):
        if name in passes.required:
            entries.append(entry)
            continue
        if number < int(whole):
            entries.append(entry)
        elif number == int(whole) and part and not isinstance(entry, str):
            entries.append(FirstRewrites(entry, int(part), log))
        number += 1
    return PassList(tuple(entries), passes.required)


def _pairs(passes: PassList) -> list[tuple[Pass | str, str]]:
    return list(zip(passes, passes.names, strict=True))


def _write(path: str | None, record: Mapping[str, Any]) -> None:
    if path is not None:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
