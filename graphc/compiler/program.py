"""The stages from graph to program: schedule, lower, assign memory, place the arena."""

from __future__ import annotations

from graphc.base.work import spend_nodes
from graphc.compiler.assignment import Assignment
from graphc.compiler.lowering import Lowering
from graphc.compiler.old_states import keep_old_states
from graphc.compiler.schedule import schedule
from graphc.ir.graph import Graph
from graphc.kernels.iteration_space import Forms
from graphc.kernels.program import Program

LOWERED = 2
"""The work to schedule, lower and place a node, as a multiple of that to make one."""


def build_program(
    name: str, graph: Graph, capacity: int, backend: str, forms: Forms | None = None
) -> Program:
    """Return the program of a graph in which every node is needed, for up to `capacity` rows.

    `forms` caches what the programs of a plan have in common.
    """
    spend_nodes(LOWERED * len(graph))
    graph = keep_old_states(graph)
    order = schedule(graph)
    low = Lowering(graph, order, capacity, forms).run(order)
    return Assignment(name, low, order, backend).program()
