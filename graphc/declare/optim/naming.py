"""Names of the states of an optimizer that has a name itself."""

from __future__ import annotations

from collections.abc import Container, Mapping

from graphc.declare.optim.optimizer import Optimizer
from graphc.ir.graph import Graph, Node
from graphc.ops.source import State


def with_own_states(graph: Graph, optimizer: Optimizer, others: Container[str] = ()) -> Graph:
    """Return the graph with the optimizer's name added to its states, except to `others`."""
    if not optimizer.name:
        return graph
    made = [n.name for n in graph if isinstance(n.op, State) and n.name not in others]
    return _renamed(graph, {name: optimizer.state(name) for name in made})


def without_own_states(graph: Graph, optimizer: Optimizer) -> Graph:
    """Return the graph with the optimizer's name removed from its states."""
    end = optimizer.state("")
    named = [n.name for n in graph if end and isinstance(n.op, State) and n.name.endswith(end)]
    return _renamed(graph, {name: name.removesuffix(end) for name in named})


def _renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    if not names:
        return graph

    def of(name: str) -> str:
        return names.get(name, name)

    return Graph(
        graph.name,
        [Node(of(n.name), n.op, tuple(map(of, n.inputs)), n.type, n.locs) for n in graph],
        outputs={name: of(value) for name, value in graph.outputs.items()},
        losses=graph.losses,
        gradients={of(name): of(value) for name, value in graph.gradients.items()},
        updates={of(name): of(value) for name, value in graph.updates.items()},
    )
