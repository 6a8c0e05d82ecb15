"""Differentiate outputs by cotangents: a forward and backward pass of its own.

The program is compiled, and its memory made, at the first use of each set of outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.errors import FeedError
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.plan import Plan
from graphc.runtime.bound import Binder, Bound
from graphc.runtime.feeds import Feed, FeedCheck
from graphc.runtime.state import State
from graphc.runtime.workspace import Workspace


class CotangentRun:
    """The gradients of some outputs of a plan, weighted by arrays of their shapes."""

    def __init__(self, plan: Plan, outputs: tuple[str, ...], state: State) -> None:
        self.program = plan.cotangent_program(outputs)
        self.workspace = Workspace(
            {self.program.name: self.program}, plan.batch, state, plan.recipe.threads
        )
        self._binder = Binder(self.workspace, plan.recipe.threads)
        self._declared = plan.declared
        self._draws = state.arrays["draws"]
        feeds = {o: Feed(self.program.graph[f"cotangent:{o}"], None) for o in outputs}
        self._check = FeedCheck(feeds, feeds, plan.batch, "cotangent")

    def bind(self, saved: Bound, cotangents: Mapping[str, Any]) -> Bound:
        """Feed what the forward pass was fed, and the cotangents; FeedError when one misfits."""
        arrays, n = self._check.arrays(cotangents)
        if n != saved.n and any(self._declared[o].type.batched for o in self._nodes(arrays)):
            raise FeedError(
                f"the cotangents have {n} rows, the forward pass had {saved.n}", loc=caller_loc()
            )
        bound = self._binder.bound(self.program, saved.n)
        for name, array in bound.feeds.items():
            output = name.removeprefix("cotangent:")
            np.copyto(array, saved.feeds[name] if output == name else arrays[output])
        return bound

    @contextmanager
    def drawing(self, draws: int) -> Iterator[None]:
        """Inside, masks are those of the forward pass that is differentiated."""
        counter = self._draws
        now = int(counter)
        counter[...] = draws
        try:
            yield
        finally:
            counter[...] = now

    def _nodes(self, names: Mapping[str, Array]) -> list[str]:
        return [self._declared.outputs[name] for name in names]
