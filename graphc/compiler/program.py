"""Programs from graphs: nodes are scheduled, lowered to instructions, and get their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from graphc.base.work import spend_nodes
from graphc.compiler.assignment import Assignment, Planner, Scheduler
from graphc.compiler.lowering import Build, Lowering
from graphc.compiler.schedule import keep_old_states, schedule
from graphc.ir.graph import Graph
from graphc.kernels.program import Contract, Program
from graphc.kernels.traits import Forms

LOWERED = 2
"""The work to schedule, lower and place a node, as a multiple of that to make one."""


def build_program(
    name: str,
    graph: Graph,
    capacity: int,
    backend: str,
    forms: Forms | None = None,
    keeps: bool = False,
    planner: Planner | None = None,
    scheduler: Scheduler | None = None,
    contract: Contract = "fused",
    sparing: bool = False,
    threads: int = 1,
) -> Program:
    """Return the program of a graph in which every node is needed, for up to `capacity` rows.

    `forms` caches what the programs of a plan have in common.  With `keeps` every value has a
    buffer of its own to the end of the run.  `planner` and `scheduler` are the user's own.  With
    `sparing` there are more barriers, so that less memory is kept.  At most `threads` threads
    share a chain.
    """
    spend_nodes(LOWERED * len(graph))
    graph = keep_old_states(graph)
    order = schedule(graph)

    forms = forms or Forms()
    build = _steps(backend, contract, forms)
    low = Lowering(graph, order, capacity, forms, keeps, build, threads=threads)
    program = Assignment(name, low, order, backend, scheduler, sparing).program(planner)
    return replace(program, contract=contract)


def _steps(backend: str, contract: Contract, forms: Forms) -> Build:
    """Return the function that builds the programs of steps, for a backend."""

    def build(
        name: str, graph: Graph, rows: int, carried: Mapping[str, str], at_once: bool
    ) -> Program:
        """Return the program of a step, whose results lie in buffers around it.

        Unless steps run at once, threads share rows wherever they can: each may then run all steps.
        """
        order = schedule(graph)
        low = Lowering(graph, order, rows, forms, build=build, by_rows=not at_once)
        program = Assignment(name, low, order, backend, carried=carried).program()
        return replace(program, contract=contract)

    return build
