"""Make a plan fit a budget: choose, build the real programs, and correct by what they need.

The choice counts the values of a graph one by one.  A program fuses, shares and rounds them, so
that its arena is a little larger or smaller: the limit for the choice is moved by the difference
and the choice is repeated, a few times at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from graphc.base.errors import GraphError
from graphc.compiler.cost import program_cost
from graphc.compiler.remat.search import Choice, choose, least
from graphc.compiler.remat.values import Values
from graphc.kernels.program import PREPARE, Program
from graphc.kernels.traits import Forms
from passes.pipeline import Pass, PassRecord, run_passes
from passes.rematerialize import Rematerialize

if TYPE_CHECKING:
    from graphc.compiler.plan import Plan

SLOT = "rematerialize"
"""The name of the pass that recomputes."""
TRIES = 4
"""The number of times that a program is built for one limit."""
REPEATS = "repeat_elements"
"""The last pass of a program with kernels, which is left out if more is recomputed."""
NEAR = 50
"""A program that leaves at most 1/NEAR of its limit unused is not rebuilt with less work."""


def fitted(plan: Plan, budget: int) -> Plan | None:
    """Return the plan, with values recomputed so that it needs at most `budget` bytes.

    It is the plan itself if that fits; None if none is found or without the pass `rematerialize`.
    """
    if plan.memory.total <= budget:
        return plan
    plan = sparing(plan)
    over = plan.memory.total - budget
    if over <= 0:
        return plan
    if SLOT not in plan.options.passes.names or plan.memory.total - plan.memory.arena > budget:
        return None
    fittings = _fittings(plan)
    limit = max(plan.memory.arenas.values()) - over
    while (result := _within(plan, fittings, limit)) is not None:
        over = result.memory.total - budget
        if over <= 0:
            return result
        limit -= over  # what clones need besides the arena
    result = _smallest(plan, fittings)
    return result if result.memory.total <= budget else None


def sparing(plan: Plan) -> Plan:
    """Return the plan with more barriers, so that less memory is kept for kernels that wait.

    Nor does inference keep anything of the state.
    """
    plan = plan.without_kept
    made = replace(plan, options=replace(plan.options, sparing=True))
    return made if plan.options.has_more_barriers else at_batch(made, plan.batch)


def smallest(plan: Plan) -> Plan:
    """Return the plan with the least memory that is found; itself if none is smaller."""
    return fitted(plan, least_total(plan)) or plan


def least_total(plan: Plan) -> int:
    """Return the fewest bytes that are found for a plan, with recomputation."""
    plan = sparing(plan)
    if SLOT not in plan.options.passes.names:
        return plan.memory.total
    return min(plan.memory.total, _smallest(plan, _fittings(plan)).memory.total)


def _smallest(plan: Plan, fittings: Sequence[Fitting]) -> Plan:
    """Return the plan with the smallest arenas that are found; its other memory may be larger."""
    limit = max(fitting.smallest().program.arena.nbytes for fitting in fittings)
    result = _within(plan, fittings, limit)
    if result is None:  # every program can be as small as the largest of them
        raise GraphError("planner= gave the same live ranges arenas of different sizes")
    return result


def at_batch(plan: Plan, n: int) -> Plan:
    """Return the same plan made for `n` rows."""
    graphs = {name: made.graph for name, made in plan.programs.items() if name != PREPARE}
    programs = replace(plan.options, batch=n).programs(graphs, Forms())
    return replace(plan, batch=n, programs=programs, options=plan.options.of_rows(n))


def largest_batch(plan: Plan, budget: int, least: int | None = None) -> int:
    """Return the largest batch that fits with recomputation, of a plan that keeps everything.

    It is 0 if none does.  `least` is the `least_total` of the plan, if that is known.
    """
    least = least or least_total(plan)
    return _largest(plan, budget, least, lambda n: fitted(at_batch(plan, n), budget) is not None)


def largest_batch_kept(plan: Plan, budget: int) -> int:
    """Return the largest batch that fits without recomputation, or 0."""
    plan = sparing(plan)
    most = plan.memory.total
    return _largest(plan, budget, most, lambda n: at_batch(plan, n).memory.total <= budget)


def _largest(plan: Plan, budget: int, most: int, fits: Callable[[int], bool]) -> int:
    """Return the largest batch that fits, if larger ones need more; `most` is the plan's need.

    Bytes are nearly a + b*N, which gives the first guess.
    """
    fixed = at_batch(plan, 1).memory.total
    guess = max(1, 1 + (plan.batch - 1) * (budget - fixed) // max(most - fixed, 1))
    step = 1
    if fits(guess):
        low = guess
        while fits(low + step):
            low, step = low + step, 2 * step
        high = low + step
    else:
        low, high = guess - 1, guess
        while low > 0 and not fits(low):
            low, high, step = max(low - step, 0), low, 2 * step
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _fittings(plan: Plan) -> list[Fitting]:
    """Return the programs, the largest first, so that a misfit is known as soon as possible."""
    forms = Forms()
    return sorted(
        (Fitting(plan, name, forms) for name in plan.programs),
        key=lambda fitting: -fitting.kept.program.arena.nbytes,
    )


def _within(plan: Plan, fittings: Iterable[Fitting], limit: int) -> Plan | None:
    """Return the plan with all arenas within a limit, or None."""
    found: dict[str, Made] = {}
    for fitting in fittings:
        made = fitting.within(limit)
        if made is None:
            return None
        found[fitting.name] = made
    programs = {name: found[name].program for name in plan.programs}
    graphs = {name: found[name].records for name in plan.programs}
    return replace(plan, programs=programs, graphs=graphs)


@dataclass(frozen=True)
class Made:
    """A program, and the passes that led to it."""

    program: Program
    records: tuple[PassRecord, ...]
    names: frozenset[str] = frozenset()
    """The nodes that are recomputed."""

    @cached_property
    def flops(self) -> int:
        """The operations of a run of the largest batch."""
        return program_cost(self.program, self.program.capacity).flops


class Fitting:
    """One program of a plan, to be rebuilt with a smaller arena."""

    def __init__(self, plan: Plan, name: str, forms: Forms) -> None:
        self.plan, self.name, self._forms = plan, name, forms
        self.kept = Made(plan.programs[name], plan.graphs[name])
        """The program as it is, in which nothing is recomputed."""
        passes = plan.options.passes
        rest = list(passes)[passes.names.index(SLOT) + 1 :]
        self._tail = tuple(step for step in rest if not isinstance(step, str))
        records = tuple(row for row in self.kept.records if row.name != REPEATS)
        self._head = records[: len(records) - len(self._tail)]

    @cached_property
    def values(self) -> Values:
        """The values of the graph that may be recomputed or kept."""
        return Values(self._head[-1].graph, self.kept.program.capacity)

    @cached_property
    def _least(self) -> Choice:
        return least(self.values)

    def within(self, limit: int) -> Made | None:
        """Return the program with an arena of at most `limit` bytes and little work, or None."""
        arena = self.kept.program.arena.nbytes
        if arena <= limit:
            return self.kept
        target = limit - (arena - Choice(self.values).peak)
        best: Made | None = None
        low = high = 0  # the last targets that led to a program within the limit, and above it
        for left in reversed(range(TRIES)):
            choice = choose(self.values, target) if left else None
            if best is not None and (choice is None or best.names == choice.names()):
                break
            made = self.made(choice or self._least)
            spare = limit - made.program.arena.nbytes
            if spare >= 0 and (best is None or made.flops < best.flops):
                best = made
            if choice is None or 0 <= spare <= limit // NEAR:
                break
            low, high = (target, high) if spare >= 0 else (low, target)
            target = (low + high) // 2 if low and high else choice.peak + spare
        return best

    def smallest(self) -> Made:
        """Return the program with the smallest arena that is found."""
        made = self.made(self._least)
        return made if made.program.arena.nbytes < self.kept.program.arena.nbytes else self.kept

    def made(self, choice: Choice) -> Made:
        """Build the program in which the values of a choice are recomputed."""
        steps: tuple[Pass, ...] = (Rematerialize(choice.names()), *self._tail)
        graph, records = run_passes(self._head[-1].graph, steps, verified=True)
        rows = self.kept.program.capacity
        program = self.plan.options.program(self.name, graph, self._forms, rows)
        return Made(program, (*self._head, *records), choice.names())
