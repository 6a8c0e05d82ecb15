"""The value of every node of one step, with the bits that the step gave it.

They come from a program that computes the same and keeps every value that is computed.  Nodes are
grouped, ordered and fused as before; each value is also stored, in memory that nothing else reuses.
So every bit is as in the program itself.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from graphc.compiler.assignment import Assignment
from graphc.compiler.lowering import Lowering, kernel_instr
from graphc.compiler.schedule import schedule
from graphc.ir.expr import Body
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Source
from graphc.kernels.group import Group
from graphc.kernels.program import Program
from graphc.ops.source import Constant, Input
from graphc.runtime.bound import Binder
from graphc.runtime.entry import quiet_context, run_all
from graphc.runtime.executor import Executor
from graphc.runtime.reference import evaluate
from graphc.runtime.workspace import Workspace
from graphc.train.nonfinite import graph_after, part_of_step, step_program

Part = Literal["data", "state", "constant", "forward", "backward", "update"]


class StepValues:
    """The nodes of the program that an executor steps by, and their values in one step.

    `ex` is in the state from before the step, and makes the step.  Nodes are in the order
    of the plan; after those of an accumulated step come those of the update, if it is due.
    """

    def __init__(self, ex: Executor, feeds: Mapping[str, Any]) -> None:
        self.plan = ex.plan
        self.arrays, self.rows = ex.rows(feeds, train=True)
        self.before = ex.snapshot()
        self.name = step_program(ex.plan)
        self.nodes: dict[str, Node] = {}
        self._values: dict[str, Array] = {}
        self._written: set[str] = set()
        self.loss = self._run(ex, self.name, self.arrays, self.rows)
        if self.name == "accumulate" and ex._accumulated() >= ex.plan.accumulate:
            self._run(ex, "apply", {}, 1)

    def _run(self, ex: Executor, name: str, arrays: Mapping[str, Array], n: int) -> float:
        """Run a program of the plan, add its nodes, and return the sum of its losses."""
        program, before = keeping(ex.plan.programs[name]), ex.snapshot()
        found, loss = _run(program, ex, arrays, n)
        self._written |= found.keys()
        values = _completed(program.graph, found, arrays, before, n)
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
        are computed where they are used.  Their values are computed by reference rules.
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
        if isinstance(op, Input):
            return "data"
        if isinstance(op, Constant):
            return "constant"
        if isinstance(op, Source):
            return "state"
        return part_of_step(self.plan, name)

    @cached_property
    def _before_fusing(self) -> tuple[Graph, dict[str, Array]]:
        graph = graph_after(self.plan, "update")
        state = {name: array for name, array in self.before.items() if name in graph}
        with np.errstate(all="ignore"):
            return graph, evaluate(graph, self.arrays, state, self.rows)


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


def _completed(
    graph: Graph,
    found: Mapping[str, Array],
    arrays: Mapping[str, Array],
    before: Mapping[str, Array],
    n: int,
) -> dict[str, Array]:
    """Return the values found, and the others as reference rules compute them from those."""
    values: dict[str, Array] = {}
    for node in graph:
        if node.name in found:
            values[node.name] = found[node.name]
        elif isinstance(node.op, Input):
            values[node.name] = np.array(arrays[node.name])
        elif isinstance(node.op, Source) and not isinstance(node.op, Constant):
            values[node.name] = before[node.name]
        else:
            ins = [values[name] for name in node.inputs]
            with np.errstate(all="ignore"):
                values[node.name] = np.asarray(node.op.at(n).reference(ins))
    return values


def keeping(program: Program) -> Program:
    """Return the program with a separate buffer for each value."""
    graph, order = program.graph, schedule(program.graph)
    low = _Storing(graph, order, program.capacity).run(order)
    return _Keeping(program.name, low, order, program.backend).program()


class _Storing(Lowering):
    """A lowering that also stores the values that only the kernel itself reads."""

    _all = True

    def _kernel(self, group: Group) -> None:
        self._all = False
        stored = {node.name for node in group.nodes if self._is_stored(group, node.name)}
        self._all = True
        super()._kernel(group)
        instr = self.instrs.pop()
        assert instr.body is not None
        kernel = replace(instr.body, body=_with_own_products(instr.body.body, stored))
        self.instrs.append(kernel_instr(kernel, instr.nodes))

    def _is_stored(self, group: Group, name: str) -> bool:
        return self._all or super()._is_stored(group, name)


def _with_own_products(body: Body, stored: Container[str]) -> Body:
    """Return the body with another computation of each product that is stored only here.

    A product with one user is rounded together with the sum that uses it; a store would be
    another user, and the product would be rounded by itself.
    """
    steps, stores = list(body.steps), []
    for store in body.stores:
        step = steps[store.step]
        if store.buffer not in stored and step.op == "mul":
            store = store._replace(step=len(steps))
            steps.append(step)
        stores.append(store)
    return Body(tuple(steps), tuple(stores))


class _Keeping(Assignment):
    """A buffer assignment in which every value lives to the end of the run."""

    def _lives(self) -> tuple[list[int], list[int]]:
        first, last = super()._lives()
        return first, [len(self.instrs) if end >= 0 else end for end in last]
