"""The graph of an update alone: parameters, slots, and gradients that are given.

    w.velocity.next = momentum(w.velocity, gradient:w)
    w.next = sgd_step(w, w.velocity.next, hyper.lr)

It serves `ex.update()` after `ex.backward()`, whose gradients are its inputs; and, if the
optimizer accumulates, every k-th step: then the gradients are the sums divided by the number of
steps, and both become 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from graphc.declare.optim import Optimizer
from graphc.declare.optim.slots import with_own_states
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Role
from graphc.ops.elementwise import div
from graphc.ops.optim import Cleared
from graphc.ops.shape import cast
from graphc.ops.source import Input
from passes.accumulate import accumulator, step_counter
from passes.update import add_updates


def apply_graph(parameters: Iterable[Node], optimizer: Optimizer, name: str = "apply") -> Graph:
    """Return the update of these parameters by gradients that are fed or have been accumulated."""
    b = Builder(name)
    b.locs = ()
    values = {node.name: b.insert(node) for node in parameters}
    accumulated = optimizer.accumulate > 1
    gradients = _means(b, values) if accumulated else _fed(b, values)
    if gradients:
        add_updates(b, optimizer, gradients)
    if accumulated:
        _clear(b, [*map(accumulator, values.values()), step_counter(b)])
    return with_own_states(b.graph(), optimizer)


def _fed(b: Builder, parameters: dict[str, Value]) -> dict[str, Value]:
    gradients: dict[str, Value] = {}
    for name, p in parameters.items():
        with b.at(p.node.locs):
            op = Input(p.shape, p.dtype, Role("gradient", name))
            gradients[name] = b.apply(op, name=f"gradient:{name}")
    return gradients


def _means(b: Builder, parameters: dict[str, Value]) -> dict[str, Value]:
    steps = step_counter(b)
    counts = {dtype: cast(steps, dtype) for dtype in {p.dtype: None for p in parameters.values()}}
    gradients: dict[str, Value] = {}
    for name, p in parameters.items():
        with b.at(p.node.locs):
            mean = b.unique(f"{name}.gradient")
            gradients[name] = div(accumulator(p), counts[p.dtype], name=mean)
    return gradients


def _clear(b: Builder, states: list[Value]) -> None:
    for state in states:
        with b.at(state.node.locs):
            b.update(state, b.apply(Cleared(), state, name=b.unique(f"{state.name}.next")))
