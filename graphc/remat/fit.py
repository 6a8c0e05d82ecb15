"""Make a plan fit a budget: choose, build the real programs, and correct by what they need.

The choice counts the values of a graph one by one.  A program fuses, shares and rounds them, so
that its arena is a little larger or smaller: the limit for the choice is moved by the difference
and the choice made again, a few times at most.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from graphc.plan import Plan, Program
from graphc.profile.cost import program_cost
from graphc.program import build_program
from graphc.remat.search import Choice, choose, least
from graphc.remat.values import Values

if TYPE_CHECKING:
    from passes.pipeline import PassRecord

SLOT = "rematerialize"
TRIES = 4
"""How often a program is built for one limit."""
NEAR = 50
"""A program that leaves at most 1/NEAR of its limit unused is not made again with less work."""


def fitted(plan: Plan, budget: int) -> Plan | None:
    """A plan that needs at most `budget` bytes, since its programs compute values again.

    The plan itself where it fits as it is; None where no such plan is found, or its pass list
    is without the pass.
    """
    over = plan.memory.total - budget
    if over <= 0:
        return plan
    if SLOT not in plan.recipe.passes.names:
        return None
    fittings = [Fitting(plan, name) for name in plan.programs]
    limit = max(plan.memory.arenas.values()) - over
    for _ in range(2):
        made = [fitting.within(limit) for fitting in fittings]
        found = [each for each in made if each is not None]
        if len(found) < len(made):
            return None
        result = _with_programs(plan, found)
        over = result.memory.total - budget
        if over <= 0:
            return result
        limit -= over  # what clones need besides the arena
    return None


def smallest(plan: Plan) -> Plan:
    """The plan with the least memory that is found; itself where none is smaller."""
    if SLOT not in plan.recipe.passes.names:
        return plan
    fittings = [Fitting(plan, name) for name in plan.programs]
    limit = max(fitting.smallest().program.arena.nbytes for fitting in fittings)
    made = [fitting.within(limit) for fitting in fittings]
    result = _with_programs(plan, [each for each in made if each is not None])
    return result if result.memory.total < plan.memory.total else plan


def at_batch(plan: Plan, n: int) -> Plan:
    """The same plan made for `n` rows."""
    known = plan.programs.items()
    programs = {name: build_program(name, p.graph, n, p.backend) for name, p in known}
    return replace(plan, batch=n, programs=programs, recipe=replace(plan.recipe, batch=n))


def largest_batch(plan: Plan, budget: int) -> int:
    """The largest batch below the plan's that fits when values are computed again, or 0."""
    fixed, most = at_batch(plan, 1).memory.total, smallest(plan).memory.total
    guess = plan.batch * (budget - fixed) // max(most - fixed, 1)  # bytes are a + b*N, nearly
    low, high, step = 0, plan.batch, 1
    middle = guess
    while high - low > 1:
        middle = min(max(middle, low + 1), high - 1)
        if fitted(at_batch(plan, middle), budget) is not None:
            low, middle = middle, middle + step
        else:
            high, middle = middle, middle - step
        step *= 2
        if low and high < plan.batch:
            middle = (low + high) // 2
    return low


def _with_programs(plan: Plan, made: list[Made]) -> Plan:
    programs = {each.program.name: each.program for each in made}
    return replace(plan, programs=programs, graphs={e.program.name: e.records for e in made})


@dataclass(frozen=True)
class Made:
    """A program, and the passes that led to it."""

    program: Program
    records: tuple[PassRecord, ...]
    names: frozenset[str] = frozenset()
    """What is computed again."""

    @cached_property
    def flops(self) -> int:
        """The operations of a run of as many rows as there may be."""
        return program_cost(self.program, self.program.capacity).flops


class Fitting:
    """One program of a plan, to be made again with a smaller arena."""

    def __init__(self, plan: Plan, name: str) -> None:
        self.plan, self.name = plan, name
        self.kept = Made(plan.programs[name], plan.graphs[name])
        """The program as it is, in which nothing is computed again."""
        passes = plan.recipe.passes
        rest = list(passes)[passes.names.index(SLOT) + 1 :]
        self._tail = tuple(step for step in rest if not isinstance(step, str))
        self._head = self.kept.records[: len(self.kept.records) - len(self._tail)]

    @cached_property
    def values(self) -> Values:
        """The values to choose from."""
        return Values(self._head[-1].graph, self.plan.batch)

    @cached_property
    def _least(self) -> Choice:
        return least(self.values)

    def within(self, limit: int) -> Made | None:
        """The program with an arena of at most `limit` bytes and little work; None without one."""
        arena = self.kept.program.arena.nbytes
        if arena <= limit:
            return self.kept
        target = limit - (arena - Choice(self.values).peak)
        best: Made | None = None
        for left in reversed(range(TRIES)):
            choice = choose(self.values, target) if left else None
            if best is not None and (choice is None or best.names == choice.names()):
                break
            made = self.made(choice or self._least)
            spare = limit - made.program.arena.nbytes
            if spare >= 0 and (best is None or made.flops < best.flops):
                best = made
            if choice is None or 0 <= spare <= limit // NEAR or (best is not None and spare < 0):
                break
            target = choice.peak + spare
        return best

    def smallest(self) -> Made:
        """The program with the smallest arena that is found."""
        made = self.made(self._least)
        return made if made.program.arena.nbytes < self.kept.program.arena.nbytes else self.kept

    def made(self, choice: Choice) -> Made:
        """The program for a choice."""
        from passes.pipeline import run_passes
        from passes.rematerialize import Rematerialize

        steps = (Rematerialize(choice.names()), *self._tail)
        graph, records = run_passes(self._head[-1].graph, steps, verified=True)
        program = build_program(self.name, graph, self.plan.batch, self.plan.backend)
        return Made(program, (*self._head, *records), choice.names())
