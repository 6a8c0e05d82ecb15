"""The scalar functions of a kernel's steps, for vectors; exp, log, tanh, sigmoid, erf: polynomials.

Bounds are in units in the last place (ulp) of the result, against the exact value.  NaN gives
NaN.  Every multiply-add is requested explicitly, fused or, in an unfused plan, not, so all machines
give the same bits.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graphc.backends import coefficients, doubles
from graphc.backends.arithmetic import FLOATS, UNSIGNED, Arithmetic, Value
from graphc.ir.expr import COMPARISONS


@dataclass(frozen=True)
class _Format:
    """A float format, and the constants that depend on it."""

    integer: str
    """The integer dtype of the same size."""
    mantissa: int
    """The number of bits after the point."""
    bias: int
    """The exponent field of the number 1."""
    ln2: tuple[float, float]
    """ln(2) as a sum."""
    short_ln2: tuple[float, float]
    """The same with a short first part, whose products with exponents are exact."""
    largest_exp: float
    """An x whose e**x is infinite, though its power of two still fits in the exponent field."""
    smallest_exp: float
    """An x whose e**x counts as 0: below it the power of two would leave its exponent field."""
    smallest: float
    """The smallest normal number."""
    largest_tanh: float
    largest_erf: float
    """The bound from which on erf is 1, as `largest_tanh` is for tanh."""

    def ln2_of(self, v: Arithmetic) -> tuple[float, float]:
        """Return ln(2) as a sum whose first part times an exponent loses nothing in a sum."""
        return self.ln2 if v.fused else self.short_ln2

    @property
    def anchor(self) -> float:
        """A number whose last bit is worth 1: adding it rounds to an integer."""
        return 1.5 * 2.0**self.mantissa

    def bits(self, number: float) -> int:
        """Return the bits of a number in this format, as an integer."""
        codes = ("<f", "<i") if self.mantissa == 23 else ("<d", "<q")
        integer: int = struct.unpack(codes[1], struct.pack(codes[0], number))[0]
        return integer


_FORMATS = {
    "float32": _Format(
        integer="int32",
        mantissa=23,
        bias=127,
        ln2=(0.693147182464599609375, -1.90465429995776788e-9),
        short_ln2=(0.693359375, -2.12194440054690583e-4),
        largest_exp=89.0,
        smallest_exp=-87.5,
        smallest=2.0**-126,
        largest_tanh=9.5,
        largest_erf=4.0,
    ),
    "float64": _Format(
        integer="int64",
        mantissa=52,
        bias=1023,
        ln2=(0.6931471805599453, 2.31904681384629962e-17),
        short_ln2=(0.693147180369123816490, 1.90821492927058770002e-10),
        largest_exp=710.0,
        smallest_exp=-708.5,
        smallest=2.0**-1022,
        largest_tanh=20.0,
        largest_erf=6.0,
    ),
}
_LOG2_E = 1.4426950408889634
_ERF_SPLIT = 1.0


def exp(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Compute e to the x, within 1 ulp; 0 where it is below 2**-125.5 (float64: 2**-1021.5)."""
    form = _FORMATS[dtype]
    x = v.maximum(v.const(form.smallest_exp, dtype), x, dtype)
    x = v.minimum(v.const(form.largest_exp, dtype), x, dtype)
    anchored, r = _reduced(v, x, dtype)
    # Twice e**r times 2**(n - 1): so n may be one more than the exponent field holds.
    if v.fused:
        powers = [2 * c for c in (*coefficients.EXP[dtype], 1, 1)]
        doubled = _polynomial(v, r, powers, dtype)
    else:  # by Horner's rule the last product would cost a third of a unit
        q = _less_one(v, r, dtype, _lost(v, x, anchored, r, dtype))
        doubled = v.add(v.const(2, dtype), v.add(q, q, dtype), dtype)
    return v.mul(doubled, _power_of_two(v, anchored, -1, dtype), dtype)


def log(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Compute the natural logarithm, within 1 ulp; NaN below 0; -inf at 0.

    x = m * 2**e with m in sqrt(1/2)..sqrt(2), f = m - 1, s = f / (2 + f), and
    ln(m) = f - (f**2 / 2 - s * (f**2 / 2 + s**2 * LOG(s**2))), as fdlibm sums it.
    """
    form = _FORMATS[dtype]
    tiny = v.compare("less", x, v.const(form.smallest, dtype), dtype)
    one, more = v.const(1, dtype), 2.0**form.mantissa
    m, exponent = _split(
        v, v.mul(x, v.select(tiny, v.const(more, dtype), one, dtype), dtype), dtype
    )
    fewer = v.select(tiny, v.const(-form.mantissa, dtype), v.const(0, dtype), dtype)
    exponent = v.add(exponent, fewer, dtype)
    ln2_high, ln2_low = form.ln2_of(v)
    two, half = v.const(2, dtype), v.const(0.5, dtype)
    f = v.sub(m, one, dtype)
    s = v.div(f, v.add(f, two, dtype), dtype)
    z = v.mul(s, s, dtype)
    rest = v.mul(z, _polynomial(v, z, coefficients.LOG[dtype], dtype), dtype)
    square = v.mul(v.mul(f, half, dtype), f, dtype)
    low = v.mul(exponent, v.const(ln2_low, dtype), dtype)
    small = v.fma(s, v.add(square, rest, dtype), low, dtype)
    mantissa = v.sub(f, v.sub(square, small, dtype), dtype)
    result = v.fma(exponent, v.const(ln2_high, dtype), mantissa, dtype)
    return _log_edges(v, x, result, dtype)


def tanh(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Compute tanh within 3 ulp: (e**2x - 1) / (e**2x + 1) of |x|, with the sign of x."""
    form = _FORMATS[dtype]
    size = v.intrinsic("fabs", (x,), dtype)
    size = v.minimum(v.const(form.largest_tanh, dtype), size, dtype)
    above = _exp_less_one(v, v.add(size, size, dtype), dtype)
    result = v.div(above, v.add(above, v.const(2, dtype), dtype), dtype)
    return v.intrinsic("copysign", (result, x), dtype)


def sigmoid(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Compute 1 / (1 + e to the -x), within 3 ulp."""
    one = v.const(1, dtype)
    e = exp(v, v.neg(x, dtype), dtype)
    return v.div(one, v.add(one, e, dtype), dtype)


def erf(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Compute the error function, within 2 ulp.

    Below 1 it is x + x * ERF(x**2), else 1 - e**(-x**2) * ERFCX((x - 2) / (x + 2)) of |x|, signed.
    """
    form = _FORMATS[dtype]
    size = v.intrinsic("fabs", (x,), dtype)
    t = v.minimum(v.const(form.largest_erf, dtype), size, dtype)
    square = v.mul(t, t, dtype)
    near = _polynomial(v, square, coefficients.ERF[dtype], dtype)
    near = v.fma(t, near, t, dtype)
    two, one = v.const(2, dtype), v.const(1, dtype)
    u = v.div(v.sub(t, two, dtype), v.add(t, two, dtype), dtype)
    minus = v.neg(square, dtype)
    scaled = _polynomial(v, u, coefficients.ERFCX[dtype], dtype)
    far = v.sub(one, v.mul(exp(v, minus, dtype), scaled, dtype), dtype)
    inside = v.compare("less", t, v.const(_ERF_SPLIT, dtype), dtype)
    return v.intrinsic("copysign", (v.select(inside, near, far, dtype), x), dtype)


def _exp_less_one(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Compute e to the x, less 1, for x from 0 up to where e to the x is finite.

    q = e**r - 1 is small where r is, so 2**n * q + (2**n - 1) keeps its digits at n = 0.
    """
    anchored, r = _reduced(v, x, dtype)
    q = _less_one(v, r, dtype)
    scale = _power_of_two(v, anchored, 0, dtype)
    return v.fma(scale, q, v.sub(scale, v.const(1, dtype), dtype), dtype)


def _less_one(v: Arithmetic, r: Value, dtype: str, lost: Value | None = None) -> Value:
    """Compute e to the r + lost, less 1, for r of half of ln(2) at most."""
    square, rest = v.mul(r, r, dtype), _polynomial(v, r, coefficients.EXP[dtype], dtype)
    if lost is None:
        return v.fma(square, rest, r, dtype)
    return v.add(r, v.fma(square, rest, lost, dtype), dtype)


def _lost(v: Arithmetic, x: Value, anchored: Value, r: Value, dtype: str) -> Value:
    """Compute what rounding took from r; see `_reduced`."""
    form = _FORMATS[dtype]
    n = v.sub(anchored, v.const(form.anchor, dtype), dtype)
    high, low = (v.mul(n, v.const(part, dtype), dtype) for part in form.ln2_of(v))
    return v.sub(v.sub(v.sub(x, high, dtype), r, dtype), low, dtype)


def _reduced(v: Arithmetic, x: Value, dtype: str) -> tuple[Value, Value]:
    """Return n + anchor and r, where x = n * ln(2) + r and |r| <= ln(2) / 2 or little more."""
    form = _FORMATS[dtype]
    anchor, (ln2_high, ln2_low) = v.const(form.anchor, dtype), form.ln2_of(v)
    anchored = v.fma(x, v.const(_LOG2_E, dtype), anchor, dtype)
    n = v.sub(anchored, anchor, dtype)
    # In two steps (Cody and Waite): n * ln(2) in one would lose the last digits of r.
    r = v.fma(n, v.const(-ln2_high, dtype), x, dtype)
    return anchored, v.fma(n, v.const(-ln2_low, dtype), r, dtype)


def _power_of_two(v: Arithmetic, anchored: Value, more: int, dtype: str) -> Value:
    """Compute 2**(n + more) from n + anchor: move n from the last bits to the exponent."""
    form = _FORMATS[dtype]
    bits = v.bitcast(anchored, dtype, form.integer)
    shift = v.const(form.mantissa, form.integer)
    moved = v.binary("shl", bits, shift, form.integer)
    start = v.const((form.bias + more) << form.mantissa, form.integer)
    return v.bitcast(v.add(moved, start, form.integer), form.integer, dtype)


def _split(v: Arithmetic, x: Value, dtype: str) -> tuple[Value, Value]:
    """Return m and e, both floats, where x = m * 2**e and m lies in sqrt(1/2)..sqrt(2)."""
    form = _FORMATS[dtype]
    integer, shift = form.integer, v.const(form.mantissa, form.integer)
    bits = v.bitcast(x, dtype, integer)
    above = v.sub(bits, v.const(form.bits(0.5**0.5), integer), integer)
    exponent = v.binary("ashr", above, shift, integer)
    mantissa = v.sub(bits, v.binary("shl", exponent, shift, integer), integer)
    # Added to the last bits of the anchor, an integer becomes a float on machines without the
    # conversion too.
    anchored = v.add(exponent, v.const(form.bits(form.anchor), integer), integer)
    e = v.sub(v.bitcast(anchored, integer, dtype), v.const(form.anchor, dtype), dtype)
    return v.bitcast(mantissa, integer, dtype), e


def _log_edges(v: Arithmetic, x: Value, result: Value, dtype: str) -> Value:
    """Correct the logarithm at infinity and NaN, at 0, and below."""
    infinity = float("inf")
    finite = v.compare("less", x, v.const(infinity, dtype), dtype)
    result = v.select(finite, result, x, dtype)
    none = v.compare("equal", x, v.const(0, dtype), dtype)
    result = v.select(none, v.const(-infinity, dtype), result, dtype)
    below = v.compare("less", x, v.const(0, dtype), dtype)
    return v.select(below, v.const(float("nan"), dtype), result, dtype)


def _polynomial(v: Arithmetic, x: Value, powers: Sequence[float], dtype: str) -> Value:
    """Evaluate a polynomial of x by Horner's rule; `powers` has its highest power first."""
    result = v.const(powers[0], dtype)
    for coefficient in powers[1:]:
        result = v.fma(result, x, v.const(coefficient, dtype), dtype)
    return result


_PRODUCTS = 8  # integer exponents up to this are products


def _absolute(v: Arithmetic, x: Value, dtype: str) -> Value:
    if dtype in FLOATS:
        return v.intrinsic("fabs", (x,), dtype)
    return x if dtype in UNSIGNED else v.maximum(x, v.neg(x, dtype), dtype)


def _floor_division(v: Arithmetic, a: Value, b: Value, dtype: str) -> Value:
    """Emit a // b, 0 where b is 0 as in NumPy; for floats, the floor of the quotient."""
    if dtype in FLOATS:
        return v.intrinsic("floor", (v.div(a, b, dtype),), dtype)
    zero, one = v.const(0, dtype), v.const(1, dtype)
    if dtype in UNSIGNED:
        by_zero = v.compare("equal", b, zero, dtype)
        quotient = v.binary("udiv", a, v.select(by_zero, one, b, dtype), dtype)
        return v.select(by_zero, zero, quotient, dtype)
    # Division by 0, and of the smallest integer by -1, is undefined in LLVM: divide by 1.
    by_minus_one = v.compare("equal", b, v.const(-1, dtype), dtype)
    by_zero = v.compare("equal", b, zero, dtype)
    divisor = v.select(v.binary("or", by_zero, by_minus_one, "bool"), one, b, dtype)
    quotient = v.binary("sdiv", a, divisor, dtype)
    rest = v.sub(a, v.mul(quotient, divisor, dtype), dtype)
    uneven = v.compare("not_equal", rest, zero, dtype)
    signs_differ = v.compare("less", v.binary("xor", rest, divisor, dtype), zero, dtype)
    down = v.cast(v.binary("and", uneven, signs_differ, "bool"), "bool", dtype)
    floor = v.sub(quotient, down, dtype)
    floor = v.select(by_minus_one, v.neg(a, dtype), floor, dtype)
    return v.select(by_zero, zero, floor, dtype)


def _power(v: Arithmetic, x: Value, y: Value, dtype: str) -> Value:
    """Emit x to the y: by products, a root, a quotient where these suffice, or within 1 ulp."""
    exponent = v.number(y, dtype)
    size = abs(exponent) if exponent is not None else float("nan")
    if size == 0.5:
        result = v.intrinsic("sqrt", (x,), dtype)
    elif size <= _PRODUCTS and size == int(size):
        result = _product(v, x, int(size), dtype)
    else:
        return _in_double(v, "pow", doubles.power, (x, y), dtype)
    return v.div(v.const(1, dtype), result, dtype) if exponent and exponent < 0 else result


def _cosine(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Emit the cosine, within 1 ulp up to 2**20.

    From there the angle counts as off by up to 1 ulp of float64; from 2**50 on the result is NaN.
    """
    return _in_double(v, "cos", doubles.cos, (x,), dtype)


def _in_double(
    v: Arithmetic, name: str, rule: Callable[..., Value], args: Sequence[Value], dtype: str
) -> Value:
    wide = [v.cast(x, dtype, "float64") for x in args]
    return v.cast(v.apart(name, rule, wide, "float64"), "float64", dtype)


def _product(v: Arithmetic, x: Value, times: int, dtype: str) -> Value:
    """Emit the product of `times` factors x, by repeated squaring."""
    if times == 0:
        return v.const(1, dtype)
    if times == 1:
        return x
    half = _product(v, x, times // 2, dtype)
    square = v.mul(half, half, dtype)
    return v.mul(square, x, dtype) if times % 2 else square


def _round_bfloat16(v: Arithmetic, x: Value, dtype: str) -> Value:
    """Emit the rounding to a number of bfloat16, as `Narrow.nearest` does."""
    words = v.bitcast(x, dtype, "uint32")
    upper = v.binary("lshr", words, v.const(16, "uint32"), "uint32")
    tie = v.binary("and", upper, v.const(1, "uint32"), "uint32")
    near = v.add(words, v.add(tie, v.const(0x7FFF, "uint32"), "uint32"), "uint32")
    kept = v.binary("and", near, v.const(0xFFFF0000, "uint32"), "uint32")
    return v.select(v.is_nan(x, dtype), x, v.bitcast(kept, "uint32", dtype), dtype)


def _intrinsic(name: str) -> Rule:
    return lambda v, x, dtype: v.intrinsic(name, (x,), dtype)


Rule = Callable[..., Value]
"""The emitter of a function of one or two vectors: `rule(v, *vectors, dtype)`."""
_RULES: dict[str, Rule] = {
    "add": Arithmetic.add,
    "sub": Arithmetic.sub,
    "mul": Arithmetic.mul,
    "div": Arithmetic.div,
    "neg": lambda v, x, dtype: v.neg(x, dtype),
    "abs": _absolute,
    "maximum": Arithmetic.maximum,
    "minimum": Arithmetic.minimum,
    "floor_div": _floor_division,
    "pow": _power,
    "exp": exp,
    "log": log,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "sqrt": _intrinsic("sqrt"),
    "cos": _cosine,
    "floor": _intrinsic("floor"),
    "ceil": _intrinsic("ceil"),
    "round": _intrinsic("roundeven"),
    "round_bfloat16": _round_bfloat16,
}


def apply(
    v: Arithmetic, function: str, args: Sequence[Value], dtypes: Sequence[str], dtype: str
) -> Value:
    """Apply a function of a kernel's steps to vectors of these `dtypes`; the result is of `dtype`.

    The functions are those of `graphc.kernels.interpret.FUNCTIONS`.
    """
    if function in COMPARISONS:
        return v.compare(function, args[0], args[1], dtypes[0])
    if function == "cast":
        return v.cast(args[0], dtypes[0], dtype)
    if function == "select":
        return v.select(v.truth(args[0], dtypes[0]), args[1], args[2], dtype)
    if function in ("and", "or", "not"):
        masks = [v.truth(x, t) for x, t in zip(args, dtypes, strict=True)]
        if function == "not":
            return v.binary("xor", masks[0], v.const(True, "bool"), "bool")
        return v.binary(function, masks[0], masks[1], "bool")
    return _RULES[function](v, *args, dtype)
