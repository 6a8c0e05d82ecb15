"""Terms of z3 for sizes, sums and functions, over the reals.

A sum over a size that is a symbol is a function of the indices that it depends on.  Its lemmas,
which are applied when it is made, are

    linearity    sum(a * f + g) = a * sum(f) + sum(g), for a without the index
    splitting    sum below m + n of f(i) = sum below m of f(i) + sum below n of f(m + i)
    reindexing   sum below m * n of f(i) = sum below m of the sums below n of f(i * n + j)

Functions such as exp are any functions; 1 / x and sqrt have their axioms, where a proof needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, reduce
from itertools import count
from math import isfinite
from operator import add, eq, ge, gt, le, lt, mul, ne, neg, sub
from typing import Any

import z3

from graphc.check.prove.poly import Index, Poly, Quotient, Ranges, Sizes, number, symbol
from graphc.check.prove.sizes import Condition

Term = Any
"""A term of z3."""
Meaning = Callable[[Index], Term]

INVERSE = z3.Function("inverse", z3.RealSort(), z3.RealSort())
SQRT = z3.Function("sqrt", z3.RealSort(), z3.RealSort())


class Unknown(Exception):
    """An op, or a use of one, that has no meaning here."""


# ------------------------------------------------------------------ sizes and sums


def whole(poly: Poly) -> Term:
    """Return a polynomial as a whole number of z3."""
    terms = [
        reduce(mul, [_atom(atom) for atom in atoms], z3.IntVal(factor))
        for atoms, factor in poly.terms
    ]
    return z3.simplify(reduce(add, terms, z3.IntVal(0)))


def _atom(atom: str | Quotient) -> Term:
    return z3.Int(atom) if isinstance(atom, str) else whole(atom.over) / whole(atom.by)


def real(poly: Poly) -> Term:
    """Return a polynomial as a real number of z3."""
    return z3.ToReal(whole(poly))


def holds(condition: Condition) -> Term:
    """Return a condition on sizes as a term."""
    poly = whole(condition.poly)
    term = poly == 0 if condition.kind == "zero" else poly >= 0
    return term if condition.holds else z3.Not(term)


@dataclass(frozen=True)
class Fold:
    """A sum or a maximum over an index below a bound, of a term that has other indices, too."""

    kind: str
    indices: tuple[Term, ...]
    index: Term
    bound: Term
    body: Term

    def term(self, index: Term, indices: Sequence[Term]) -> Term:
        """Return the term at these indices."""
        others = zip(self.indices, indices, strict=True)
        return z3.substitute(self.body, (self.index, index), *others)


@dataclass
class World:
    """The part that the two graphs of a rule share: what is known of sizes, and folds by name."""

    ranges: Ranges
    """The ranges of sizes, in the order in which products of them count, and of indices."""
    conditions: Sequence[Condition] = ()
    folds: dict[str, Fold] = field(default_factory=dict)
    _known: dict[tuple[str, ...], str] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=count)

    @cached_property
    def equal(self) -> dict[str, Poly]:
        """The polynomials that symbols are equal to by the conditions, the later by the earlier."""
        order = {name: place for place, name in enumerate(self.ranges.least)}
        found: dict[str, Poly] = {}
        for condition in self.conditions:
            if condition.kind != "zero" or not condition.holds:
                continue
            poly = condition.poly.replaced(found)
            alone = [(str(atoms[0]), by) for atoms, by in poly.terms if len(atoms) == abs(by) == 1]
            for name, factor in sorted(alone, key=lambda term: -order.get(term[0], -1)):
                value = symbol(name) - poly * number(factor)
                if name in poly.symbols - value.symbols:
                    found = {n: p.replaced({name: value}) for n, p in found.items()}
                    found[name] = value
                    break
        return found

    def index(self, size: Poly, base: str) -> tuple[Poly, list[str]]:
        """Return any index below a size, and the new symbols in it: a digit for each factor."""
        factors = [size]
        if len(size.terms) == 1 and not size.has_quotient:
            ((atoms, factor),) = size.terms
            names = sorted(map(str, atoms), key=[*self.ranges.least].index)
            factors = [symbol(name) for name in names]
            factors += [number(factor)] * (factor != 1 or not factors)
        total, names = number(0), []
        for each in factors:
            if each.constant == 1:
                continue
            name = f"{base}{next(self._numbers)}"
            self.ranges.bounds[name] = each
            total = total * each + symbol(name)
            names.append(name)
        return total, names

    def fold(self, kind: str, size: Poly, body: Callable[[Poly], Term]) -> Term:
        """Return the sum or the maximum of a term over all indices below a size."""
        if kind == "sum" and len(size.terms) > 1 and all(f > 0 for _, f in size.terms):
            return self._split(size, body)
        if size.constant == 0 and kind == "sum":
            return z3.RealVal(0)
        at, names = self.index(size, "k")
        term = body(at)
        for name in reversed(names):
            bound = whole(self.ranges.bounds[name])
            term = self._folded(kind, z3.Int(name), bound, term)
        return term

    def over(
        self,
        kind: str,
        shape: Sizes,
        axes: tuple[int, ...],
        index: Index,
        body: Callable[[Index], Term],
    ) -> Term:
        """Return the fold of a term over some axes of a shape, at an index of the others."""
        if not axes:
            return body(index)
        axis, *rest = axes

        def inner(at: Poly) -> Term:
            place = (*index[:axis], at, *index[axis + 1 :])
            return self.over(kind, shape, tuple(rest), place, body)

        return self.fold(kind, shape[axis], inner)

    def _split(self, size: Poly, body: Callable[[Poly], Term]) -> Term:
        total, start = z3.RealVal(0), number(0)
        for monomial in size.terms:
            part = Poly((monomial,))
            total += self.fold("sum", part, _after(start, body))
            start += part
        return total

    def _folded(self, kind: str, index: Term, bound: Term, body: Term) -> Term:
        if kind != "sum":
            return self._made(kind, index, bound, z3.simplify(body))
        total = z3.RealVal(0)
        for factors in self.cancelled(body):
            inside = [factor for factor in factors if _has(factor, index)]
            outside = [factor for factor in factors if not _has(factor, index)]
            part = z3.ToReal(bound)
            if inside:
                part = self._made(kind, index, bound, z3.simplify(reduce(mul, inside)))
            total += reduce(mul, outside, part)
        return total

    def cancelled(self, term: Term) -> list[list[Term]]:
        """Return a term as a sum of products, without x * (1 / x) for sizes and their inverses."""
        found = []
        for factors in monomials(term):
            kept: list[Term] = []
            for factor in factors:
                pair = next((one for one in kept if self._cancel(one, factor)), None)
                kept = [*kept, factor] if pair is None else [one for one in kept if one is not pair]
            found.append(kept)
        return found

    def _cancel(self, a: Term, b: Term) -> bool:
        inverses = ((a, b), (b, a))
        return any(_is_inverse(y) and z3.eq(y.arg(0), x) and self._is_size(x) for x, y in inverses)

    def _is_size(self, term: Term) -> bool:
        """Return whether a factor is a sum of sizes above 0, or the inverse of one."""
        if _is_inverse(term):
            return all(map(self._is_size, _summands(term.arg(0))))
        size = z3.is_app_of(term, z3.Z3_OP_TO_REAL)
        return size and self.ranges.least.get(str(term.arg(0)), 0) > 0

    def normal(self, term: Term) -> Term:
        """Return a term, cancelled."""
        if not z3.is_real(term):
            return term
        products = (reduce(mul, factors, z3.RealVal(1)) for factors in self.cancelled(term))
        return z3.simplify(reduce(add, products, z3.RealVal(0)), som=True)

    def _made(self, kind: str, index: Term, bound: Term, body: Term) -> Term:
        """Return a fold as a function of the other indices in it; equal ones are one function."""
        names = sorted(names_in(body) & self.ranges.bounds.keys() - {str(index)})
        indices = tuple(map(z3.Int, names))
        renamed = [(one, z3.Int(f"_{i}")) for i, one in enumerate(indices)]
        shown = z3.substitute(body, (index, z3.Int("_")), *renamed)
        key = (kind, bound.sexpr(), shown.sexpr())
        name = self._known.setdefault(key, f"{kind}{len(self._known)}")
        self.folds.setdefault(name, Fold(kind, indices, index, bound, body))
        return function(name, len(indices))(*indices)


def _after(start: Poly, body: Callable[[Poly], Term]) -> Callable[[Poly], Term]:
    """Return a term of an index that is counted from a start."""
    return lambda at: body(start + at)


def function(name: str, arity: int, sort: Term = None) -> Callable[..., Term]:
    """Return a function of whole numbers, or a constant."""
    sort = z3.RealSort() if sort is None else sort
    if not arity:
        return lambda: z3.Const(name, sort)
    return z3.Function(name, *[z3.IntSort()] * arity, sort)  # type: ignore[no-any-return]


def monomials(term: Term) -> list[list[Term]]:
    """Return a term as a sum of products."""
    term = z3.simplify(term, som=True)
    return [list(_factors(part)) for part in _summands(term)]


def _factors(term: Term) -> Iterator[Term]:
    if z3.is_mul(term):
        for part in term.children():
            yield from _factors(part)
    else:
        yield term


def parts(term: Term) -> Iterator[Term]:
    """Yield all terms in a term, each once."""
    seen, stack = set(), [term]
    while stack:
        one = stack.pop()
        if one.get_id() not in seen:
            seen.add(one.get_id())
            stack.extend(one.children())
            yield one


def names_in(term: Term) -> frozenset[str]:
    """Return the names of the constants of a term."""
    constants = (one.decl() for one in parts(term) if z3.is_const(one))
    return frozenset(d.name() for d in constants if d.kind() == z3.Z3_OP_UNINTERPRETED)


def _has(term: Term, index: Term) -> bool:
    return str(index) in names_in(term)


def _is_inverse(term: Term) -> bool:
    return bool(z3.is_app(term) and z3.eq(term.decl(), INVERSE))


def _summands(term: Term) -> list[Term]:
    return term.children() if z3.is_add(term) else [term]


def inverse(term: Term) -> Term:
    """Return 1 / x; the factors that all terms of x share are apart.  1 / 0 counts as 0."""
    products = monomials(term)
    shared, found = list(products[0]), z3.RealVal(1)
    for product in products[1:]:
        shared = [one for one in shared if any(z3.eq(one, other) for other in product)]
    for factor in shared:
        products = [_without(product, factor) for product in products]
        found *= z3.simplify(1 / factor) if z3.is_rational_value(factor) else INVERSE(factor)
    rest = z3.simplify(reduce(add, (reduce(mul, p, z3.RealVal(1)) for p in products)), som=True)
    return found if z3.eq(rest, z3.RealVal(1)) else found * INVERSE(rest)


def _without(product: list[Term], factor: Term) -> list[Term]:
    """Return the factors without one that equals `factor`."""
    place = next(i for i, one in enumerate(product) if z3.eq(one, factor))
    return product[:place] + product[place + 1 :]


# ------------------------------------------------------------------ functions


def array_of(name: str, rank: int, dtype: str) -> Callable[..., Term]:
    """Return the array of any numbers of that name, as a function of indices."""
    sort = z3.BoolSort() if dtype == "bool" else z3.RealSort()
    return function(f"{name}[{rank}]", rank, sort)


def literal(value: float | bool) -> Term:
    """Return a number of Python as a term."""
    if isinstance(value, bool):
        return z3.BoolVal(value)
    if not isfinite(value):
        raise Unknown(f"{value} has no place among the real numbers")
    return z3.RealVal(Fraction(value))


def cast(x: Term, before: str, after: str) -> Term:
    """Return a term of one dtype in another: the same number, unless it is cut to a whole one."""
    if before == "bool":
        return z3.If(x, z3.RealVal(1), z3.RealVal(0)) if after != "bool" else x
    if after == "bool":
        return x != 0
    kept = after.startswith("float") or not before.startswith("float")
    return x if kept else any_function("truncate", [x])


def any_function(name: str, args: list[Term]) -> Term:
    """Return the value of a function of which nothing is known."""
    return z3.Function(name, *[arg.sort() for arg in args], z3.RealSort())(*args)


FUNCTIONS: Mapping[str, Callable[..., Term]] = {
    "add": add,
    "sub": sub,
    "mul": mul,
    "div": lambda a, b: a * inverse(b),
    "neg": neg,
    "abs": lambda x: z3.If(x < 0, -x, x),
    "sqrt": lambda x: SQRT(z3.simplify(x, som=True)),
    "maximum": lambda a, b: z3.If(a < b, b, a),
    "minimum": lambda a, b: z3.If(b < a, b, a),
    "less": lt,
    "less_equal": le,
    "greater": gt,
    "greater_equal": ge,
    "equal": eq,
    "not_equal": ne,
    "and": z3.And,
    "or": z3.Or,
    "not": z3.Not,
    "select": z3.If,
}
"""The scalar functions of kernels over the reals; others are any functions."""
