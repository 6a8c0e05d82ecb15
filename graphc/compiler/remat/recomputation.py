"""The report of what a plan recomputes, and what that costs and saves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from graphc.compiler.cost import program_cost
from graphc.ir.graph import Node
from graphc.ops.fused import After

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan

SLOT = "rematerialize"
"""The name of the pass that recomputes."""


@dataclass(frozen=True)
class Repeated:
    """The recomputed nodes of one program, and how it compares with keeping everything.

    `flops` and `arena`, in bytes, are those of the program, `flops_kept` and `arena_kept` those
    of the same without recomputation; for the largest batch.
    """

    program: str
    nodes: tuple[str, ...]
    ops: tuple[tuple[str, int], ...]
    """The number of nodes of each op, the most frequent first."""
    flops: int
    flops_kept: int
    arena: int
    arena_kept: int

    @property
    def share(self) -> float:
        """The added FLOPs, as a share of those without recomputation."""
        return self.flops / self.flops_kept - 1

    def __str__(self) -> str:
        count = f"{len(self.nodes):,} node{'' if len(self.nodes) == 1 else 's'}"
        ops = ", ".join(f"{number:,} {op}" for op, number in self.ops)
        return (
            f"{self.program}: {count} computed again ({ops}), {self.share:+.1%} FLOPs "
            f"({self.flops_kept:,} -> {self.flops:,}), "
            f"arena {self.arena_kept:,} -> {self.arena:,} bytes"
        )


def computes_again(plan: Plan) -> bool:
    """Return whether any program of a plan recomputes values."""
    return any(record.name == SLOT for rows in plan.graphs.values() for record in rows)


def keeping_all(plan: Plan) -> Plan:
    """Return the plan as it would be without a budget."""
    if not computes_again(plan):
        return plan
    return replace(plan.recipe, budget=None).of_rows(plan.batch).plan()


def repeated(plan: Plan, kept: Plan) -> Iterator[Repeated]:
    """Yield the programs that recompute values, compared with those that keep everything."""
    for name in plan.programs:
        nodes = clones(plan, name)
        if not nodes:
            continue
        ops = Counter(node.op.name for node in nodes)
        mine, other = plan.programs[name], kept.programs[name]
        yield Repeated(
            name,
            tuple(node.name for node in nodes),
            tuple(ops.most_common()),
            program_cost(mine, plan.batch).flops,
            program_cost(other, plan.batch).flops,
            mine.arena.nbytes,
            other.arena.nbytes,
        )


def clones(plan: Plan, program: str) -> tuple[Node, ...]:
    """Return the nodes of a program that recompute something, in order."""
    rows = plan.graphs[program]
    for before, record in pairwise(rows):
        if record.name == SLOT:
            made = (node for node in record.graph if node.name not in before.graph)
            return tuple(node for node in made if not isinstance(node.op, After))
    return ()
