"""Compute gradients of outputs from cotangents, by a separate forward and backward pass.

The program of a set of outputs is compiled, and its memory allocated, at its first use.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np

from graphc.base.errors import FeedError
from graphc.compiler.plan import Plan
from graphc.ir.graph import Node
from graphc.ops.source import Input
from graphc.runtime.bound import Binder, Bound
from graphc.runtime.feeds import Feed, FeedCheck
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace


class CotangentRun:
    """The program for the gradients of some outputs, given a cotangent of each."""

    def __init__(self, plan: Plan, outputs: tuple[str, ...], state: State) -> None:
        self.program = plan.cotangent_program(outputs)
        self.workspace = Workspace(
            {self.program.name: self.program}, plan.batch, state, plan.options.threads
        )
        self._binder = Binder(self.workspace)
        feeds = {o: Feed(_cotangent(plan, o), None) for o in outputs}
        self._has_rows = any(feed.type.batched for feed in feeds.values())
        self._check = FeedCheck(feeds, plan.batch, "cotangent")

    def bind(self, saved: Bound, cotangents: Mapping[str, Any]) -> Bound:
        """Return the program with the saved feeds and cotangents; raise FeedError for a misfit."""
        arrays, n = self._check.arrays(cotangents)
        if n != saved.n and self._has_rows:
            raise FeedError(f"the cotangents have {n} rows, the forward pass had {saved.n}")
        bound = self._binder.bound(self.program, saved.n)
        for name, array in bound.feeds.items():
            role = self.program.graph[name].op.role
            np.copyto(array, arrays[role.of] if role.kind == "cotangent" else saved.feeds[name])
        return bound


class CotangentRuns:
    """The cotangent runs of an executor, by outputs, from the state of the last forward pass."""

    def __init__(self, plan: Plan, state: State) -> None:
        self._plan, self._now = plan, state.arrays
        self._runs: dict[tuple[str, ...], CotangentRun] = {}
        names: set[str] = set()
        if "grad" in plan.programs:  # a pass may update states that it computes from
            graph = plan.programs["grad"].graph
            read = graph.upstream([*graph.outputs.values(), *graph.gradients.values()])
            names = graph.updates.keys() & read
        self._noted = {name: state.arrays[name].copy() for name in names}
        self._state = copy(state)
        self._state.arrays = {**state.arrays, **self._noted}

    def note(self) -> None:
        """Save the states that a forward pass updates, before it runs."""
        for name, array in self._noted.items():
            array[...] = self._now[name]

    def bind(self, saved: Bound, cotangents: Mapping[str, Any]) -> Bound:
        """Return the program of these outputs with its feeds; raise FeedError for a misfit."""
        outputs = tuple(sorted(cotangents))
        run = self._runs.get(outputs)
        if run is None:
            run = self._runs[outputs] = CotangentRun(self._plan, outputs, self._state)
        return run.bind(saved, cotangents)

    @property
    def nbytes(self) -> int:
        """The bytes of memory of all runs."""
        return sum(run.workspace.nbytes for run in self._runs.values())


def _cotangent(plan: Plan, output: str) -> Node:
    """Return the input of a cotangent; the program has it only if a gradient depends on it."""
    type = plan.declared[plan.declared.outputs[output]].type
    return Node(f"cotangent:{output}", Input(type.shape, type.dtype), (), type)
