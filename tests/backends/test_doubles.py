"""The cosine and the power against exact decimal numbers, and their edges against NumPy's."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.backends.maths import apply
from graphc.backends.native.vectors import Vectors
from tests.backends.native.compiled_function import map_of

Array = NDArray[Any]
FLOATS = pytest.mark.parametrize("dtype", ["float32", "float64"])
EXACT = Context(prec=80, Emax=10**9, Emin=-(10**9))
PI = Decimal(
    "3.1415926535897932384626433832795028841971693993751058209749445923078164062862089986280348253"
)


@functools.cache
def compiled(name: str, arity: int, dtype: str) -> Callable[..., list[Array]]:
    def emit(v: Vectors, x: list[str]) -> Sequence[str]:
        return [apply(v, name, x, [dtype] * arity, dtype)]

    return map_of(emit, [dtype] * arity, [dtype], lanes=4)


def run(name: str, *args: Array) -> Array:
    return compiled(name, len(args), args[0].dtype.name)(*args)[0]


def units(found: Array, exact: Sequence[Decimal]) -> float:
    """The largest error, in units in the last place."""
    form, worst = np.finfo(found.dtype), 0.0
    for x, y in zip(found.tolist(), exact, strict=True):
        near = min(abs(float(y)), float(form.max))
        unit = Decimal(float(np.spacing(np.array(near, found.dtype))))
        worst = max(worst, float(abs(Decimal(x) - y) / unit))
    return worst


def cosine(x: float) -> Decimal:
    with localcontext(EXACT):
        angle = Decimal(x)
        angle -= (angle / (2 * PI)).to_integral_value() * 2 * PI
        total = term = Decimal(1)
        for k in range(2, 80, 2):
            term *= -angle * angle / (k * (k - 1))
            total += term
        return total


@pytest.mark.slow
@FLOATS
def test_cosines_are_within_a_unit(dtype: str) -> None:
    rng = np.random.default_rng(0)
    quarters = rng.integers(1, 600_000, 500) * (math.pi / 2)
    parts = np.linspace(0, np.pi, 400), np.exp(rng.uniform(-30, 20 * math.log(2), 800)), quarters
    x = np.concatenate([*parts, -parts[1]]).astype(dtype)
    assert units(run("cos", x), [cosine(float(a)) for a in x]) < 1


@FLOATS
def test_cosines_of_some_angles(dtype: str) -> None:
    x = np.array([0, -0.0, 0.5, -2, 3, 100, 1e5, 2**20], dtype)
    assert units(run("cos", x), [cosine(float(a)) for a in x]) < 1
    far = run("cos", np.array([2.0**30, 2.0**49], dtype))
    np.testing.assert_allclose(far, np.cos([2.0**30, 2.0**49]), atol=0.1)
    assert np.isnan(run("cos", np.array([2.0**51, np.inf, -np.inf, np.nan], dtype))).all()


def powers(dtype: str, count: int) -> tuple[Array, Array]:
    """Bases of all sizes, near 1 too, and exponents whose powers are finite."""
    rng, form = np.random.default_rng(1), np.finfo(dtype)
    low, high = math.log(form.tiny), math.log(form.max)
    spread = rng.uniform(low, high, count) * 10.0 ** rng.integers(-8, 1, count)
    x = np.exp(spread).astype(dtype)
    x[x == 1] = 2
    y = (rng.uniform(low, high, count) / np.log(x.astype("longdouble"))).astype(dtype)
    betas = [(b, t) for b in (0.9, 0.999, 0.96, 0.5) for t in (1, 2, 10, 1000, 5555, 10**6)]
    extra = np.array(betas, dtype).T
    return np.concatenate([x, extra[0]]), np.concatenate([y, extra[1]])


@FLOATS
@pytest.mark.parametrize("count", [100, pytest.param(20_000, marks=pytest.mark.slow)])
def test_powers_are_within_a_unit(count: int, dtype: str) -> None:
    x, y = powers(dtype, count)
    with localcontext(EXACT):
        exact = [Decimal(a) ** Decimal(b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    assert units(run("pow", x, y), exact) < 1


@FLOATS
def test_powers_underflow_gradually_and_overflow(dtype: str) -> None:
    least = np.finfo(dtype).minexp - np.finfo(dtype).nmant
    y = np.arange(least - 3, np.finfo(dtype).maxexp + 3).astype(dtype)
    with np.errstate(all="ignore"):
        expected = np.ldexp(np.ones_like(y), y.astype(int))
    np.testing.assert_array_equal(run("pow", np.full_like(y, 2), y), expected)


@FLOATS
def test_edges_of_powers(dtype: str) -> None:
    form = np.finfo(dtype)
    sizes = [0, 0.5, 1, 1.5, 2, 3, np.inf, form.tiny, form.max, 2.0**form.nmant + 1, 2.0**60]
    edges = np.array([*sizes, *(-x for x in sizes), np.nan], dtype)
    x, y = (a.ravel() for a in np.meshgrid(edges, edges))
    with np.errstate(all="ignore"):
        expected = np.power(x, y)
    found = run("pow", x, y)
    np.testing.assert_allclose(found, expected, rtol=2 * form.eps)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(expected[numbers]))
