"""The operations that a target may lack, against the processor's own, bit for bit."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.backends.native.vectors import Vectors
from graphc.backends.softfloat import ARITY, computed
from tests.backends.native.compiled_function import map_of

Array = NDArray[Any]
NAMES = tuple(ARITY)
FLOATS = ("float32", "float64")


@functools.cache
def both(name: str, dtype: str) -> Callable[..., list[Array]]:
    """The processor's operation, and the same by its rule."""

    def emit(v: Vectors, x: list[str]) -> Sequence[str]:
        return [v.intrinsic(name, x, dtype), computed(v, name, x, dtype)]

    return map_of(emit, [dtype] * ARITY[name], [dtype] * 2, lanes=4)


def check(name: str, *args: Array) -> None:
    expected, found = both(name, args[0].dtype.name)(*args)
    same = (expected == found) & (np.signbit(expected) == np.signbit(found))
    wrong = np.flatnonzero(~(same | (np.isnan(expected) & np.isnan(found))))
    assert not len(wrong), [float(x[wrong[0]]).hex() for x in (*args, expected, found)]


def special(dtype: str) -> Array:
    form = np.finfo(dtype)
    edges = [0, 1, 2, np.inf, form.tiny, form.max, form.smallest_subnormal, form.tiny / 2]
    halves = [0.5, 1.5, 2.5, 2.0**22 + 0.5, 2.0 ** (form.nmant - 1) + 0.5, 2.0**form.nmant]
    found = np.array([*edges, *halves, np.nextafter(1, 2, dtype=dtype), 1 / 3], dtype)
    return np.concatenate([found, -found, [np.nan]]).astype(dtype)


def drawn(rng: np.random.Generator, dtype: str, size: int) -> Array:
    """Numbers of all bit patterns, and ordinary ones."""
    whole = np.dtype(dtype.replace("float", "uint"))
    bits = rng.integers(0, np.iinfo(whole).max, size // 2, dtype=whole, endpoint=True)
    ordinary = (rng.integers(-80, 80, size // 4) / 4, rng.normal(size=size // 4))
    return np.concatenate([bits.view(dtype), *(x.astype(dtype) for x in ordinary)])


def hard_sums(rng: np.random.Generator, dtype: str, size: int) -> list[Array]:
    """a * b + c where c is about as large, with few digits, and where the result is subnormal."""
    form = np.finfo(dtype)
    digits = 2 ** (form.nmant // 2 + 1)
    a, b = (rng.integers(digits // 2, digits * 2, size).astype(dtype) for _ in range(2))
    scale = rng.integers(form.minexp - form.nmant - 3, 8, size)
    near = np.rint(a * b * (1 + rng.integers(-3, 4, size) / digits))
    c = (-near + rng.integers(-2, 3, size) * 2.0 ** rng.integers(-40, 3, size)).astype(dtype)
    half = scale // 2
    with np.errstate(all="ignore"):
        return [np.ldexp(a, half), np.ldexp(b, scale - half), np.ldexp(c, scale)]


def check_many(name: str, dtype: str, size: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    edges = np.meshgrid(*[special(dtype)] * ARITY[name])
    check(name, *(x.ravel() for x in edges))
    check(name, *(rng.permutation(drawn(rng, dtype, size)) for _ in range(ARITY[name])))
    if name == "fma":
        check(name, *hard_sums(rng, dtype, size))
        a, b, _ = hard_sums(rng, dtype, size)
        with np.errstate(all="ignore"):
            rounded = -(a * b)
        check(name, a, b, rounded)  # what the product loses
        for toward in (0, np.inf):
            check(name, a, b, np.nextafter(rounded, np.array(toward, dtype)))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_the_rule_has_the_bits_of_the_processor(name: str, dtype: str) -> None:
    check_many(name, dtype, 4_000)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", NAMES)
def test_millions_of_numbers(name: str, dtype: str) -> None:
    for seed in range(1, 5):
        check_many(name, dtype, 1_000_000, seed)


@pytest.mark.slow
def test_the_root_of_every_mantissa() -> None:
    whole = np.arange(2**23, dtype=np.uint32)
    for exponent in (127, 128):
        check("sqrt", (whole | np.uint32(exponent << 23)).view(np.float32))
