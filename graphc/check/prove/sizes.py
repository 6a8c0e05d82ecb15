"""Sizes that know how they were computed, and record what is asked of them.

A pass runs on graphs whose dimensions are such sizes.  The graph that it returns says its sizes as
polynomials of symbols, and what the pass asked of them is recorded: those are the conditions under
which it returns that graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from math import gcd
from operator import mul
from typing import Literal, NamedTuple

from graphc.check.prove.poly import Poly, Ranges, number, symbol
from graphc.ir.tensor_type import Batch, Dim

ROWS = "N"
"""The symbol of the batch."""
LARGE = 1 << 40
"""A number that no size reaches: comparisons with it are not recorded."""


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
        return reduce(mul, [symbol(ROWS)] * dim.power, poly_of(dim.factor))
    return dim.poly if isinstance(dim, Size) else number(dim)
