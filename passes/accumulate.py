"""Add the gradients of a step to those accumulated so far, instead of updating with them.

    d_w = ...                    d_w = ...
    gradients w: d_w      ->     w.accumulated.next = add(w.accumulated, d_w)
                                 updates w.accumulated: w.accumulated.next, accumulated: ...

The state `accumulated` counts the steps; the graph of passes/apply_update.py divides by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.declare.optim import Optimizer
from graphc.declare.optim.slots import slot, with_own_states
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph
from graphc.ops.elementwise import add
from graphc.ops.source import COUNTER, global_state
from passes.update import parameter_gradients


@dataclass(frozen=True)
class Accumulate:
    """The pass that sums the gradients of every trained parameter, and counts the steps."""

    name: ClassVar[str] = "update"
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    optimizer: Optimizer

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph that accumulates; `graph` itself if no parameter has a gradient."""
        b = Builder.extending(graph)
        gradients = parameter_gradients(b, self.optimizer)
        if not gradients:
            return graph
        b.gradients.clear()
        for name, gradient in gradients.items():
            p = b.value(name)
            with b.at(p.node.locs):
                total = accumulator(p)
                b.update(total, add(total, gradient, name=b.unique(f"{total.name}.next")))
        steps = step_counter(b)
        b.update(steps, add(steps, 1, name=b.unique("accumulated.next")))
        return with_own_states(b.graph(), self.optimizer, graph.nodes)


def accumulator(p: Value) -> Value:
    """Return the state in which a parameter's gradients are summed."""
    return slot(p, "accumulated")


def step_counter(b: Builder) -> Value:
    """Return the state that counts accumulated steps."""
    return global_state(b, "accumulated", COUNTER)
