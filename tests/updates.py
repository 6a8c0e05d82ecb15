"""Run the graph of an update alone, by the reference rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import graphc as gc
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph, Node
from graphc.runtime.reference import evaluate, initial_state, next_state
from passes.update import apply_graph

Array = Any
State = dict[str, Array]


def parameters(values: Mapping[str, Array]) -> list[Node]:
    net = gc.Net("net", dtype="float64")
    return [net.parameter(name, np.shape(v), init=np.asarray(v)).node for name, v in values.items()]


def run(
    optimizer: Optimizer, values: Mapping[str, Array], steps: Sequence[Mapping[str, Array]]
) -> State:
    """The state after updates by these gradients."""
    graph = apply_graph(parameters(values), optimizer)
    state = initial_state(graph, seed=0)
    for gradients in steps:
        state = update(graph, state, gradients)
    return state


def update(graph: Graph, state: State, gradients: Mapping[str, Array]) -> State:
    feeds = {f"gradient:{name}": gradient for name, gradient in gradients.items()}
    return next_state(graph, evaluate(graph, feeds, state, 1), state)
