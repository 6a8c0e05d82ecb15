"""The cases of a rule, by what its pass asks of sizes, and the proof of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import z3

import graphc.check.prove.other_ops  # noqa: F401  # registers what these ops mean
from graphc.base.errors import GraphError
from graphc.check.prove.constants import TRACED, shape_of
from graphc.check.prove.counterexample import Counterexample, counterexample, named, roots
from graphc.check.prove.equality import Difference, differs, solver
from graphc.check.prove.meaning import Side, Value
from graphc.check.prove.poly import Ranges, number, symbol
from graphc.check.prove.rule import Rule
from graphc.check.prove.sizes import ROWS, Condition, Size, Trace, recording
from graphc.check.prove.terms import Unknown, World, holds, whole
from graphc.ir.graph import Graph
from graphc.ir.op import attributes
from graphc.ir.tensor_type import Batch

MOST_CASES = 64
GUARDED = 40
"""The largest size of the plain numbers with which a case is drawn once more."""


@dataclass(frozen=True)
class Proof:
    """The verdict on a rule: proved, refuted by a counterexample, or neither, with the reason."""

    rule: Rule
    cases: int = 0
    reason: str = ""
    counterexample: Counterexample | None = None

    @property
    def verdict(self) -> str:
        """The verdict in one or two words."""
        if self.counterexample is not None:
            return "refuted"
        return "not proved" if self.reason else "proved"

    def __str__(self) -> str:
        rule = self.rule
        why = f": {self.counterexample or self.reason}" if self.verdict != "proved" else ""
        given = f", {rule.given}" if rule.given else ""
        return f"{self.verdict:<10} {rule.name:<28} {rule.left} -> {rule.right}{given}{why}"


def prove(rule: Rule) -> Proof:
    """Return the verdict on a rule: that of its first form that is not proved, if there is one."""
    cases, fired = 0, False
    for form in rule.forms:
        prover = _Prover(rule, form)
        try:
            found = prover.proof()
        except Unknown as error:
            found = prover.verdict(str(error))
        cases, fired = cases + found.cases, fired or prover.fired
        if found.verdict != "proved":
            return found
    return Proof(rule, cases, "" if fired else "the pass leaves every form as it is")


Sides = tuple[Graph, Graph]


@dataclass(frozen=True)
class _Case:
    """The sides of a rule at some sizes, and the answers by which other sizes have the same."""

    sides: Sides | None
    """None if no graph can be declared with these sizes."""
    sizes: Mapping[str, int]
    conditions: tuple[Condition, ...]


@dataclass
class _Prover:
    """The search for the cases of a form of a rule, and their proofs."""

    rule: Rule
    form: tuple[Any, ...]
    fired: bool = False
    cases: list[_Case] = field(default_factory=list)

    def verdict(self, reason: str = "", found: Counterexample | None = None) -> Proof:
        """Return the verdict after the cases so far."""
        return Proof(self.rule, len(self.cases), reason, found)

    def proof(self) -> Proof:
        """Return the verdict on the form; raise Unknown if there is none."""
        while (sizes := self._uncovered()) is not None:
            case = self._case(sizes)
            self.cases.append(case)
            if case.sides is not None:
                found = self._judged(case, case.sides)
                if found is not None:
                    return found
                self._check_recorded(case, case.sides)
            if len(self.cases) > MOST_CASES:
                raise Unknown(f"more than {MOST_CASES} cases of sizes")
        return self.verdict()

    def _uncovered(self) -> dict[str, int] | None:
        """Return sizes that are in no case yet, or None if the solver shows that there are none."""
        if not self.cases:
            return self.rule.first
        asked = self._sizes()
        for case in self.cases:
            asked.add(z3.Not(z3.And(*map(holds, case.conditions))))
        for most in (6, 40, 2000, 1 << 20, 1 << 24, None):
            asked.push()
            if most is not None:
                asked.add([z3.Int(name) <= most for name in self.rule.least])
            answer = asked.check()
            if answer == z3.sat:
                return self._numbers(asked.model())
            asked.pop()
        if answer == z3.unknown:
            raise Unknown("the solver does not know whether all sizes are covered")
        return None

    def _sizes(self) -> Any:
        """Return a solver that knows the least value of each size."""
        asked = solver()
        asked.add([z3.Int(name) >= least for name, least in self.rule.least.items()])
        return asked

    def _numbers(self, model: Any) -> dict[str, int]:
        return {name: model.eval(z3.Int(name), True).as_long() for name in self.rule.least}

    def _case(self, sizes: Mapping[str, int]) -> _Case:
        """Run the rule at sizes, and record what it asks of them."""
        trace = Trace(Ranges(self.rule.least))
        with recording(trace):
            sides = self._sides({name: Size(size, symbol(name)) for name, size in sizes.items()})
        return _Case(sides, sizes, tuple(trace.conditions.values()))

    def _sides(self, sizes: Mapping[str, int]) -> Sides | None:
        """Return both sides, None if they cannot be declared; raise Unknown if the pass fails."""
        TRACED.clear()
        try:
            drawn = self.rule.drawing(self.form, sizes)
        except (GraphError, ValueError):
            return None
        try:
            right = self.rule.rewrite(drawn)
        except (GraphError, ValueError) as error:
            why = str(error).partition("\n")[0]
            raise Unknown(f"with {named(sizes)}, the pass fails: {why}") from None
        self.fired = self.fired or right is not drawn
        return self.rule.before(drawn), right

    def _judged(self, case: _Case, sides: Sides) -> Proof | None:
        """Return why the sides of a case may differ, or None if they are equal."""
        _check_results(*sides)
        left, right = _compared(self.rule, case.conditions, sides)
        for root in sorted(roots(left.graph)):
            a, b = (side.value(roots(side.graph)[root]) for side in (left, right))
            difference = _difference(left.world, a, b)
            if difference is not None:
                found = counterexample(self.rule, self._sides, case.sizes, difference.model)
                reason = "" if found else f"the solver cannot decide about {root}"
                return self.verdict(reason, found)
        return None

    def _check_recorded(self, case: _Case, sides: Sides) -> None:
        """Draw and rewrite the case with other sizes, as plain numbers, and compare the graphs.

        Raise Unknown if they differ: then a size, or a question about one, was not recorded.
        """
        asked = self._sizes()
        asked.add([z3.Int(name) <= GUARDED for name in case.sizes])
        asked.add(*map(holds, case.conditions))
        asked.add(z3.Or(*[z3.Int(name) != size for name, size in case.sizes.items()]))
        if asked.check() != z3.sat:
            return  # the case has one size alone, or only large ones
        sizes = self._numbers(asked.model())
        expected = [node for side in sides for node in _described(side, sizes)]
        found = [node for side in self._sides(sizes) or () for node in _described(side, {})]
        if found != expected:
            pairs = zip(expected, found, strict=False)
            name = next((a[0] for a, b in pairs if a != b), "a node")
            raise Unknown(f"with {named(sizes)}, {name} is not what the case says")


def _check_results(left: Graph, right: Graph) -> None:
    """Raise Unknown unless the right side has the results of the left one, in their dtypes."""
    others = roots(right)
    for root, name in roots(left).items():
        dtype = right[others[root]].type.dtype if root in others else "missing"
        if dtype != left[name].type.dtype:
            raise Unknown(f"on the right side, {root} is {dtype}")


def _compared(rule: Rule, conditions: tuple[Condition, ...], sides: Sides) -> tuple[Side, Side]:
    """Return the meanings of two sides: with shards of the whole batch, and of the first of two."""
    left, right = sides
    world = World(Ranges({ROWS: 1, **rule.least, **dict.fromkeys(rule.rows, 1)}), conditions)
    if not rule.shards:
        return Side(world, left, train=rule.train), Side(world, right, train=rule.train)
    first, second = map(symbol, rule.rows)
    batch, shards = Side(world, left, first + second), list[Side]()
    for rows, start in ((first, number(0)), (second, first)):
        shards.append(Side(world, right, rows, start, shards, batch))
    return batch, shards[0]


def _difference(world: World, a: Value, b: Value) -> Difference | None:
    """Return how two values may differ in their shapes or at any index, or None if they cannot."""
    if len(a.shape) != len(b.shape):
        return Difference(None)
    sizes = zip(a.shape, b.shape, strict=True)
    if a.shape != b.shape and any(differs(world, whole(p), whole(q)) for p, q in sizes):
        return Difference(None)
    index = tuple(world.index(size, "i")[0] for size in a.shape)
    return differs(world, a.at(index), b.at(index))


def _described(graph: Graph, sizes: Mapping[str, int]) -> Iterator[tuple[object, ...]]:
    """Yield all of each node but the numbers of constants, with numbers in place of symbols."""
    for node in graph:
        fields = {} if node.op.is_constant else attributes(node.op)
        yield node.name, type(node.op), node.inputs, _at((shape_of(node), *fields.items()), sizes)


def _at(value: Any, sizes: Mapping[str, int]) -> Any:
    """Return attributes with numbers in place of symbols."""
    if isinstance(value, tuple):
        return tuple(_at(part, sizes) for part in value)
    if isinstance(value, Batch):
        return replace(value, factor=_at(value.factor, sizes))
    return value.poly.at(sizes) if isinstance(value, Size) else value
