"""Bisection: finds the first pass, and the first rewrite of it, that shows a symptom.

Compilation is limited to the first passes and the first rewrites, by environment variables:

    GRAPHC_PASS_LIMIT=3      the first three of the passes that can be left out
    GRAPHC_PASS_LIMIT=3.17   and of the fourth, in every program, its first 17 rewrites
    GRAPHC_PASS_LOG=file     a line of JSON for each compilation, and for each cut pass

Passes that a plan cannot do without always run.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from graphc.backends.backend import PORTABLE
from graphc.base.errors import GraphError
from graphc.check.central_differences import in_float64
from graphc.check.validation.explain import between, halved, rewrites
from graphc.check.validation.run import (
    draws_for,
    largest,
    results_of,
    source_arrays,
    values_of_arrays,
)
from graphc.compiler.compile import compile
from graphc.declare.optim.optimizer import Optimizer
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from passes.contract import Pass, Preserves, name_of, preserves_of
from passes.pipeline import PassList

LIMIT, LOG = "GRAPHC_PASS_LIMIT", "GRAPHC_PASS_LOG"
Record = dict[str, Any]


# ------------------------------------------------------------------ limits


def _log(record: Record) -> None:
    """Append a record to the file that GRAPHC_PASS_LOG names, if it is set."""
    path = os.environ.get(LOG)
    if path is not None:
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


@dataclass(frozen=True)
class FirstRewrites:
    """A pass of which only the first `count` rewrites are made."""

    step: Pass
    count: int
    note: Callable[[Record], object] = _log
    """Called with the number of rewrites, and the last that was made, each time the pass runs."""

    @property
    def name(self) -> str:
        """The name of the whole pass."""
        return name_of(self.step)

    @property
    def preserves(self) -> Preserves:
        """The class of what the whole pass preserves."""
        return preserves_of(self.step)

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph with the first `count` of the pass's rewrites."""
        made = self.step(graph)
        changes = rewrites(graph, made)
        last = str(changes[self.count - 1]) if 0 < self.count <= len(changes) else None
        self.note({"rewrites": len(changes), "last": last})
        return between(graph, made, self.count) if self.count < len(changes) else made


def from_environment(passes: PassList) -> PassList:
    """Return the list as GRAPHC_PASS_LIMIT limits it; raise GraphError if that is not a limit."""
    _log({"passes": optional(passes)})
    text = os.environ.get(LIMIT)
    return passes if text is None else limited(passes, text)


def optional(passes: PassList) -> list[str]:
    """Return the names of the passes that a limit counts, in order."""
    return [name for name in passes.names if name not in passes.required]


def limited(passes: PassList, limit: str, note: Callable[[Record], object] = _log) -> PassList:
    """Return the list up to a limit such as "3" or "3.17"; raise GraphError for another text."""
    whole, _, part = limit.partition(".")
    if not whole.isdecimal() or not (part.isdecimal() or part == ""):
        raise GraphError(
            f"{LIMIT} is {limit!r}, not a number of passes",
            hint="3 for the first three passes, 3.17 for 17 rewrites of the fourth, too",
        )
    entries: list[Pass | str] = []
    number = 0
    for entry, name in zip(passes, passes.names, strict=True):
        if name in passes.required:
            entries.append(entry)
            continue
        if number < int(whole):
            entries.append(entry)
        elif number == int(whole) and part and not isinstance(entry, str):
            entries.append(FirstRewrites(entry, int(part), note))
        number += 1
    return PassList(tuple(entries), passes.required)


# ------------------------------------------------------------------ bisection


@dataclass(frozen=True)
class Tried:
    """The observation with some passes."""

    bad: bool
    report: str
    """The symptom, or that there is none, in a sentence."""
    passes: Sequence[str] = ()
    """The passes that can be left out, in order."""
    rewrites: int = 0
    """The number of rewrites of the cut pass, in the program with the most."""
    last: Sequence[str] = ()
    """The last rewrite that was made, in each program."""


def _tried(
    symptom: str | None, well: str, passes: Sequence[str], records: Sequence[Record]
) -> Tried:
    """Return the result of a try, with what its compilations logged about the cut pass."""
    return Tried(
        symptom is not None,
        symptom or well,
        passes,
        max((record.get("rewrites", 0) for record in records), default=0),
        [record["last"] for record in records if record.get("last")],
    )


class NotThePasses(GraphError):
    """The error for a symptom that occurs without passes, or if no pass can be left out."""


Symptom = Callable[[str | None], Tried]
"""Compiles with the first passes, up to a limit or all, and says whether the symptom shows."""


@dataclass(frozen=True)
class Found:
    """The pass and the rewrite with which a symptom begins."""

    report: str
    name: str
    position: int
    """The number of the pass, from 1, among passes that can be left out."""
    count: int
    good: str
    """The last limit without the symptom, for GRAPHC_PASS_LIMIT."""
    bad: str
    """The first limit with the symptom."""
    rewrite: tuple[str, ...] = ()
    """The rewrite, as it is in each program; empty if the pass as a whole is at fault."""


def bisect(symptom: Symptom) -> Found | None:
    """Return the first bad pass and rewrite; None if even all passes do not show the symptom.

    Raise NotThePasses if the symptom occurs without any of the passes that can be left out.
    """
    everything = symptom(None)
    if not everything.bad:
        return None
    names = everything.passes
    if not names:
        raise NotThePasses(
            f"{everything.report}, but no pass was run that can be left out",
            hint="the command must compile a net with graphc",
        )
    without = symptom("0")
    if without.bad:
        raise NotThePasses(
            f"without passes it is the same: {without.report}",
            hint="the passes that can be left out are not the cause",
        )
    position = halved(lambda count: symptom(str(count)).bad, len(names))
    good, bad = str(position - 1), str(position)
    whole = symptom(f"{position - 1}.{10**9}")
    rewrite: tuple[str, ...] = ()
    if whole.bad and whole.rewrites and not symptom(f"{position - 1}.0").bad:
        number = halved(lambda count: symptom(f"{position - 1}.{count}").bad, whole.rewrites)
        good, bad = f"{position - 1}.{number - 1}", f"{position - 1}.{number}"
        rewrite = tuple(dict.fromkeys(symptom(bad).last))
    return Found(everything.report, names[position - 1], position, len(names), good, bad, rewrite)


# ------------------------------------------------------------------ symptoms


@dataclass(frozen=True)
class Command:
    """A user's command, which is bad if its exit status is not 0."""

    words: Sequence[str]
    backend: str | None = None
    """The backend on which it runs, if it does not choose one itself."""

    @classmethod
    def of(cls, text: str) -> Command:
        """Return the command of a shell's line; `python` is the running interpreter."""
        words = shlex.split(text)
        if not words:
            raise GraphError("the command is empty", hint='--run "python train.py"')
        return cls([sys.executable if words[0] == "python" else words[0], *words[1:]])

    def __call__(self, limit: str | None) -> Tried:
        """Run it with the limit in its environment; raise GraphError if it cannot be started."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            environment = {k: v for k, v in os.environ.items() if k != LIMIT} | {LOG: str(log)}
            if limit is not None:
                environment[LIMIT] = limit
            if self.backend is not None:
                environment["GRAPHC_BACKEND"] = self.backend
            try:
                done = subprocess.run(
                    self.words, env=environment, capture_output=True, check=False, text=True
                )
            except OSError as error:
                raise GraphError(f"cannot run {self.words[0]!r}: {error.strerror}") from None
            lines = log.read_text("utf-8").splitlines() if log.exists() else []
        records = [json.loads(line) for line in lines]
        passes = max((record.get("passes", ()) for record in records), key=len, default=())
        last = (done.stderr or done.stdout).strip().rpartition("\n")[2]
        text = f"the exit status is {done.returncode}{': ' if last else ''}{last}"
        return _tried(text if done.returncode else None, text, passes, records)


@dataclass(frozen=True)
class Values:
    """The symptom of results that differ from those without passes, in float64, or are not finite.

    The results are outputs, gradients and next states.  `what` is `loss`, `output:NAME`,
    `gradient:NAME` or `update:NAME`; None is all of them.  `nonfinite` instead looks, in the net's
    own dtypes, for a number that is not finite.
    """

    graph: Graph
    rows: int
    passes: PassList
    optimizer: Optimizer | None = None
    what: str | None = None
    tolerance: float = 1e-6
    """The part of a result's largest number by which one of its numbers may differ."""
    feeds: Mapping[str, Any] | None = None
    base: dict[str, Array] = field(default_factory=dict)

    def __call__(self, limit: str | None) -> Tried:
        """Compile with the passes up to a limit, run, and compare with the run without passes."""
        records: list[Record] = []
        passes = self.passes if limit is None else limited(self.passes, limit, records.append)
        found = self._results(passes)
        if not self.base:
            self.base.update(found if limit == "0" else self._results(limited(self.passes, "0")))
        return _tried(self._fault(found), "nothing is wrong", optional(self.passes), records)

    @property
    def nonfinite(self) -> bool:
        """True if numbers that are not finite are the symptom."""
        return self.what == "nonfinite"

    def _results(self, passes: PassList) -> dict[str, Array]:
        """Return the chosen results of all programs, compiled with these passes."""
        graph = self.graph if self.nonfinite else in_float64(self.graph)
        plan = compile(
            graph,
            batch=self.rows,
            optimizer=self.optimizer,
            wrt=self._wrt(graph),
            passes=passes,
            backend=PORTABLE,
        )
        (draw,) = draws_for(self.graph, [self.rows], given=self.feeds)
        found: dict[str, Array] = {}
        for program, records in plan.graphs.items():
            made = records[-1].graph
            values = values_of_arrays(made, self.rows, source_arrays(made, draw))
            results = results_of(made, values)
            found |= {f"{name} ({program})": value for name, value in results.items()}
        chosen = {name: value for name, value in found.items() if self._asked(name)}
        if not chosen:
            pairs = (name.partition(" (")[0].split(" ", 1) for name in found)
            names = dict.fromkeys(f"{kind}:{key}" for kind, key in pairs if kind != "mask")
            hint = f"there are loss, nonfinite, {', '.join(names)}"
            raise GraphError(f"there is no {self.what!r}", hint=hint)
        return chosen

    def _wrt(self, graph: Graph) -> list[str] | None:
        """Return the parameters, and the node whose gradient is asked for; None for the default."""
        kind, _, name = (self.what or "").partition(":")
        if kind != "gradient" or name not in graph or graph[name].op.name == "parameter":
            return None
        return [*(n.name for n in graph if n.op.name == "parameter"), name]

    def _asked(self, name: str) -> bool:
        """Return whether the symptom is about this result."""
        kind, _, rest = name.partition(" ")
        if kind == "mask":
            return False
        if self.what is None or self.nonfinite:
            return True
        key = rest.partition(" (")[0]
        if self.what == "loss":
            return kind == "output" and key in self.graph.losses
        return self.what == f"{kind}:{key}"

    def _fault(self, found: Mapping[str, Array]) -> str | None:
        """Return the first result that shows the symptom, and how; None if none does."""
        for name, value in self.base.items():
            if name not in found:
                return f"{name} is gone"
            if self.nonfinite:
                if np.isfinite(value).all() and not np.isfinite(found[name]).all():
                    return f"{name} is not finite"
                continue
            gap = np.abs(found[name].astype(np.float64) - value.astype(np.float64))
            worst = float(np.max(gap, initial=0.0))
            if not worst <= self.tolerance * max(largest(value), 1e-300):
                return f"{name} differs by {worst:.3g}; its largest number is {largest(value):.3g}"
        return None
