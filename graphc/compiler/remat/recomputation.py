"""Reports of what a plan recomputes: its cost, and the curve of memory against work."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.base.door import higher
from graphc.compiler.cost import program_cost
from graphc.compiler.remat.fit import SLOT, fitted, smallest
from graphc.ir.graph import Node
from graphc.ops.fused import After

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan


@dataclass(frozen=True)
class Recomputed:
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
            f"{self.program}: {count} recomputed ({ops}), {self.share:+.1%} FLOPs "
            f"({self.flops_kept:,} -> {self.flops:,}), "
            f"arena {self.arena_kept:,} -> {self.arena:,} bytes"
        )


def recomputes(plan: Plan) -> bool:
    """Return whether any program of a plan recomputes values."""
    return any(record.name == SLOT for rows in plan.graphs.values() for record in rows)


def keeping_all(plan: Plan) -> Plan:
    """Return the plan as it would be without a budget."""
    if not recomputes(plan):
        return plan
    return replace(plan.options, budget=None, sparing=False).of_rows(plan.batch).plan()


def repeated(plan: Plan, kept: Plan) -> Iterator[Recomputed]:
    """Yield the programs that recompute values, compared with those that keep everything."""
    for name in plan.programs:
        nodes = clones(plan, name)
        if not nodes:
            continue
        ops = Counter(node.op.name for node in nodes)
        mine, other = plan.programs[name], kept.programs[name]
        yield Recomputed(
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


STEPS = 12
"""The number of budgets to try, evenly between the ends."""
TRAINS = ("step", "accumulate", "grad")
"""The programs whose work may be reported: the first of these that a plan has."""


@dataclass(frozen=True)
class Point:
    """The bytes of a plan and its arena, the FLOPs of a training step, the number of clones."""

    total: int
    arena: int
    flops: int
    nodes: int


@dataclass(frozen=True)
class Curve:
    """Points in order of less memory and more FLOPs; the first keeps everything."""

    name: str
    batch: int
    program: str
    points: tuple[Point, ...]

    def __str__(self) -> str:
        lines = [f"memory and FLOPs of {self.name!r} at N = {self.batch}, {self.program}"]
        head = ("total bytes", "of them arena", "FLOPs", "more", "recomputed")
        lines.append("  {:>16} {:>16} {:>18} {:>8} {:>16}".format(*head))
        for point in self.points:
            more = f"{self.more(point):+.1%}"
            clones = f"{point.nodes:,} node{'' if point.nodes == 1 else 's'}"
            bytes_and_flops = f"{point.total:>16,} {point.arena:>16,} {point.flops:>18,}"
            lines.append(f"  {bytes_and_flops} {more:>8} {clones:>16}")
        return "\n".join(lines)

    def more(self, point: Point) -> float:
        """Return the FLOPs that a point adds, as a share of those of keeping everything."""
        return point.flops / self.points[0].flops - 1

    def plot(self, path: str | Path) -> Path:
        """Draw the curve in the format of the suffix; raise GraphError without matplotlib."""
        drawn: Path = higher("Curve.plot")(self, path)
        return drawn


def curve(plan: Plan) -> Curve:
    """Return the curve of a plan: no point has both more bytes and more FLOPs than another.

    It is one point, the plan itself, if that does not train.
    """
    kept = keeping_all(plan)
    program = next((name for name in TRAINS if name in kept.programs), "infer")
    first, *others = (_point(made, program) for made in _plans(kept))
    best = [first]
    # Not those that cost more in other programs alone.
    costlier = (point for point in others if point.flops > first.flops)
    for point in sorted({*costlier}, key=lambda p: (p.flops, p.total)):
        if point.total < best[-1].total:
            best.append(point)
    return Curve(plan.declared.name, plan.batch, program, tuple(best))


def _plans(kept: Plan) -> Iterator[Plan]:
    yield kept
    least = smallest(kept)
    most, low = kept.memory.total, least.memory.total
    for step in range(1, STEPS):
        made = fitted(kept, most - (most - low) * step // STEPS)
        if made is not None:
            yield made
    yield least


def _point(plan: Plan, program: str) -> Point:
    flops = program_cost(plan.programs[program], plan.batch).flops
    return Point(plan.memory.total, plan.memory.arena, flops, len(clones(plan, program)))
