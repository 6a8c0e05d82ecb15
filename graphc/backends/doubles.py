"""The cosine and the power, computed in float64 for float32 too.

The methods and constants are those of fdlibm (Copyright 1993, 2004 Sun Microsystems: "Permission to
use, copy, modify, and distribute this software is freely granted, provided that this notice is
preserved"), without tables and branches, and without fused multiply-add where sums must be exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import pi

from graphc.backends.arithmetic import Arithmetic, Value
from graphc.backends.softfloat import two_sum

_D, _I = "float64", "int64"
_ANCHOR = 1.5 * 2.0**52
"""A number whose last bit is worth 1: adding it rounds to an integer."""
_ANCHOR_BITS = 0x4338 << 48
_HALF_PI = (
    1.57079632673412561417,
    6.07710050630396597660e-11,
    2.02226624871116645580e-21,
    8.47842766036889956997e-32,
)
"""Half of pi as a sum: 33 bits in each but the last."""
FARTHEST = 2.0**50
"""The angle from which on the cosine is NaN: the count of quarters loses its last bit there."""
_SIN = (
    1.58969099521155010221e-10,
    -2.50507602534068634195e-8,
    2.75573137070700676789e-6,
    -1.98412698298579493134e-4,
    8.33333333332248946124e-3,
)
_SIN_CUBE = -1.66666666666666324348e-1
_COS = (
    -1.13596475577881948265e-11,
    2.08757232129817482790e-9,
    -2.75573143513906633035e-7,
    2.48015872894767294178e-5,
    -1.38888888888741095749e-3,
    4.16666666666666019037e-2,
)
_LOG = (
    2.06975017800338417784e-1,
    2.30660745775561754067e-1,
    2.72728123808534006489e-1,
    3.33333329818377432918e-1,
    4.28571428578550184252e-1,
    5.99999999999994648725e-1,
)
_EXP = (
    4.13813679705723846039e-8,
    -1.65339022054652515390e-6,
    6.61375632143793436117e-5,
    -2.77777777770155933842e-3,
    1.66666666666666019037e-1,
)
_LN2 = (6.93147180559945286227e-1, 6.93147182464599609375e-1, -1.90465429995776804525e-9)
"""ln(2), and as a sum."""
_LOG2_E = (9.61796693925975554329e-1, 9.61796700954437255859e-1, -7.02846165095275826516e-9)
"""2 / (3 ln(2)), and as a sum."""
_LOG2_MIDDLE = (5.84962487220764160156e-1, 1.35003920212974897128e-8)
"""log2(1.5), as a sum."""


class Doubles:
    """Short names for the operations of float64, each of which rounds by itself."""

    def __init__(self, v: Arithmetic) -> None:
        self.v = v

    def const(self, number: float) -> Value:
        """Return a constant."""
        return self.v.const(number, _D)

    def mul(self, a: Value, b: Value | float) -> Value:
        """Return a * b."""
        return self.v.mul(a, b if isinstance(b, str) else self.const(b), _D)

    def add(self, *terms: Value | float) -> Value:
        """Return the sum of the terms, added from the left."""
        first, *rest = (t if isinstance(t, str) else self.const(t) for t in terms)
        for term in rest:
            first = self.v.add(first, term, _D)
        return first

    def sub(self, a: Value | float, *others: Value | float) -> Value:
        """Return a less the others, one after the other."""
        first, *rest = (t if isinstance(t, str) else self.const(t) for t in (a, *others))
        for term in rest:
            first = self.v.sub(first, term, _D)
        return first

    def polynomial(self, x: Value, powers: Sequence[float]) -> Value:
        """Return a polynomial of x, its highest power first."""
        found = self.const(powers[0])
        for power in powers[1:]:
            found = self.add(self.mul(found, x), power)
        return found

    def cut(self, x: Value) -> Value:
        """Return x with 21 digits: products of two such numbers are exact."""
        bits = self.v.bitcast(x, _D, _I)
        kept = self.v.binary("and", bits, self.v.const(-(2**32), _I), _I)
        return self.v.bitcast(kept, _I, _D)

    def integer(self, anchored: Value) -> Value:
        """Return the whole number n of n + anchor as an int64."""
        bits = self.v.bitcast(anchored, _D, _I)
        return self.v.sub(bits, self.v.const(_ANCHOR_BITS, _I), _I)

    def power_of_two(self, n: Value) -> Value:
        """Return 2**n of an int64."""
        field = self.v.add(n, self.v.const(1023, _I), _I)
        return self.v.bitcast(self.v.binary("shl", field, self.v.const(52, _I), _I), _I, _D)

    def test(self, function: str, a: Value, b: Value | float) -> Value:
        """Return whether a is "less" than b, and so on."""
        return self.v.compare(function, a, b if isinstance(b, str) else self.const(b), _D)

    def select(self, condition: Value, a: Value | float, b: Value | float) -> Value:
        """Return `a` where the condition holds, else `b`."""
        x, y = (t if isinstance(t, str) else self.const(t) for t in (a, b))
        return self.v.select(condition, x, y, _D)

    def size(self, x: Value) -> Value:
        """Return |x|."""
        return self.v.intrinsic("fabs", (x,), _D)


# ---------------------------------------------------------------------------------- cosine


def cos(v: Arithmetic, x: Value) -> Value:
    """Return the cosine of a float64."""
    d = Doubles(v)
    size = d.size(x)
    anchored = d.add(d.mul(size, 2 / pi), _ANCHOR)
    high, low = _remainder(d, size, d.sub(anchored, _ANCHOR))
    quarter = v.binary("and", d.integer(anchored), v.const(3, _I), _I)
    odd = v.binary("and", quarter, v.const(1, _I), _I)
    is_sine = v.compare("equal", odd, v.const(1, _I), _I)
    found = d.select(is_sine, _sine_of(d, high, low), _cosine_of(d, high, low))
    # The quarters 1 and 2 are negative.
    outer = v.binary("and", v.add(quarter, v.const(1, _I), _I), v.const(2, _I), _I)
    negative = v.compare("equal", outer, v.const(2, _I), _I)
    found = d.select(negative, v.neg(found, _D), found)
    return d.select(d.test("less", size, FARTHEST), found, float("nan"))


def _remainder(d: Doubles, x: Value, n: Value) -> tuple[Value, Value]:
    """Return x - n * pi / 2 as a sum, exactly up to n = 2**20 but for the last bits of the sum."""
    first, second, third, fourth = (d.mul(n, part) for part in _HALF_PI)
    minus = [d.v.neg(part, _D) for part in (second, third)]
    high, lost = two_sum(d.v, d.sub(x, first), minus[0])
    high, more = two_sum(d.v, high, minus[1])
    return two_sum(d.v, high, d.sub(d.add(lost, more), fourth))


def _sine_of(d: Doubles, x: Value, low: Value) -> Value:
    """Return the sine of x + low up to pi / 4."""
    z = d.mul(x, x)
    cube, rest = d.mul(z, x), d.polynomial(z, _SIN)
    inner = d.sub(d.mul(low, 0.5), d.mul(cube, rest))
    inner = d.sub(d.mul(z, inner), low, d.mul(cube, _SIN_CUBE))
    return d.sub(x, inner)


def _cosine_of(d: Doubles, x: Value, low: Value) -> Value:
    """Return the cosine of x + low up to pi / 4."""
    z = d.mul(x, x)
    rest = d.mul(z, d.polynomial(z, _COS))
    half = d.mul(z, 0.5)
    near = d.sub(1.0, half)
    inner = d.sub(d.mul(z, rest), d.mul(x, low))
    return d.add(near, d.add(d.sub(1.0, near, half), inner))


# ----------------------------------------------------------------------------------- power


def power(v: Arithmetic, x: Value, y: Value) -> Value:
    """Return x to the y of float64: 2 to the y * log2(|x|), with the edges of C99."""
    d = Doubles(v)
    size, bound = d.size(x), d.const(2.0**64)
    # A larger exponent gives 0 or infinity too, and its products would overflow.
    times = v.minimum(bound, v.maximum(v.neg(bound, _D), y, _D), _D)
    high, low = _log2(d, size)
    first = d.cut(times)
    below = d.add(d.mul(d.sub(times, first), high), d.mul(times, low))
    found = _exp2(d, d.mul(first, high), below)
    return _power_edges(d, x, y, size, found)


def _log2(d: Doubles, x: Value) -> tuple[Value, Value]:
    """Return log2 of a positive number as a sum, the first of 21 digits.

    x = m * 2**e with m near 1 or 1.5, the middle b; s = (m - b) / (m + b).
    """
    v = d.v
    tiny = d.test("less", x, 2.0**-1022)
    bits = v.bitcast(d.mul(x, d.select(tiny, 2.0**53, 1.0)), _D, _I)
    shift = v.const(52, _I)
    e = v.binary("ashr", v.sub(bits, v.const(0x3FF << 52, _I), _I), shift, _I)
    m = v.bitcast(v.sub(bits, v.binary("shl", e, shift, _I), _I), _I, _D)
    upper = d.test("greater_equal", m, 3.0**0.5)
    m = d.mul(m, d.select(upper, 0.5, 1.0))
    inner = v.both(d.test("greater_equal", m, 1.5**0.5), d.test("less", m, 3.0**0.5))
    middle = d.select(inner, 1.5, 1.0)
    more = d.add(d.select(upper, 1.0, 0.0), d.select(tiny, -53.0, 0.0))
    exponent = d.add(
        d.sub(v.bitcast(v.add(e, v.const(_ANCHOR_BITS, _I), _I), _I, _D), _ANCHOR), more
    )
    high, low = _log_of(d, m, middle)
    middles = [d.select(inner, part, 0.0) for part in _LOG2_MIDDLE]
    z_high = d.mul(high, _LOG2_E[1])
    z_low = d.add(d.mul(high, _LOG2_E[2]), d.mul(low, _LOG2_E[0]), middles[1])
    total = d.cut(d.add(z_high, z_low, middles[0], exponent))
    return total, d.sub(z_low, d.sub(total, exponent, middles[0], z_high))


def _log_of(d: Doubles, m: Value, middle: Value) -> tuple[Value, Value]:
    """Return 3/2 of ln(m / middle) as a sum, the first of 21 digits."""
    u, over = d.sub(m, middle), d.v.div(d.const(1.0), d.add(m, middle), _D)
    s = d.mul(u, over)
    s_high, total = d.cut(s), d.cut(d.add(m, middle))
    left = d.sub(m, d.sub(total, middle))
    s_low = d.mul(over, d.sub(u, d.mul(s_high, total), d.mul(s_high, left)))
    square = d.mul(s, s)
    rest = d.mul(d.mul(square, square), d.polynomial(square, _LOG))
    rest = d.add(rest, d.mul(s_low, d.add(s_high, s)))
    square = d.mul(s_high, s_high)
    factor = d.cut(d.add(3.0, square, rest))
    factor_low = d.sub(rest, d.sub(factor, 3.0, square))
    above = d.mul(s_high, factor)
    below = d.add(d.mul(s_low, factor), d.mul(factor_low, s))
    high = d.cut(d.add(above, below))
    return high, d.sub(below, d.sub(high, above))


def _exp2(d: Doubles, high: Value, low: Value) -> Value:
    """Return 2 to the high + low: infinite from 1024 on, and with gradual underflow."""
    v = d.v
    z = d.add(low, high)
    anchored = d.add(z, _ANCHOR)
    high = d.sub(high, d.sub(anchored, _ANCHOR))
    t = d.cut(d.add(low, high))
    u = d.mul(t, _LN2[1])
    rest = d.add(d.mul(d.sub(low, d.sub(t, high)), _LN2[0]), d.mul(t, _LN2[2]))
    r = d.add(u, rest)
    lost = d.sub(rest, d.sub(r, u))
    square = d.mul(r, r)
    even = d.sub(r, d.mul(square, d.polynomial(square, _EXP)))
    quotient = v.div(d.mul(r, even), d.sub(even, 2.0), _D)
    found = d.sub(1.0, d.sub(d.sub(quotient, d.add(lost, d.mul(r, lost))), r))
    n = d.integer(anchored)
    # Two factors: one power of two would leave its exponent field at either end.
    half = v.binary("ashr", n, v.const(1, _I), _I)
    found = d.mul(found, d.power_of_two(half))
    found = d.mul(found, d.power_of_two(v.sub(n, half, _I)))
    found = d.select(d.test("less", z, 1025.0), found, float("inf"))
    return d.select(d.test("greater", z, -1080.0), found, 0.0)


def _power_edges(d: Doubles, x: Value, y: Value, size: Value, found: Value) -> Value:
    """Return the power, corrected where x is 0, infinite or negative, or y is infinite."""
    v, infinite = d.v, float("inf")
    y_size = d.size(y)
    upward = v.binary(
        "xor", d.test("greater", y, 0.0), d.test("less", size, 1.0), "bool"
    )  # whether |x| to an infinite y, and an edge of x to any y, is infinite
    edge = d.select(upward, infinite, 0.0)
    at_edge = v.binary("or", d.test("equal", size, 0.0), d.test("equal", size, infinite), "bool")
    at_edge = v.binary("or", at_edge, d.test("equal", y_size, infinite), "bool")
    found = d.select(at_edge, edge, found)
    whole = d.test("equal", v.intrinsic("floor", (y,), _D), y)
    half = d.mul(y, 0.5)
    odd = v.both(whole, d.test("not_equal", v.intrinsic("floor", (half,), _D), half))
    signed = v.intrinsic("copysign", (found, x), _D)
    found = d.select(odd, signed, found)
    negative = v.both(d.test("less", x, 0.0), d.test("greater", x, -infinite))
    no_root = v.both(negative, d.test("not_equal", v.intrinsic("floor", (y,), _D), y))
    found = d.select(no_root, float("nan"), found)
    found = d.select(v.binary("or", v.is_nan(x, _D), v.is_nan(y, _D), "bool"), float("nan"), found)
    is_one = v.both(d.test("equal", size, 1.0), d.test("equal", y_size, infinite))
    is_one = v.binary("or", is_one, d.test("equal", x, 1.0), "bool")
    return d.select(v.binary("or", is_one, d.test("equal", y, 0.0), "bool"), 1.0, found)
