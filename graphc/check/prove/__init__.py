"""Proofs that rewrite rules are right for every size, over the reals.

A rule draws the left side as a graph whose sizes are symbols; the pass itself makes the right side
of it.  What the pass asks of sizes divides them into cases, of which each gets its own right side
and its own proof, until the solver shows that no sizes are left.  Both sides of a case are compared
at any index; if they can differ, sizes and numbers at which they do are run by the ops' reference
rules.

TensorRight (Arora et al., POPL 2025, arXiv:2511.17838) proves rules of XLA, written once more in
its own language, for any rank and size; here the rule is what the pass does, and its rank is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, NamedTuple

from graphc.base.errors import GraphError

try:
    import z3
except ImportError:
    raise GraphError(
        "rules are proved by z3, which is not installed", hint="pip install 'graphc-nn[prove]'"
    ) from None

import graphc.compiler  # noqa: F401  # tells of another package `passes` in the way
from graphc.check.prove import moves, simple_rules, step_rules  # noqa: F401
from graphc.check.prove.counterexample import Counterexample, differing, roots, trials
from graphc.check.prove.meaning import Side, Value
from graphc.check.prove.rule import RULES as RULES
from graphc.check.prove.rule import Draw, Rule
from graphc.check.prove.symbols import (
    ROWS,
    TRACED,
    Condition,
    Poly,
    Ranges,
    Size,
    Trace,
    number,
    recording,
    symbol,
)
from graphc.check.prove.terms import INVERSE, SQRT, Term, Unknown, World, names_in, whole
from graphc.ir.graph import Graph
from graphc.ir.op import attributes
from graphc.ir.tensor_type import Batch

MOST_CASES = 64
PATIENCE = 3_000_000
"""The steps that the solver gets for a question, of which it makes some millions a second."""


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
    for draw in rule.forms:
        prover = _Prover(rule, draw)
        found = prover.proof()
        cases, fired = cases + found.cases, fired or prover.fired
        if found.verdict != "proved":
            return found
    return Proof(rule, cases, "" if fired else "the pass leaves every form as it is")


@dataclass(frozen=True)
class _Case:
    """The sides of a rule at some sizes, and the answers by which other sizes have the same."""

    left: Graph | None
    """None if no graph can be declared with these sizes."""
    right: Graph | None
    sizes: Mapping[str, int]
    conditions: tuple[Condition, ...]


@dataclass
class _Prover:
    """The search for the cases of a form of a rule, and their proofs."""

    rule: Rule
    draw: Draw
    fired: bool = False
    cases: list[_Case] = field(default_factory=list)

    def proof(self) -> Proof:
        """Return the verdict on the form."""
        try:
            while (sizes := self._uncovered()) is not None:
                case = self._case(sizes)
                self.cases.append(case)
                found = self._judged(case)
                if found is not None:
                    return found
                if len(self.cases) > MOST_CASES:
                    return self._failed(f"more than {MOST_CASES} cases of sizes")
        except Unknown as error:
            return self._failed(str(error))
        return Proof(self.rule, len(self.cases))

    def _failed(self, reason: str) -> Proof:
        return Proof(self.rule, len(self.cases), reason)

    def _uncovered(self) -> dict[str, int] | None:
        """Return sizes that are in no case yet, or None if the solver shows that there are none."""
        if not self.cases:
            return dict(self.rule.sizes)
        solver = _solver()
        solver.add([z3.Int(n) >= least for n, least in self.rule.least.items()])
        for case in self.cases:
            solver.add(z3.Not(z3.And(*map(_holds, case.conditions))))
        for most in (6, 40, 2000, 1 << 20, 1 << 24, None):
            solver.push()
            if most is not None:
                solver.add([z3.Int(name) <= most for name in self.rule.sizes])
            answer = solver.check()
            if answer == z3.sat:
                model = solver.model()
                return {n: model.eval(z3.Int(n), True).as_long() for n in self.rule.sizes}
            solver.pop()
        if answer == z3.unknown:
            raise Unknown("the solver does not know whether all sizes are covered")
        return None

    def _case(self, sizes: Mapping[str, int]) -> _Case:
        """Run the rule at sizes, and record what it asks of them."""
        trace = Trace(Ranges(dict(self.rule.least)))
        with recording(trace):
            left, right = self._sides({n: Size(v, symbol(n)) for n, v in sizes.items()})
        return _Case(left, right, sizes, tuple(trace.conditions.values()))

    def _sides(self, sizes: Mapping[str, int]) -> tuple[Graph | None, Graph | None]:
        """Return the two sides of the rule, or nothing if no such graph can be declared."""
        TRACED.clear()
        try:
            drawn = self.rule.drawing(self.draw, sizes)
        except (GraphError, ValueError):
            return None, None
        right = self.rule.rewrite(drawn)
        self.fired = self.fired or right is not drawn
        return self.rule.before(drawn), right

    def _judged(self, case: _Case) -> Proof | None:
        """Return why the sides of a case may differ, or None if they are equal."""
        if case.left is None or case.right is None:
            return None
        comparison = _Comparison(self.rule, case)
        for root in sorted(roots(case.left)):
            difference = comparison.difference(root)
            if difference is not None:
                found = self._counterexample(case, difference)
                reason = "" if found else f"the solver cannot decide about {root}"
                return Proof(self.rule, len(self.cases), reason, found)
        self._check_recorded(case, case.left, case.right)
        return None

    def _check_recorded(self, case: _Case, left: Graph, right: Graph) -> None:
        """Draw and rewrite the case with other sizes, as plain numbers, and compare the graphs.

        Raise Unknown if they differ: then a size, or a question about one, was not recorded.
        """
        solver = _solver()
        solver.add([z3.And(z3.Int(n) >= k, z3.Int(n) <= 40) for n, k in self.rule.least.items()])
        solver.add(*map(_holds, case.conditions))
        solver.add(z3.Or(*[z3.Int(name) != size for name, size in case.sizes.items()]))
        if solver.check() != z3.sat:
            return  # the case has one size alone, or only large ones
        model = solver.model()
        sizes = {n: model.eval(z3.Int(n), True).as_long() for n in self.rule.sizes}
        expected = [list(_described(graph, sizes)) for graph in (left, right)]
        graphs = self._sides(sizes)
        found = [list(_described(graph, {})) for graph in graphs if graph is not None]
        if found != expected:
            pairs = (
                pair
                for sides in zip(expected, found, strict=False)
                for pair in zip(*sides, strict=False)
            )
            name = next((a[0] for a, b in pairs if a != b), "a node")
            raise Unknown(f"with sizes {sizes}, {name} is not what the case says")

    # -------------------------------------------------------------- counterexamples

    def _counterexample(self, case: _Case, difference: Difference) -> Counterexample | None:
        """Return sizes and numbers with which the sides differ when they are run, or None.

        Rather those with which both can be run.
        """
        broken = None
        for sizes, draw in trials(self.rule, case.sizes, difference.model):
            left, right = self._sides({n: sizes[n] for n in self.rule.sizes})
            if left is not None and right is not None:
                found = differing(left, right, sizes, draw, self.rule.train)
                if found is not None and not isinstance(found.right, str):
                    return found
                broken = broken or found
        return broken


def _described(graph: Graph, sizes: Mapping[str, int]) -> Iterator[tuple[object, ...]]:
    """Yield all of each node but the numbers of constants, with numbers in place of symbols."""
    for node in graph:
        known = TRACED.get((node.type.dtype, getattr(node.op, "data", b"")))
        fields = {} if node.op.is_constant else attributes(node.op)
        shape = node.type.shape if known is None else known.sizes
        yield node.name, type(node.op), node.inputs, _at((shape, *fields.items()), sizes)


def _at(value: object, sizes: Mapping[str, int]) -> object:
    """Return attributes with numbers in place of symbols."""
    if isinstance(value, tuple):
        return tuple(_at(part, sizes) for part in value)
    if isinstance(value, Batch):
        return Batch(
            value.factor if not isinstance(value.factor, Size) else value.factor.poly.at(sizes)
        )
    return value.poly.at(sizes) if isinstance(value, Size) else value


def _solver() -> Any:
    solver = z3.Solver()
    solver.set("rlimit", PATIENCE)
    return solver


def _holds(condition: Condition) -> Term:
    poly = whole(condition.poly)
    term = poly == 0 if condition.kind == "zero" else poly >= 0
    return term if condition.holds else z3.Not(term)


class Difference(NamedTuple):
    """Two terms may differ, as in this model if the solver has one."""

    model: Term | None


class _Comparison:
    """The comparison of the two sides of a case, at any index of a result."""

    def __init__(self, rule: Rule, case: _Case) -> None:
        assert case.left is not None
        assert case.right is not None
        self.left, self.right = case.left, case.right
        self.conditions = case.conditions
        ranges = Ranges({ROWS: 1, **rule.least})
        self.world = World(ranges, list(rule.sizes), _equalities(case.conditions, list(rule.sizes)))
        if rule.shards:
            self._cut()
        else:
            left, right = (Side(self.world, g, train=rule.train) for g in (self.left, self.right))
            self.sides = [left], [right]

    def _cut(self) -> None:
        """Run the left side on the whole batch and the right one on its two shards."""
        first, second = symbol("N1"), symbol("N2")
        self.world.ranges.least.update(N1=1, N2=1)
        self.world.order = [*self.world.order, "N1", "N2"]
        batch = Side(self.world, self.left, first + second)
        shards: list[Side] = []
        for rows, start in ((first, number(0)), (second, first)):
            side = Side(self.world, self.right, rows, start, shards)
            side.divisor = lambda name: batch.value(name).at(())
            shards.append(side)
        self.sides = [batch], shards[:1]

    def difference(self, root: str) -> Difference | None:
        """Return how a result may differ, or None if it cannot."""
        a = self.sides[0][0].value(roots(self.left)[root])
        b = self.sides[1][0].value(roots(self.right)[root])
        if a.shape != b.shape and self._shapes_differ(a, b):
            return Difference(None)
        index = tuple(self.world.index(size, "i")[0] for size in a.shape)
        return _Equality(self).counter(a.at(index), b.at(index))

    def _shapes_differ(self, a: Value, b: Value) -> bool:
        """Return whether two values may have other shapes."""
        if len(a.shape) != len(b.shape):
            return True
        equality, sizes = _Equality(self), zip(a.shape, b.shape, strict=True)
        return any(equality.counter(whole(p), whole(q)) is not None for p, q in sizes)


def _place(atoms: Sequence[object], order: Sequence[str]) -> int:
    return order.index(str(atoms[0])) if len(atoms) == 1 and atoms[0] in order else -1


def _equalities(conditions: Iterable[Condition], order: Sequence[str]) -> dict[str, Poly]:
    """Return what symbols are equal to by the conditions, the later of them by the earlier."""
    found: dict[str, Poly] = {}
    for poly, kind, holds in conditions:
        poly = poly.replaced(found)
        for atoms, factor in sorted(poly.terms, key=lambda term: -_place(term[0], order)):
            if kind == "zero" and holds and len(atoms) == 1 and abs(factor) == 1:
                name = str(atoms[0])
                value = symbol(name) - poly * number(factor)
                if name not in value.symbols and name in poly.symbols:
                    found = {n: p.replaced({name: value}) for n, p in found.items()}
                    found[name] = value
                    break
    return found


class _Equality:
    """The question whether two terms are equal, under what is known of sizes and indices."""

    def __init__(self, comparison: _Comparison) -> None:
        self.world = comparison.world
        self.conditions = comparison.conditions

    def counter(self, a: Term, b: Term, facts: tuple[Term, ...] = ()) -> Difference | None:
        """Return how two terms may differ, or None if they are equal."""
        a, b = self.world.normal(a), self.world.normal(b)
        if z3.eq(a, b) or (z3.is_real(a) and z3.eq(z3.simplify(a - b, som=True), z3.RealVal(0))):
            return None
        solver = _solver()
        solver.add(*self._known(names_in(a) | names_in(b)), *facts)
        solver.add(*self._lemmas((a, b), facts))
        solver.add(*_axioms((a, b)), a != b)
        answer = solver.check()
        if answer == z3.unsat:
            return None
        return Difference(solver.model() if answer == z3.sat else None)

    def _known(self, names: frozenset[str]) -> Iterator[Term]:
        """Yield the ranges of symbols, and the conditions of the case.

        Of indices only those of these names have a range: a sum may have no term at all.
        """
        for name, least in self.world.ranges.least.items():
            yield z3.Int(name) >= least
        for name in self.world.ranges.bounds.keys() & names:
            yield z3.And(z3.Int(name) >= 0, z3.Int(name) < whole(self.world.ranges.bounds[name]))
        for name, value in self.world.equal.items():
            yield z3.Int(name) == whole(value)
        yield from map(_holds, self.conditions)

    def _lemmas(self, terms: tuple[Term, Term], facts: tuple[Term, ...]) -> Iterator[Term]:
        """Yield the equalities of folds in the terms whose bounds and bodies are equal."""
        folds = self.world.folds
        left, right = ({one.sexpr(): one for one in _applied(term, folds)} for term in terms)
        used = {**left, **right}
        alone = [key for key in used if (key in left) != (key in right)]
        pairs = {(min(k, m), max(k, m)) for k, m in product(alone, used) if k != m}
        for f, g in ((used[k], used[m]) for k, m in sorted(pairs)):
            a, b = (folds[one.decl().name()] for one in (f, g))
            if a.kind == b.kind and self.counter(a.bound, b.bound, facts) is None:
                index = z3.FreshInt("k")
                one, other = (
                    z3.substitute(
                        fold.body,
                        (fold.index, index),
                        *zip(fold.indices, at.children(), strict=True),
                    )
                    for fold, at in ((a, f), (b, g))
                )
                inside = (*facts, index >= 0, index < a.bound)
                if self.counter(one, other, inside) is None:
                    yield f == g


def _applied(term: Term, names: Iterable[str]) -> list[Term]:
    """Return the applications of the functions of these names in a term."""
    found, seen, stack = [], set(), [term]
    while stack:
        one = stack.pop()
        if one.get_id() not in seen:
            seen.add(one.get_id())
            stack.extend(one.children())
            if z3.is_app(one) and one.decl().name() in names:
                found.append(one)
    return found


def _axioms(terms: tuple[Term, ...]) -> Iterator[Term]:
    """Yield what is true of the inverses and square roots in the terms."""
    for term in terms:
        for one in _applied(term, {INVERSE.name()}):
            (x,) = one.children()
            yield z3.Implies(x != 0, x * one == 1)
        for one in _applied(term, {SQRT.name()}):
            (x,) = one.children()
            yield z3.Implies(x >= 0, z3.And(one >= 0, one * one == x))
            yield z3.Implies(x > 0, one > 0)
