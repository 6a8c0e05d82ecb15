"""Numbers that know how they were computed: sizes, and the elements of constants.

A pass runs on graphs whose dimensions are such sizes.  The graph that it returns says its sizes as
polynomials of symbols, and what the pass asked of them is recorded: those are the conditions under
which it returns that graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from math import gcd, prod
from typing import Any, Literal, NamedTuple

import numpy as np

from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, Dim
from graphc.ops.source import Constant

ROWS = "N"
"""The symbol of the batch."""
LARGE = 1 << 40
"""A number that no size reaches: comparisons with it are not recorded."""


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


# ------------------------------------------------------------------ numbers that record


class Condition(NamedTuple):
    """An answer that depends on sizes: whether a polynomial is 0, or at least 0."""

    poly: Poly
    kind: Literal["zero", "not negative"]
    holds: bool

    def __str__(self) -> str:
        sign = {"zero": ("=", "!="), "not negative": (">=", "<")}[self.kind][not self.holds]
        return f"{self.poly} {sign} 0"


@dataclass
class Trace:
    """The answers that depended on sizes, in order, each once."""

    ranges: Ranges
    conditions: dict[tuple[Poly, str], Condition] = field(default_factory=dict)

    def zero(self, poly: Poly, value: int) -> bool:
        """Return and record whether a polynomial, which has that value, is 0."""
        if poly.constant is not None:
            return poly.constant == 0
        if self.ranges.never_below(poly, 1) or self.ranges.never_below(number(0) - poly, 1):
            return False
        return self._note(poly, "zero", value == 0)

    def not_negative(self, poly: Poly, value: int) -> bool:
        """Return and record whether a polynomial, which has that value, is at least 0."""
        if poly.constant is not None or abs(value) > LARGE // 2:
            return value >= 0
        if self.ranges.never_below(poly, 0):
            return True
        if self.ranges.never_below(number(-1) - poly, 0):
            return False
        return self._note(poly, "not negative", value >= 0)

    def _note(self, poly: Poly, kind: Literal["zero", "not negative"], holds: bool) -> bool:
        poly = self._reduced(poly, kind == "zero")
        self.conditions[poly, kind] = Condition(poly, kind, holds)
        return holds

    def _reduced(self, poly: Poly, either_sign: bool) -> Poly:
        """Return the polynomial without factors above 0, which do not change the answer."""
        shared = [atom for atom in poly.terms[0][0] if self.ranges.least.get(str(atom), 0) > 0]
        for atom in shared:
            if all(atom in atoms for atoms, _ in poly.terms):
                poly = poly.divided(symbol(str(atom)), self.ranges)
        factor = gcd(*(times for _, times in poly.terms))
        if either_sign and poly.terms[0][1] < 0:
            factor = -factor
        return Poly(tuple((atoms, times // factor) for atoms, times in poly.terms))


_TRACES: list[Trace] = [Trace(Ranges())]


@contextmanager
def recording(trace: Trace) -> Iterator[None]:
    """Record the answers given inside."""
    _TRACES.append(trace)
    try:
        yield
    finally:
        _TRACES.pop()


class Size(int):
    """A whole number that knows its polynomial; what is asked of it is recorded."""

    poly: Poly

    def __new__(cls, value: int, poly: Poly) -> Size:
        """Return a size of that value."""
        self = super().__new__(cls, value)
        self.poly = poly
        return self

    def __index__(self) -> Size:
        return self

    def __hash__(self) -> int:
        return hash((int(self), self.poly))

    def __bool__(self) -> bool:
        return self != 0

    def __str__(self) -> str:
        return str(self.poly)

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, int):
            return NotImplemented
        return _TRACES[-1].zero(self.poly - poly_of(other), int.__sub__(self, other))

    def __ne__(self, other: object) -> bool:
        return NotImplemented if not isinstance(other, int) else not self == other

    def __ge__(self, other: int) -> bool:
        return _TRACES[-1].not_negative(self.poly - poly_of(other), int.__sub__(self, other))

    def __le__(self, other: int) -> bool:
        return _TRACES[-1].not_negative(poly_of(other) - self.poly, int.__rsub__(self, other))

    def __gt__(self, other: int) -> bool:
        return not self <= other

    def __lt__(self, other: int) -> bool:
        return not self >= other

    def __add__(self, other: int) -> int:
        return _made(int.__add__(self, other), lambda: self.poly + poly_of(other))

    def __sub__(self, other: int) -> int:
        return _made(int.__sub__(self, other), lambda: self.poly - poly_of(other))

    def __rsub__(self, other: int) -> int:
        return _made(int.__rsub__(self, other), lambda: poly_of(other) - self.poly)

    def __mul__(self, other: int) -> int:
        return _made(int.__mul__(self, other), lambda: self.poly * poly_of(other))

    def __neg__(self) -> int:
        return 0 - self

    def __floordiv__(self, other: int) -> int:
        return _floor_divided(self, other)

    def __rfloordiv__(self, other: int) -> int:
        return _floor_divided(other, self)

    def __mod__(self, other: int) -> int:
        found: int = self - other * (self // other)
        return found

    __radd__ = __add__
    __rmul__ = __mul__


def _floor_divided(over: int, by: int) -> int:
    """Return the quotient; a divisor below 0 changes both signs."""
    if by < 0:
        return _floor_divided(-over, -by)
    ranges = _TRACES[-1].ranges
    value = int.__floordiv__(int(over), int(by))
    return _made(value, lambda: poly_of(over).divided(poly_of(by), ranges))


def _made(value: int, poly: Callable[[], Poly]) -> int:
    """Return a size of that value; a plain number if it has no symbol."""
    if value is NotImplemented:
        return NotImplemented  # type: ignore[no-any-return]
    found = poly()
    return value if found.constant is not None else Size(value, found)


def poly_of(dim: Dim) -> Poly:
    """Return a dimension as a polynomial; the batch is `N`."""
    if isinstance(dim, Batch):
        return poly_of(dim.factor) * symbol(ROWS)
    return dim.poly if isinstance(dim, Size) else number(dim)


# ------------------------------------------------------------------ constants


class Traced(np.ndarray[Any, np.dtype[Any]]):
    """An array that knows the function, and the arrays, that it was computed by on each element."""

    function: str
    args: tuple[Any, ...]
    sizes: tuple[int, ...]
    """The sizes of its shape, as symbols."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *ins: Any, **options: Any) -> Any:
        plain = [np.asarray(one) if isinstance(one, Traced) else one for one in ins]
        found = getattr(ufunc, method)(*plain, **options)
        name = _SCALARS.get(ufunc.__name__)
        known = all(isinstance(one, (Traced, int, float)) for one in ins)
        if method != "__call__" or name is None or not known:
            return found
        sizes = max((one.sizes for one in ins if isinstance(one, Traced)), key=len)
        shapes = (one.shape for one in plain if isinstance(one, np.ndarray))
        fits = all(shape == found.shape[found.ndim - len(shape) :] for shape in shapes)
        return traced(found, name, ins, sizes) if fits else found

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """Return the same numbers, but for their rounding, in another dtype."""
        return traced(np.asarray(self).astype(dtype), self.function, self.args, self.sizes)


_SCALARS = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "negative": "neg",
    "sqrt": "sqrt",
}
"""NumPy's functions, by the names that kernels have for them."""
TRACED: dict[tuple[str, bytes], Traced] = {}
"""The traced arrays by dtype and bytes, by which constants are found that were made of them."""


def traced(
    array: Array, function: str, args: tuple[Any, ...] = (), sizes: tuple[int, ...] = ()
) -> Traced:
    """Return an array with its origin; without `args` it holds any numbers, named by `function`."""
    plain = np.array(array, order="C", subok=False)
    made = plain.view(Traced)
    made.function, made.args, made.sizes = function, args, sizes
    TRACED[plain.dtype.name, plain.tobytes()] = made
    return made


class AnyConstant(Constant):
    """A constant of any numbers: what a pass computes from them is traced."""

    def array(self) -> Array:
        """Return the array, which knows its origin."""
        return traced(super().array(), self.label or "constant", sizes=self.shape)
