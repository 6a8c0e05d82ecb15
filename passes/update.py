"""Let an optimizer consume the gradients: add the nodes that update parameters.

    d_w = ...                    d_w = ...
    gradients w: d_w      ->     w.velocity.next = momentum(w.velocity, d_w)
                                 w.next = sgd_step(w, w.velocity.next, hyper.lr)
                                 updates w.velocity: w.velocity.next, w: w.next, ...

The result asks for no gradients, so that each is freed after its update.  Gradients by values
that are not parameters are left to dead code.  Update nodes carry the lines of their parameter.

An optimizer that accumulates adds the gradients to those of the steps so far instead:

    gradients w: d_w      ->     w.accumulated.next = add(w.accumulated, d_w)
                                 updates w.accumulated: w.accumulated.next, accumulated: ...

Every k-th step then runs the graph of an update alone, `apply_graph`.  Its gradients are the sums,
divided by the number of steps that the state `accumulated` counts; both become 0.  Without
accumulation the same graph serves `ex.update()` after `ex.backward()`, by gradients that are fed:

    w.velocity.next = momentum(w.velocity, gradient:w)
    w.next = sgd_step(w, w.velocity.next, hyper.lr)

Parameters that follow others, as `gc.track` declares, move towards the next values of those:

    target.next = track(target, w.next)
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from graphc.declare.optim.optimizer import Optimizer
from graphc.declare.optim.slots import (
    Casts,
    add_average,
    clipped_by_norm,
    clipped_by_value,
    count_average,
    slot,
    with_own_states,
)
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Role
from graphc.ops.elementwise import add, div
from graphc.ops.optim import Cleared
from graphc.ops.shape import cast
from graphc.ops.source import COUNTER, Input, global_state, hyper, updates

if TYPE_CHECKING:
    from graphc.declare.track import Tracked


@dataclass(frozen=True)
class Update:
    """The pass that updates every parameter that has a gradient, or accumulates the gradients."""

    name: ClassVar[str] = "update"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    optimizer: Optimizer
    wrt: tuple[str, ...] | None = None
    """The parameters of the optimizer's rule; None means all that have a gradient."""
    tracked: tuple[Tracked, ...] = ()
    """The parameters that follow others."""

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph that steps, or the graph as it was if no parameter has a gradient."""
        b = Builder.extending(graph)
        gradients = {
            name: b.value(gradient)
            for name, gradient in b.gradients.items()
            if b.nodes[name].op.is_parameter and self.trains(name)
        }
        if not gradients:
            return graph
        b.gradients.clear()
        if self.optimizer.accumulate > 1:
            _add_sums(b, gradients)
        else:
            _add_updates(b, self.optimizer, gradients)
            _follow(b, self.tracked, gradients)
        return with_own_states(b.graph(), self.optimizer, graph.nodes)

    def trains(self, name: str) -> bool:
        """Return whether the optimizer updates a parameter."""
        return (self.wrt is None or name in self.wrt) and self.optimizer.trains(name)


def apply_graph(
    parameters: Iterable[Node],
    optimizer: Optimizer,
    onto: Graph | None = None,
    tracked: tuple[Tracked, ...] = (),
) -> Graph:
    """Return the update of these parameters by gradients that are fed or have been accumulated.

    `onto` is the graph of other updates, which it adds to; `tracked` follow these parameters.
    """
    onto = Graph("apply", ()) if onto is None else onto
    b = Builder.extending(onto)
    values = {node.name: b.insert(node) for node in parameters}
    accumulated = optimizer.accumulate > 1
    gradients = _means(b, values) if accumulated else _fed(b, values)
    if gradients:
        _add_updates(b, optimizer, gradients)
        _follow(b, tracked, gradients)
    if accumulated:
        _clear(b, [*map(_sum_of, values.values()), _step_counter(b)])
    return with_own_states(b.graph(), optimizer, onto.nodes)


def _add_updates(b: Builder, optimizer: Optimizer, gradients: Mapping[str, Value]) -> None:
    """Clip the gradients, find the rates, update each parameter, and count the update."""
    dtype = b.nodes[next(iter(gradients))].type.dtype
    counter = updates(b)
    rates = _Rates(b, optimizer, counter, dtype)
    if optimizer.clip_value is not None:
        gradients = clipped_by_value(b, gradients, optimizer.clip_value)
    if optimizer.clip_norm is not None:
        limit = hyper(b, "clip_norm", dtype, optimizer.clip_norm)
        gradients = clipped_by_norm(b, gradients, limit)
    for name, gradient in gradients.items():
        p = b.value(name)
        with b.at(p.node.locs):
            optimizer.update(p, gradient, rates.of(p), counter)
            if optimizer.ema is not None:
                add_average(p, optimizer.ema)
    b.update(counter, add(counter, 1, name=b.unique("updates.next")))
    if optimizer.ema is not None:
        count_average(b)


def _follow(b: Builder, tracked: Iterable[Tracked], trained: Container[str]) -> None:
    """Move parameters towards the next values of those that they follow."""
    for each in tracked:
        if each.source in trained:
            if each.target.name not in b.nodes:
                b.insert(each.target)
            new = b.insert(each.next.reading({each.source: b.updates[each.source]}))
            b.updates[each.target.name] = new.name


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


# ------------------------------------------------------------------ accumulation


def _sum_of(p: Value) -> Value:
    """Return the state in which a parameter's gradients are summed."""
    return slot(p, "accumulated")


def _step_counter(b: Builder) -> Value:
    """Return the state that counts accumulated steps."""
    return global_state(b, "accumulated", COUNTER)


def _add_sums(b: Builder, gradients: Mapping[str, Value]) -> None:
    """Add the gradients to the sums, and count the step."""
    for name, gradient in gradients.items():
        p = b.value(name)
        with b.at(p.node.locs):
            total = _sum_of(p)
            b.update(total, add(total, gradient, name=b.unique(f"{total.name}.next")))
    steps = _step_counter(b)
    b.update(steps, add(steps, 1, name=b.unique("accumulated.next")))


def _fed(b: Builder, parameters: Mapping[str, Value]) -> dict[str, Value]:
    gradients: dict[str, Value] = {}
    for name, p in parameters.items():
        with b.at(p.node.locs):
            op = Input(p.shape, p.dtype, Role("gradient", name))
            gradients[name] = b.apply(op, name=f"gradient:{name}")
    return gradients


def _means(b: Builder, parameters: Mapping[str, Value]) -> dict[str, Value]:
    steps = _step_counter(b)
    counts = {dtype: cast(steps, dtype) for dtype in {p.dtype: None for p in parameters.values()}}
    gradients: dict[str, Value] = {}
    for name, p in parameters.items():
        with b.at(p.node.locs):
            mean = b.unique(f"{name}.gradient")
            gradients[name] = div(_sum_of(p), counts[p.dtype], name=mean)
    return gradients


def _clear(b: Builder, states: Iterable[Value]) -> None:
    for state in states:
        with b.at(state.node.locs):
            b.update(state, b.apply(Cleared(), state, name=b.unique(f"{state.name}.next")))
