"""Let an optimizer consume the gradients: add the nodes that update parameters.

    d_w = ...                    d_w = ...
    gradients w: d_w      ->     w.velocity.next = momentum(w.velocity, d_w)
                                 w.next = sgd_step(w, w.velocity.next, hyper.lr)
                                 updates w.velocity: w.velocity.next, w: w.next, ...

The result asks for no gradients, so that each is freed after its update.  Gradients by values
that are not parameters are left to dead code.  Update nodes carry the lines of their parameter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.declare.optim import Optimizer
from graphc.declare.optim.slots import (
    Casts,
    add_average,
    bounded,
    clipped,
    count_average,
    with_own_states,
)
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ops.elementwise import add
from graphc.ops.source import hyper, updates


@dataclass(frozen=True)
class Update:
    """The pass that adds update nodes for every parameter that has a gradient."""

    name: ClassVar[str] = "update"
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    optimizer: Optimizer

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph that steps, or the graph as it was if no parameter has a gradient."""
        b = Builder.extending(graph)
        gradients = parameter_gradients(b, self.optimizer)
        if not gradients:
            return graph
        b.gradients.clear()
        add_updates(b, self.optimizer, gradients)
        return with_own_states(b.graph(), self.optimizer, graph.nodes)


def parameter_gradients(b: Builder, optimizer: Optimizer) -> dict[str, Value]:
    """Return the gradients in the builder that belong to parameters which are not frozen."""
    return {
        name: b.value(gradient)
        for name, gradient in b.gradients.items()
        if b.nodes[name].op.is_parameter and optimizer.trains(name)
    }


def add_updates(b: Builder, optimizer: Optimizer, gradients: Mapping[str, Value]) -> None:
    """Clip the gradients, find the rates, update each parameter, and count the update."""
    dtype = b.nodes[next(iter(gradients))].type.dtype
    counter = updates(b)
    rates = _Rates(b, optimizer, counter, dtype)
    if optimizer.clip_value is not None:
        gradients = bounded(b, gradients, optimizer.clip_value)
    if optimizer.clip_norm is not None:
        limit = hyper(b, "clip_norm", dtype, optimizer.clip_norm)
        gradients = clipped(b, gradients, limit)
    for name, gradient in gradients.items():
        p = b.value(name)
        with b.at(p.node.locs):
            optimizer.update(p, gradient, rates.of(p), counter)
            if optimizer.ema is not None:
                add_average(p, optimizer.ema)
    b.update(counter, add(counter, 1, name=b.unique("updates.next")))
    if optimizer.ema is not None:
        count_average(b)


class _Rates:
    """The rates of the optimizer and of its groups, each times the schedule's factor."""

    def __init__(self, b: Builder, optimizer: Optimizer, counter: Value, dtype: str) -> None:
        self._b, self._optimizer, self._counter = b, optimizer, counter
        self._dtype = dtype
        self._known: dict[str, Casts] = {}
        self._named("lr", optimizer.lr)

    def of(self, p: Value) -> Value:
        """Return the rate of a parameter, in its dtype."""
        group = self._optimizer.group_of(p.name)
        if group is None or group.lr is None:
            return self._named("lr", self._optimizer.lr).to(p.dtype)
        return self._named(f"lr.{group.title}", group.lr).to(p.dtype)

    def _named(self, name: str, start: float) -> Casts:
        if name not in self._known:
            lr, schedule = hyper(self._b, name, self._dtype, start), self._optimizer.schedule
            with self._b.at(()):
                rate = lr if schedule is None else schedule.rate(lr, self._counter)
            self._known[name] = Casts(rate)
        return self._known[name]
