"""Symptoms of a model: results that differ from those without passes, or are not finite."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.check.float64 import in_float64
from graphc.check.validation.bisect import Tried
from graphc.check.validation.draws import Draw, draws_for, given_of
from graphc.check.validation.limit import limited, optional
from graphc.check.validation.run import largest, results_of, values_of_arrays
from graphc.compiler.compile import compile
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph
from graphc.ir.op import Array

if TYPE_CHECKING:
    from passes.pass_list import PassList


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
        """Compile with that many passes, run, and compare."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            passes = self.passes if limit is None else limited(self.passes, limit, str(log))
            found = self._results(passes)
            lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        if not self.base:
            self.base.update(found if limit == "0" else self._results(limited(self.passes, "0")))
        records = [json.loads(line) for line in lines]
        told = self._told(found)
        return Tried(
            told is not None,
            told or "nothing is wrong",
            optional(self.passes),
            max((record["rewrites"] for record in records), default=0),
            [record["last"] for record in records if record["last"]],
        )

    @property
    def nonfinite(self) -> bool:
        """Whether numbers that are not finite are the symptom."""
        return self.what == "nonfinite"

    def _results(self, passes: PassList) -> dict[str, Array]:
        graph = self.graph if self.nonfinite else in_float64(self.graph)
        plan = compile(
            graph,
            batch=self.rows,
            optimizer=self.optimizer,
            wrt=self._wrt(graph),
            passes=passes,
            backend="numpy",
        )
        draw = self._draw()
        found: dict[str, Array] = {}
        for program, records in plan.graphs.items():
            made = records[-1].graph
            values = values_of_arrays(made, self.rows, given_of(made, draw))
            results = results_of(made, values)
            found |= {f"{name} ({program})": value for name, value in results.items()}
        chosen = {name: value for name, value in found.items() if self._asked(name)}
        if not chosen:
            told = ", ".join(dict.fromkeys(name.partition(" (")[0] for name in found))
            raise GraphError(f"there is no {self.what!r}", hint=f"there are {told}")
        return chosen

    def _draw(self) -> Draw:
        (draw,) = draws_for(self.graph, [self.rows], given=self.feeds)
        return draw

    def _wrt(self, graph: Graph) -> list[str] | None:
        """Return the parameters, and the node whose gradient is asked for; None for the default."""
        kind, _, name = (self.what or "").partition(":")
        if kind != "gradient" or name not in graph or graph[name].op.name == "parameter":
            return None
        return [*(n.name for n in graph if n.op.name == "parameter"), name]

    def _asked(self, name: str) -> bool:
        kind, _, rest = name.partition(" ")
        if kind == "mask":
            return False
        if self.what is None or self.nonfinite:
            return True
        key = rest.partition(" (")[0]
        if self.what == "loss":
            return kind == "output" and key in self.graph.losses
        return self.what == f"{kind}:{key}"

    def _told(self, found: Mapping[str, Array]) -> str | None:
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
                return f"{name} is off by {worst:.3g}, of at most {largest(value):.3g}"
        return None
