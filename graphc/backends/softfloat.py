"""The operations that a target may lack, by those that each has: the bits are the same.

Every rule is correctly rounded for all operands, subnormal ones included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from graphc.backends.arithmetic import Arithmetic, Value

_DOUBLE, _WORD, _SIGNED = "float64", "uint64", "int64"


class Layout(NamedTuple):
    """The bits of a float format."""

    integer: str
    mantissa: int
    bias: int
    root: int
    """The bits of x less half of those of y are about those of y ** -0.5, for this x."""
    rounds: int
    """The steps of Newton's method after which the root is within some units."""


LAYOUTS = {
    "float32": Layout("int32", 23, 127, 0x5F375A86, 3),
    "float64": Layout("int64", 52, 1023, 0x5FE6EB50C7B537A9, 4),
}


def computed(v: Arithmetic, name: str, args: Sequence[Value], dtype: str) -> Value:
    """Return what `v.intrinsic` would, by other operations."""
    return RULES[name](v, *args, dtype)


def fabs(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Return |x|, its sign bit cleared."""
    return _with_bits(v, x, x, dtype, signed=False)


def copysign(v: Arithmetic, x: Value, sign: Value, dtype: str) -> Value:
    """Return |x| with the sign bit of `sign`."""
    return _with_bits(v, x, sign, dtype, signed=True)


def _with_bits(v: Arithmetic, x: Value, sign: Value, dtype: str, signed: bool) -> Value:
    integer = LAYOUTS[dtype].integer
    largest = 2 ** (int(integer[3:]) - 1) - 1
    bits = v.binary("and", v.bitcast(x, dtype, integer), v.const(largest, integer), integer)
    if signed:
        top = v.const(-largest - 1, integer)
        own = v.binary("and", v.bitcast(sign, dtype, integer), top, integer)
        bits = v.binary("or", bits, own, integer)
    return v.bitcast(bits, integer, dtype)


def roundeven(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Return the nearest whole number, of two the even one: the last bit of a sum is worth 1."""
    anchor = v.const(2.0 ** LAYOUTS[dtype].mantissa, dtype)
    size = v.intrinsic("fabs", (x,), dtype)
    whole = v.sub(v.add(size, anchor, dtype), anchor, dtype)
    fraction = v.compare("less", size, anchor, dtype)
    return v.select(fraction, v.intrinsic("copysign", (whole, x), dtype), x, dtype)


def floor(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Return the largest whole number that is not above x."""
    return _directed(v, x, "greater", v.sub, dtype)


def ceil(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Return the smallest whole number that is not below x."""
    return _directed(v, x, "less", v.add, dtype)


def _directed(
    v: Arithmetic, x: Value, wrong: str, back: Callable[[Value, Value, str], Value], dtype: str
) -> Value:
    near = v.intrinsic("roundeven", (x,), dtype)
    moved = v.intrinsic("copysign", (back(near, v.const(1, dtype), dtype), x), dtype)
    return v.select(v.compare(wrong, near, x, dtype), moved, near, dtype)


def sqrt(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Return the square root: of m in 1..4 by Newton's method, corrected by the exact residual."""
    _, mantissa, bias, _, _ = form = LAYOUTS[dtype]
    tiny = v.compare("less", x, v.const(2.0 ** (1 - bias), dtype), dtype)
    one = v.const(1, dtype)
    scaled = v.mul(x, v.select(tiny, v.const(2.0**64, dtype), one, dtype), dtype)
    integer, shift = form.integer, v.const(mantissa, form.integer)
    bits, one_bits = v.bitcast(scaled, dtype, integer), v.const(bias << mantissa, integer)
    above = v.sub(bits, one_bits, integer)
    half = v.binary("ashr", above, v.const(mantissa + 1, integer), integer)
    even = v.binary("shl", half, v.const(mantissa + 1, integer), integer)
    m_bits = v.sub(bits, even, integer)
    root = _root(v, v.bitcast(m_bits, integer, dtype), m_bits, dtype)
    power = v.add(v.binary("shl", half, shift, integer), one_bits, integer)
    result = v.mul(root, v.bitcast(power, integer, dtype), dtype)
    result = v.mul(result, v.select(tiny, v.const(2.0**-32, dtype), one, dtype), dtype)
    below = v.compare("less", x, v.const(0, dtype), dtype)
    result = v.select(below, v.const(float("nan"), dtype), result, dtype)
    finite = v.compare("less", x, v.const(float("inf"), dtype), dtype)
    usual = v.both(finite, v.compare("not_equal", x, v.const(0, dtype), dtype))
    return v.select(usual, result, x, dtype)


def _root(v: Arithmetic, m: Value, bits: Value, dtype: str) -> Value:
    """Return the correctly rounded root of m in 1..4.

    Such an r is a multiple of the unit u, and m - r * r is exact: the true root lies above the
    middle of r and r + u exactly where m - r * r > r * u, since both are multiples of u * u.
    """
    integer, mantissa, _, magic, rounds = LAYOUTS[dtype]
    halved = v.binary("ashr", bits, v.const(1, integer), integer)
    y = v.bitcast(v.sub(v.const(magic, integer), halved, integer), integer, dtype)
    half = v.mul(m, v.const(0.5, dtype), dtype)
    for _ in range(rounds):
        off = v.mul(v.mul(half, y, dtype), y, dtype)
        y = v.mul(y, v.sub(v.const(1.5, dtype), off, dtype), dtype)
    r = v.mul(m, y, dtype)
    rest = v.mul(v.mul(_residual(v, m, r, dtype), v.const(0.5, dtype), dtype), y, dtype)
    r = v.maximum(v.const(1, dtype), v.add(r, rest, dtype), dtype)
    residual, unit = _residual(v, m, r, dtype), v.const(2.0**-mantissa, dtype)
    step = v.mul(r, unit, dtype)
    low = v.compare("greater", residual, step, dtype)
    high = v.compare("less_equal", residual, v.neg(step, dtype), dtype)
    return v.select(
        low, v.add(r, unit, dtype), v.select(high, v.sub(r, unit, dtype), r, dtype), dtype
    )


def _residual(v: Arithmetic, m: Value, r: Value, dtype: str) -> Value:
    return v.intrinsic("fma", (v.neg(r, dtype), r, m), dtype)


# ---------------------------------------------------------------------- fused multiply-add


def fma(v: Arithmetic, a: Value, b: Value, c: Value, dtype: str) -> Value:
    """Return a * b + c, rounded once."""
    return _fma32(v, a, b, c) if dtype == "float32" else _Fma64(v).result(a, b, c)


def _fma32(v: Arithmetic, a: Value, b: Value, c: Value) -> Value:
    """Return a * b + c of float32: in float64 the product is exact, and the sum rounded to odd.

    Rounding to odd keeps whether something was lost, so that the second rounding is right: S.
    Boldo, G. Melquiond, "Emulation of a FMA and correctly rounded sums", IEEE TC 2008.
    """
    x, y, z = (v.cast(w, "float32", _DOUBLE) for w in (a, b, c))
    total, lost = two_sum(v, v.mul(x, y, _DOUBLE), z)
    zero = v.const(0, _DOUBLE)
    bits = v.bitcast(total, _DOUBLE, _SIGNED)
    one = v.const(1, _SIGNED)
    even = v.compare("equal", v.binary("and", bits, one, _SIGNED), v.const(0, _SIGNED), _SIGNED)
    more, less = (v.compare(f, lost, zero, _DOUBLE) for f in ("greater", "less"))
    positive = v.compare("greater", total, zero, _DOUBLE)
    inward = v.binary("xor", more, positive, "bool")
    odd = v.add(bits, v.select(inward, v.const(-1, _SIGNED), one, _SIGNED), _SIGNED)
    moves = v.both(even, v.binary("or", more, less, "bool"))
    rounded = v.select(moves, odd, bits, _SIGNED)
    return v.cast(v.bitcast(rounded, _SIGNED, _DOUBLE), _DOUBLE, "float32")


def two_sum(v: Arithmetic, a: Value, b: Value) -> tuple[Value, Value]:
    """Return a + b in float64, and what its rounding lost (D. Knuth)."""
    total = v.add(a, b, _DOUBLE)
    back = v.sub(total, a, _DOUBLE)
    kept = v.sub(a, v.sub(total, back, _DOUBLE), _DOUBLE)
    return total, v.add(kept, v.sub(b, back, _DOUBLE), _DOUBLE)


class _Fma64:
    """The multiply-add of float64 in whole numbers of 128 bits, as pairs of 64, high before low.

    What lies below the lowest bit is kept as that bit ("sticky"), as in J. Hauser's SoftFloat.
    """

    def __init__(self, v: Arithmetic) -> None:
        self.v = v

    def result(self, a: Value, b: Value, c: Value) -> Value:
        """Return the result for any operands."""
        v = self.v
        factors = [self._unpacked(x) for x in (a, b)]
        addend, exponent = self._unpacked(c)
        sign = self._op("xor", self._word(a), self._word(b))
        total, negative, scale = self._sum(
            self._product(factors[0][0], factors[1][0]),
            v.add(factors[0][1], factors[1][1], _SIGNED),
            (addend, exponent),
            (sign, self._word(c)),
        )
        found = self._rounded(total, scale, negative)
        product = v.mul(a, b, _DOUBLE)
        separate = v.add(product, c, _DOUBLE)
        zero = v.const(0, _DOUBLE)
        found = v.select(v.compare("equal", c, zero, _DOUBLE), product, found, _DOUBLE)
        finite = [self._is_finite(x) for x in (a, b, c)]
        found = v.select(finite[2], found, c, _DOUBLE)
        usual = v.both(finite[0], finite[1])
        for x in (a, b):
            usual = v.both(usual, v.compare("not_equal", x, zero, _DOUBLE))
        return v.select(usual, found, separate, _DOUBLE)

    def _is_finite(self, x: Value) -> Value:
        size = self.v.intrinsic("fabs", (x,), _DOUBLE)
        return self.v.compare("less", size, self.v.const(float("inf"), _DOUBLE), _DOUBLE)

    def _op(self, operation: str, a: Value, b: Value | int) -> Value:
        other = self.v.const(b, _WORD) if isinstance(b, int) else b
        return self.v.binary(operation, a, other, _WORD)

    def _word(self, x: Value) -> Value:
        return self.v.bitcast(x, _DOUBLE, _WORD)

    def _is_zero(self, word: Value) -> Value:
        return self.v.compare("equal", word, self.v.const(0, _WORD), _WORD)

    def _sticky(self, word: Value, lost: Value) -> Value:
        """Return a word with its last bit set if `lost` is not 0."""
        none = self._is_zero(lost)
        return self._op("or", word, self.v.select(none, self._zero, self._one, _WORD))

    @property
    def _zero(self) -> Value:
        return self.v.const(0, _WORD)

    @property
    def _one(self) -> Value:
        return self.v.const(1, _WORD)

    def _unpacked(self, x: Value) -> tuple[Value, Value]:
        """Return m from 2**52 on, and e, where |x| = m * 2**e."""
        v = self.v
        tiny = v.compare(
            "less", v.intrinsic("fabs", (x,), _DOUBLE), v.const(2.0**-1022, _DOUBLE), _DOUBLE
        )
        scale = v.select(tiny, v.const(2.0**64, _DOUBLE), v.const(1, _DOUBLE), _DOUBLE)
        bits = self._word(v.mul(x, scale, _DOUBLE))
        field = self._op("and", self._op("lshr", bits, 52), 0x7FF)
        mantissa = self._op("or", self._op("and", bits, 2**52 - 1), 2**52)
        shift = v.select(tiny, v.const(1075 + 64, _SIGNED), v.const(1075, _SIGNED), _SIGNED)
        return mantissa, v.sub(v.cast(field, _WORD, _SIGNED), shift, _SIGNED)

    def _product(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return the product of two words of 53 bits, times 2**20."""
        low, high = 2**32 - 1, 32
        a0, b0 = (self._op("and", x, low) for x in (a, b))
        a1, b1 = (self._op("lshr", x, high) for x in (a, b))
        below = self._op("mul", a0, b0)
        middle = self._op("add", self._op("mul", a1, b0), self._op("mul", a0, b1))
        middle = self._op("add", middle, self._op("lshr", below, high))
        above = self._op("add", self._op("mul", a1, b1), self._op("lshr", middle, high))
        last = self._op("or", self._op("shl", middle, high), self._op("and", below, low))
        joined = self._op("or", self._op("shl", above, 20), self._op("lshr", last, 44))
        return joined, self._op("shl", last, 20)

    def _sum(
        self,
        product: tuple[Value, Value],
        exponent: Value,
        addend: tuple[Value, Value],
        signs: tuple[Value, Value],
    ) -> tuple[tuple[Value, Value], Value, Value]:
        """Return |a * b + c|, the word whose top bit is its sign, and the exponent of its last bit.

        Both terms have a bit near the 125th; the one with the smaller exponent is shifted.
        """
        v = self.v
        other = v.sub(addend[1], v.const(53, _SIGNED), _SIGNED)
        c = self._op("shl", addend[0], 9), self._zero  # times 2**73: 53 of it in the exponent
        apart = v.sub(other, exponent, _SIGNED)
        zero = v.const(0, _SIGNED)
        p = self._shifted(product, v.maximum(apart, zero, _SIGNED))
        c = self._shifted(c, v.maximum(v.neg(apart, _SIGNED), zero, _SIGNED))
        scale = v.sub(v.maximum(other, exponent, _SIGNED), v.const(20, _SIGNED), _SIGNED)
        differ = self._op("lshr", self._op("xor", *signs), 63)
        both = self._added(p, c)
        one, two = self._subtracted(p, c), self._subtracted(c, p)
        smaller = v.binary(
            "or",
            v.compare("less", p[0], c[0], _WORD),
            v.both(v.compare("equal", p[0], c[0], _WORD), v.compare("less", p[1], c[1], _WORD)),
            "bool",
        )
        alike = self._is_zero(differ)
        words = [
            v.select(alike, s, v.select(smaller, t, o, _WORD), _WORD)
            for s, o, t in zip(both, one, two, strict=True)
        ]
        crossed = v.both(smaller, v.compare("equal", differ, self._one, _WORD))
        sign = v.select(crossed, signs[1], signs[0], _WORD)
        none = v.both(self._is_zero(words[0]), self._is_zero(words[1]))
        return (words[0], words[1]), v.select(none, self._zero, sign, _WORD), scale

    def _added(self, a: tuple[Value, Value], b: tuple[Value, Value]) -> tuple[Value, Value]:
        low = self._op("add", a[1], b[1])
        carry = self.v.cast(self.v.compare("less", low, a[1], _WORD), "bool", _WORD)
        return self._op("add", self._op("add", a[0], b[0]), carry), low

    def _subtracted(self, a: tuple[Value, Value], b: tuple[Value, Value]) -> tuple[Value, Value]:
        borrow = self.v.cast(self.v.compare("less", a[1], b[1], _WORD), "bool", _WORD)
        high = self._op("sub", self._op("sub", a[0], b[0]), borrow)
        return high, self._op("sub", a[1], b[1])

    def _shifted(self, x: tuple[Value, Value], count: Value) -> tuple[Value, Value]:
        """Return a pair shifted right, with a sticky last bit; `count` is an int64 from 0 on."""
        v = self.v
        least = v.minimum(v.const(127, _SIGNED), count, _SIGNED)
        amount = v.cast(least, _SIGNED, _WORD)
        far = v.compare("greater_equal", amount, v.const(64, _WORD), _WORD)
        lost = v.select(far, x[1], self._zero, _WORD)
        low = v.select(far, x[0], x[1], _WORD)
        high = v.select(far, self._zero, x[0], _WORD)
        amount = self._op("and", amount, 63)
        ones = v.const(2**64 - 1, _WORD)
        mask = self._op("xor", self._op("shl", ones, amount), ones)
        lost = self._op("or", lost, self._op("and", low, mask))
        moved = self._op("shl", self._op("shl", high, 1), self._op("xor", amount, 63))
        low = self._op("or", self._op("lshr", low, amount), moved)
        return self._op("lshr", high, amount), self._sticky(low, lost)

    def _rounded(self, total: tuple[Value, Value], scale: Value, sign: Value) -> Value:
        """Return the float64 nearest to a pair times 2**scale, with the top bit of `sign`."""
        v = self.v
        high, low = total
        for count in (64, 32, 16, 8, 4, 2, 1):
            above = high if count == 64 else self._op("lshr", high, 64 - count)
            small, moved = self._is_zero(above), (low, self._zero)
            if count < 64:
                below = self._op("lshr", low, 64 - count)
                joined = self._op("or", self._op("shl", high, count), below)
                moved = joined, self._op("shl", low, count)
            high = v.select(small, moved[0], high, _WORD)
            low = v.select(small, moved[1], low, _WORD)
            less = v.sub(scale, v.const(count, _SIGNED), _SIGNED)
            scale = v.select(small, less, scale, _SIGNED)
        return self._nearest(self._sticky(high, low), scale, sign)

    def _nearest(self, word: Value, scale: Value, sign: Value) -> Value:
        """Return the float64 nearest to a word with its top bit set, times 2**(scale + 64)."""
        v = self.v
        scale = v.add(scale, v.const(64, _SIGNED), _SIGNED)
        least = v.sub(v.const(-1074, _SIGNED), scale, _SIGNED)
        shift = v.maximum(v.const(11, _SIGNED), least, _SIGNED)
        # A word holds a shift by 63; what a larger one loses first is sticky.
        beyond = v.sub(shift, v.const(63, _SIGNED), _SIGNED)
        before = v.minimum(v.const(63, _SIGNED), beyond, _SIGNED)
        before = v.maximum(before, v.const(0, _SIGNED), _SIGNED)
        nothing = self._is_zero(word)
        first = v.cast(before, _SIGNED, _WORD)
        less = self._op("lshr", word, first)
        word = self._sticky(less, self._op("sub", word, self._op("shl", less, first)))
        amount = v.cast(v.minimum(v.const(63, _SIGNED), shift, _SIGNED), _SIGNED, _WORD)
        kept = self._op("lshr", word, amount)
        half = self._op("shl", self._one, self._op("sub", amount, self._one))
        rest = self._op("sub", word, self._op("shl", kept, amount))
        odd = v.compare("equal", self._op("and", kept, 1), self._one, _WORD)
        tie = v.both(v.compare("equal", rest, half, _WORD), odd)
        up = v.binary("or", v.compare("greater", rest, half, _WORD), tie, "bool")
        kept = self._op("add", kept, v.cast(up, "bool", _WORD))
        unit = v.minimum(v.const(972, _SIGNED), v.add(scale, shift, _SIGNED), _SIGNED)
        field = v.cast(v.add(unit, v.const(1074, _SIGNED), _SIGNED), _SIGNED, _WORD)
        bits = self._op("add", kept, self._op("shl", field, 52))
        bits = v.select(nothing, self._zero, bits, _WORD)
        bits = v.minimum(v.const(0x7FF << 52, _WORD), bits, _WORD)
        top = self._op("and", sign, 2**63)
        return v.bitcast(self._op("or", bits, top), _WORD, _DOUBLE)


RULES: Mapping[str, Callable[..., Value]] = {
    "fabs": fabs,
    "copysign": copysign,
    "roundeven": roundeven,
    "floor": floor,
    "ceil": ceil,
    "sqrt": sqrt,
    "fma": fma,
}
"""The rule of each intrinsic of floats: `rule(v, *args, dtype)`."""
ARITY: Mapping[str, int] = {name: 1 for name in RULES} | {"copysign": 2, "fma": 3}
