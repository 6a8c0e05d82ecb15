"""The question whether two terms are equal, under what is known of sizes and indices."""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import product
from typing import Any, NamedTuple

import z3

from graphc.check.prove.terms import INVERSE, SQRT, Term, World, holds, names_in, parts, whole

PATIENCE = 3_000_000
"""The steps that the solver gets for a question, of which it makes some millions a second."""


class Difference(NamedTuple):
    """Two terms may differ, as in this model if the solver has one."""

    model: Term | None


def solver() -> Any:
    """Return a solver whose patience does not depend on the machine."""
    found = z3.Solver()
    found.set("rlimit", PATIENCE)
    return found


def differs(world: World, a: Term, b: Term, facts: tuple[Term, ...] = ()) -> Difference | None:
    """Return how two terms may differ, or None if they are equal."""
    a, b = world.normal(a), world.normal(b)
    if z3.eq(a, b) or (z3.is_real(a) and z3.eq(z3.simplify(a - b, som=True), z3.RealVal(0))):
        return None
    asked = solver()
    asked.add(*_known(world, names_in(a) | names_in(b)), *facts)
    asked.add(*_lemmas(world, (a, b), facts))
    asked.add(*_axioms((a, b)), a != b)
    answer = asked.check()
    if answer == z3.unsat:
        return None
    return Difference(asked.model() if answer == z3.sat else None)


def _known(world: World, names: frozenset[str]) -> Iterator[Term]:
    """Yield the ranges of symbols, and the conditions of the case.

    Of indices only those of these names have a range: a sum may have no term at all.
    """
    for name, least in world.ranges.least.items():
        yield z3.Int(name) >= least
    for name in world.ranges.bounds.keys() & names:
        yield z3.And(z3.Int(name) >= 0, z3.Int(name) < whole(world.ranges.bounds[name]))
    yield from map(holds, world.conditions)


def _lemmas(world: World, terms: tuple[Term, Term], facts: tuple[Term, ...]) -> Iterator[Term]:
    """Yield the equalities of folds in the terms whose bounds and bodies are equal."""
    left, right = ({one.sexpr(): one for one in _applied(term, world.folds)} for term in terms)
    used = {**left, **right}
    alone = [key for key in used if (key in left) != (key in right)]
    pairs = {(min(k, m), max(k, m)) for k, m in product(alone, used) if k != m}
    for f, g in ((used[k], used[m]) for k, m in sorted(pairs)):
        a, b = (world.folds[one.decl().name()] for one in (f, g))
        if a.kind == b.kind and differs(world, a.bound, b.bound, facts) is None:
            k = z3.FreshInt("k")
            inside = (*facts, k >= 0, k < a.bound)
            if differs(world, a.term(k, f.children()), b.term(k, g.children()), inside) is None:
                yield f == g


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


def _applied(term: Term, names: Container[str]) -> Iterator[Term]:
    """Yield the applications of the functions of these names in a term."""
    return (one for one in parts(term) if z3.is_app(one) and one.decl().name() in names)
