"""The value of every node in a step, with the bits that the step gave them.

They come from a program that computes the same and stores every value that is computed: nodes are
grouped, ordered and fused as before; each value also goes to memory that nothing else reuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np

from graphc.compiler.program import build_program
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.kernels.program import Program
from graphc.runtime.bound import Binder
from graphc.runtime.entry import quiet_context, run_all
from graphc.runtime.executor import Executor
from graphc.runtime.reference import evaluate
from graphc.runtime.workspace import Workspace
from graphc.train.nonfinite import part_of_step, step_by_reference, step_program

Part = Literal["data", "state", "constant", "forward", "backward", "update"]


class StepValues:
    """The nodes of the program that an executor steps by, and their values in one step.

    `ex` is in the state from before the step, and makes the step.  Nodes are in the order
    of the plan; after those of an accumulated step come those of the update, if it is due.
    """

    def __init__(self, ex: Executor, feeds: Mapping[str, Any]) -> None:
        self.plan = ex.plan
        self.arrays, self.rows = ex.rows(ex.padded(feeds), train=True)
        self.before = ex.snapshot()
        self.name = step_program(ex.plan)
        self.nodes: dict[str, Node] = {}
        self._values: dict[str, Array] = {}
        self._written: set[str] = set()
        if ex.plan.shards is not None:  # no single program has the values of a batch
            graph, self._values = self._before_fusing
            self.nodes.update(graph.nodes)
            self.loss = ex.step(feeds)
            return
        self.loss = self._run(ex, self.name, self.arrays, self.rows)
        if self.name == "accumulate" and ex._accumulated() >= ex.plan.accumulate:
            self._run(ex, "apply", {}, 1)

    def _run(self, ex: Executor, name: str, arrays: Mapping[str, Array], n: int) -> float:
        """Run a program of the plan, add its nodes, and return the sum of its losses."""
        program, before = storing_all(ex.plan.programs[name]), ex.snapshot()
        found, loss = _run(program, ex, arrays, n)
        self._written |= found.keys()
        with np.errstate(all="ignore"):
            values = evaluate(program.graph, arrays, before, n, known=found)
        for node in program.graph:
            if self.nodes.setdefault(node.name, node) is node:
                self._values[node.name] = values[node.name]
        return loss

    def __getitem__(self, name: str) -> Array:
        """Return the value of a node of the plan, or of one that was fused into others."""
        return self._values[name] if name in self._values else self._before_fusing[1][name]

    def __contains__(self, name: object) -> bool:
        return name in self.nodes or name in self._before_fusing[1]

    def exact(self, name: str) -> bool:
        """Return whether the value has the bits of the step.

        Nodes that were fused into others have no separate value in it, nor do a few numbers that
        are computed where they are used, nor any node of a batch that was cut into shards.  Their
        values are computed by reference rules.
        """
        if name not in self.nodes:
            return False
        return name in self._written or self.nodes[name].op.only_moves

    def node(self, name: str) -> Node:
        """Return a node, of the plan or from before it was fused."""
        return self.nodes[name] if name in self.nodes else self._before_fusing[0][name]

    def part(self, name: str) -> Part:
        """Return the part of the step that a node belongs to."""
        op = self.node(name).op
        if op.is_source:
            return "data" if op.is_input else "constant" if op.is_constant else "state"
        return part_of_step(self.plan, name)

    @cached_property
    def _before_fusing(self) -> tuple[Graph, dict[str, Array]]:
        return step_by_reference(self.plan, self.arrays, self.before, self.rows)


def _run(
    program: Program, ex: Executor, arrays: Mapping[str, Array], n: int
) -> tuple[dict[str, Array], float]:
    """Run a program on the executor's state; return what its instructions wrote, and the loss."""
    workspace = Workspace({program.name: program}, program.capacity, ex.state, threads=1)
    bound = Binder(workspace).bound(program, n)
    for name, array in bound.feeds.items():
        np.copyto(array, arrays[name])
    ex.state.lock(quiet_context().run, run_all, bound.calls)
    written = [out for instr in program.instrs for out in instr.outs if out in program.graph]
    found = {name: workspace.view(program, name, n).copy() for name in written}
    losses = bound.losses
    return found, float(losses[0] if len(losses) == 1 else sum(losses))


def storing_all(program: Program) -> Program:
    """Return the program with a separate buffer for each value."""
    same = program.name, program.graph, program.capacity, program.backend
    return build_program(*same, keeps=True, contract=program.contract)
