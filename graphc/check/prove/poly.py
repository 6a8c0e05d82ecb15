"""Polynomials of sizes and indices, with whole quotients, and the ranges of their symbols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import product
from math import prod
from operator import mul
from typing import NamedTuple


class Quotient(NamedTuple):
    """The whole quotient of two polynomials, rounded down, where it is not a polynomial."""

    over: Poly
    by: Poly


Atom = str | Quotient
Monomial = tuple[Atom, ...]


@dataclass(frozen=True)
class Poly:
    """A polynomial with whole coefficients: the terms that are not zero, in order."""

    terms: tuple[tuple[Monomial, int], ...]

    @cached_property
    def constant(self) -> int | None:
        """The number that it is, or None if it has a symbol."""
        if not self.terms:
            return 0
        (atoms, factor), *rest = self.terms
        return None if rest or atoms else factor

    @cached_property
    def symbols(self) -> frozenset[str]:
        """The symbols in it, those of quotients included."""
        atoms = {atom for monomial, _ in self.terms for atom in monomial}
        found = {atom for atom in atoms if isinstance(atom, str)}
        return frozenset(found).union(
            *(atom.over.symbols | atom.by.symbols for atom in atoms if isinstance(atom, Quotient))
        )

    @cached_property
    def has_quotient(self) -> bool:
        """True if it is not a polynomial of symbols alone."""
        return any(isinstance(atom, Quotient) for atoms, _ in self.terms for atom in atoms)

    def __add__(self, other: Poly) -> Poly:
        return _collected([*self.terms, *other.terms])

    def __sub__(self, other: Poly) -> Poly:
        return self + other * number(-1)

    def __mul__(self, other: Poly) -> Poly:
        return _collected([(a + b, p * q) for a, p in self.terms for b, q in other.terms])

    def __str__(self) -> str:
        parts = [
            "*".join([str(f)] * (f != 1 or not m) + [_text(a) for a in m]) for m, f in self.terms
        ]
        return " + ".join(parts).replace("+ -1*", "- ").replace("+ -", "- ") or "0"

    def replaced(self, values: Mapping[str, Poly]) -> Poly:
        """Return the polynomial with polynomials in place of symbols."""
        if self.symbols.isdisjoint(values):
            return self
        total = number(0)
        for atoms, factor in self.terms:
            term = number(factor)
            for atom in atoms:
                if isinstance(atom, Quotient):
                    over, by = (part.replaced(values) for part in atom)
                    term *= over.divided(by, Ranges())
                else:
                    term *= values.get(atom, symbol(atom))
            total += term
        return total

    def at(self, values: Mapping[str, int]) -> int:
        """Return the number that it is for numbers in place of its symbols."""
        return sum(f * prod(_number(atom, values) for atom in atoms) for atoms, f in self.terms)

    def divided(self, by: Poly, ranges: Ranges) -> Poly:
        """Return the quotient rounded down, for a divisor above 0."""
        if by.constant == 1:
            return self
        if len(by.terms) != 1:
            return number(1) if self == by else _quotient(self, by)
        ((atoms, factor),) = by.terms
        whole, rest = number(0), number(0)
        for own, times in self.terms:
            left = _without(own, atoms)
            if left is None or times % factor:
                rest += Poly(((own, times),))
            else:
                whole += Poly(((left, times // factor),))
        inside = ranges.never_below(rest, 0) and ranges.never_below(by - rest, 1)
        return whole if inside else whole + _quotient(rest, by)


Sizes = tuple[Poly, ...]
Index = tuple[Poly, ...]


def number(value: int) -> Poly:
    """Return a number as a polynomial."""
    return Poly((((), int(value)),)) if value else Poly(())


def symbol(name: str) -> Poly:
    """Return a symbol as a polynomial."""
    return Poly((((name,), 1),))


def _collected(terms: list[tuple[Monomial, int]]) -> Poly:
    sums: dict[Monomial, int] = {}
    for atoms, factor in terms:
        key = tuple(sorted(atoms, key=str))
        sums[key] = sums.get(key, 0) + factor
    kept = ((atoms, factor) for atoms, factor in sums.items() if factor)
    return Poly(tuple(sorted(kept, key=lambda term: (-len(term[0]), str(term[0])))))


def _without(atoms: Monomial, part: Monomial) -> Monomial | None:
    left = list(atoms)
    for atom in part:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def _number(atom: Atom, values: Mapping[str, int]) -> int:
    if isinstance(atom, str):
        return values[atom]
    return atom.over.at(values) // atom.by.at(values)


def _quotient(over: Poly, by: Poly) -> Poly:
    if over.constant is not None and by.constant:
        return number(over.constant // by.constant)
    return Poly((((Quotient(over, by),), 1),))


def _text(atom: Atom) -> str:
    return atom if isinstance(atom, str) else f"(({atom.over}) // ({atom.by}))"


@dataclass
class Ranges:
    """The ranges of symbols: the least value of each, and the bound that an index stays below."""

    least: dict[str, int] = field(default_factory=dict)
    bounds: dict[str, Poly] = field(default_factory=dict)

    def never_below(self, poly: Poly, least: int) -> bool:
        """Return whether it is plain that a polynomial has no smaller value; False if in doubt."""
        if poly.has_quotient:
            return False
        for name in poly.symbols & self.bounds.keys():
            if any(factor < 0 for atoms, factor in poly.terms if name in atoms):
                far = self.bounds[name] - number(1) - symbol(name)
                poly = poly.replaced({name: far})
        shifts = {n: symbol(n) + number(self.least.get(n, 0)) for n in poly.symbols}
        poly = poly.replaced(shifts) - number(least)
        return all(factor >= 0 for _, factor in poly.terms)


# ------------------------------------------------------------------ indices


def reindexed(index: Index, shape: Sizes, before: Sizes, ranges: Ranges) -> Index:
    """Return the index, before a reshape, of the element that is at an index of its result."""
    found: list[Poly] = []
    for to, of in _groups(shape, before):
        at = place(index[to.start : to.stop], shape[to.start : to.stop])
        found.extend(_digits(at, before[of.start : of.stop], ranges))
    return tuple(found)


def place(index: Index, shape: Sizes) -> Poly:
    """Return the place of an index of a shape in C order."""
    found = number(0)
    for i, size in zip(index, shape, strict=True):
        found = found * size + i
    return found


def _groups(to: Sizes, of: Sizes) -> Iterator[tuple[range, range]]:
    """Yield the axes of two shapes in the smallest groups with as many elements."""
    ends = [[reduce(mul, s[:i], number(1)) for i in range(len(s) + 1)] for s in (to, of)]
    start = 0, 0
    for i, j in sorted(product(range(1, len(to) + 1), range(1, len(of) + 1)), key=sum):
        if i > start[0] and j > start[1] and ends[0][i] == ends[1][j]:
            yield range(start[0], i), range(start[1], j)
            start = i, j
    yield range(start[0], len(to)), range(start[1], len(of))


def _digits(at: Poly, sizes: Sizes, ranges: Ranges) -> list[Poly]:
    """Return the index in a shape of the element at a place in C order."""
    strides = [reduce(mul, sizes[i:], number(1)) for i in range(1, len(sizes) + 1)]
    places = [at.divided(stride, ranges) for stride in strides]
    before = [number(0), *places]
    return [b - a * size for a, b, size in zip(before, places, sizes, strict=False)]
