"""A program that computes the same as another and keeps every value that is computed.

Nodes are grouped, ordered and fused as before; each value is also stored, in memory that nothing
else reuses.  So every bit is as in the program itself, and all of them can be inspected
when the run is over.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace

from graphc.compiler.assignment import Assignment
from graphc.compiler.lowering import Lowering, kernel_instr
from graphc.compiler.schedule import schedule
from graphc.ir.plan import Program
from graphc.kernels.body import Body
from graphc.kernels.group import Group


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
