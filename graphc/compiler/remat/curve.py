"""The curve of memory against work: from keeping every value to the least memory that is found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from graphc.base.door import higher
from graphc.compiler.cost import program_cost
from graphc.compiler.remat.fit import fitted, smallest
from graphc.compiler.remat.recomputation import clones, keeping_all

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan

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
        head = ("total bytes", "of them arena", "FLOPs", "more", "computed again")
        lines.append("  {:>16} {:>16} {:>18} {:>8} {:>16}".format(*head))
        for point in self.points:
            more = f"{self.more(point):+.1%}"
            again = f"{point.nodes:,} node{'' if point.nodes == 1 else 's'}"
            lines.append(
                f"  {point.total:>16,} {point.arena:>16,} {point.flops:>18,} {more:>8} {again:>16}"
            )
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
    dearer = (point for point in others if point.flops > first.flops)  # not in other programs alone
    for point in sorted({*dearer}, key=lambda p: (p.flops, p.total)):
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
