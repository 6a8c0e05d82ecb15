"""A case: a graph, the options that it is compiled with, and what is run in turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from graphc.compiler.plan import Plan
from graphc.compiler.remat.fit import fitted
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from passes.set_precision import Precision
from tests.tools.fuzz.again import computing_again
from tests.tools.generate import random_feeds, random_state

BUDGETS = (0.8, 0.9, 0.96, 0.99)
"""Of the bytes that a plan takes without one: the first that can be kept."""


class Event(NamedTuple):
    """One run of a batch of `n` rows.

    `kind`: infer; unlabelled, inference without the inputs that only losses read; forward,
    that of training; train, forward and backward; update, the same and then the optimizer by
    hand; cotangents, forward and backward from an output; step; frozen, inference with the
    weights built in; evaluate, losses and numbers of more rows than a batch; other, a step of
    another plan on the same state.
    """

    kind: str
    n: int


@dataclass(frozen=True)
class Case:
    """All that a run depends on."""

    graph: Graph
    batch: int
    events: tuple[Event, ...]
    optimizer: Optimizer | None = None
    off: tuple[str, ...] = ()
    """Passes that are left out."""
    losses: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    wrt: tuple[str, ...] | None = None
    backend: str = "numpy"
    """numpy; native; or interpreted, which are the programs of native."""
    threads: int = 1
    slopes: bool = False
    """Whether gradients are compared with differences of the losses, too."""
    torch: bool = False
    """Whether all is compared with PyTorch, too."""
    tight: bool = False
    """Whether the budget is less than what keeps all values, where some can be computed again."""
    again: bool = False
    """Whether values are computed again that are drawn at random."""
    shards: int = 1
    """How many a step cuts its batch into."""
    synchronised: bool = False
    """Whether batch normalisation takes the statistics of the batch there, not of a shard."""
    draw: int = 0
    """The seed of feeds and state."""
    other: Optimizer | None = None
    """That of another plan on the same state, which has a name."""
    precision: tuple[tuple[str, Precision], ...] = ()
    """Patterns of layers, and the precision of their products."""

    @cached_property
    def plan(self) -> Plan:
        """What graphc makes of it."""
        kept = self._compiled
        if self.again:
            return computing_again(kept, self.draw)
        for share in BUDGETS if self.tight else ():
            made = fitted(kept, int(share * kept.memory.total))
            if made is not None:
                return made
        return kept

    @cached_property
    def other_plan(self) -> Plan:
        """The one with the other optimizer."""
        return replace(self, optimizer=self.other, shards=1, tight=False, again=False).plan

    @property
    def _compiled(self) -> Plan:
        """The plan that keeps all values."""
        return gc.compile(
            self.graph,
            batch=self.batch,
            optimizer=self.optimizer,
            losses=self.losses,
            outputs=self.outputs,
            wrt=self.wrt,
            backend="native" if self.backend == "interpreted" else self.backend,
            threads=self.threads,
            passes=gc.passes.without(*self.off),
            shards=self.shards if self.shards > 1 else None,
            sync_batchnorm=self.synchronised,
            precision=dict(self.precision) or None,
        )

    def most(self, kind: str) -> int:
        """The most rows of an event of that kind: a run has those of a shard."""
        if kind == "evaluate":
            return 3 * self.batch
        return self.batch if kind in ("step", "other") else -(-self.batch // self.shards)

    def feeds(self, event: int) -> dict[str, Any]:
        """The arrays of an event, which is given by its number."""
        if event not in self._feeds:
            n, seed = self.events[event].n, 1000 * self.draw + event
            self._feeds[event] = random_feeds(self.graph, n, seed)
        return dict(self._feeds[event])

    @cached_property
    def _feeds(self) -> dict[int, dict[str, Any]]:
        return {}

    def state(self) -> dict[str, Any]:
        """What parameters and states hold at the start."""
        return dict(self._state)

    @cached_property
    def _state(self) -> dict[str, Any]:
        nodes = dict(self.plan.state_nodes)
        if self.other is not None:
            nodes |= self.other_plan.state_nodes
        state = random_state(Graph("state", nodes.values()), self.draw)
        hyper = {name: array for name, array in state.items() if name.startswith("hyper.")}
        for name, array in hyper.items():  # a rate and a limit as they were asked for
            node = nodes[name]
            state[name] = array * 0 + node.op.start  # type: ignore[attr-defined]
        if "accumulated" in state:
            for name in state:
                if name.endswith(".accumulated"):
                    state[name] = state[name] * 0
        return {name: value.astype(nodes[name].type.dtype) for name, value in state.items()}

    def cotangent(self, event: int, output: str) -> Array:
        """What an output's gradient is fed with."""
        declared = self.plan.declared
        type = declared[declared.outputs[output]].type
        rng = np.random.default_rng([self.draw, event])
        return np.asarray(
            rng.standard_normal(shape_at(type.shape, self.events[event].n)), type.dtype
        )


Results = Mapping[str, Array]
"""What one event gave, by what it is: `output scores`, `gradient w`, `state w`."""
