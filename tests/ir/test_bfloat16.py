"""Rounding to bfloat16, and sums of products: against whole numbers and fractions, term by term."""

from __future__ import annotations

from fractions import Fraction
from math import copysign, inf

import numpy as np
import pytest

from graphc.features.precision import bfloat16
from graphc.features.precision.bfloat16 import (
    add_products,
    multiplied,
    multiply_add,
    pairs,
    rounded,
    widened,
)
from graphc.ir.op import Array

GREATEST = float(np.finfo(np.float32).max)


def nearest(x: float | Fraction, digits: int, least: int) -> Fraction | float:
    """Return x rounded to that many significant bits, ties to even, by whole numbers.

    The last bit is worth at least 2**least; what exceeds all finite numbers is infinite.
    """
    exact = Fraction(x)
    if exact == 0:
        return exact
    size = abs(exact)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    exponent -= size < Fraction(2) ** exponent
    step = Fraction(2) ** max(exponent - digits + 1, least)
    found = round(exact / step) * step  # Python rounds halves to even
    return copysign(inf, found) if abs(found) >= Fraction(2) ** 128 else found


def by_hand(x: np.float32) -> float:
    """Return a finite number of float32 as bfloat16, by whole numbers."""
    return 0.0 if abs(x) < 2.0**-56 else float(nearest(float(x), 8, -133))


def numbers(count: int, seed: int = 0) -> Array:
    """Return float32 numbers of any bits, and many whose upper half is a tie."""
    words = np.random.default_rng(seed).integers(0, 1 << 32, count, np.uint32)
    words[: count // 2] = words[: count // 2] & 0xFFFF0000 | 0x8000
    return words.view(np.float32)


def test_rounding_is_to_nearest_ties_to_even() -> None:
    x = numbers(4000)
    x = x[np.isfinite(x)]
    assert [by_hand(number) for number in x] == widened(rounded(x)).tolist()


def test_numbers_that_stay_in_float32_are_rounded_down_to_the_smallest() -> None:
    x = numbers(4000)
    x = x[np.isfinite(x)]
    found = bfloat16.nearest(x)
    assert [float(nearest(float(number), 8, -133)) for number in x] == found.tolist()
    np.testing.assert_array_equal(bfloat16.nearest(found), found)
    odd = np.array([np.nan, np.inf, -np.inf, -0.0, GREATEST, 1e-40], np.float32)
    found = bfloat16.nearest(odd)
    np.testing.assert_array_equal(found[:5], [np.nan, np.inf, -np.inf, 0.0, np.inf])
    assert np.signbit(found[3])
    assert 0 < found[5] < 2e-40


@pytest.mark.parametrize(
    ("x", "bits"),
    [
        (0.0, 0),
        (-0.0, 0),
        (2.0**-56, 0x2380),
        (-(2.0**-56), 0xA380),
        (np.nextafter(np.float32(2.0**-56), np.float32(0)), 0),
        (1e-40, 0),
        (np.inf, 0x7F80),
        (-np.inf, 0xFF80),
        (GREATEST, 0x7F80),
        (-GREATEST, 0xFF80),
        (1.0, 0x3F80),
        (1 + 2.0**-8, 0x3F80),
        (1 + 3 * 2.0**-8, 0x3F82),
    ],
)
def test_bits_of_special_numbers(x: float, bits: int) -> None:
    assert rounded(np.array(x, np.float32)) == bits


def test_every_nan_becomes_one() -> None:
    words = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32)
    assert (rounded(words.view(np.float32)) == 0x7FC0).all()


def test_widening_and_rounding_give_the_same_bits() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    x = widened(bits)
    kept = (np.abs(x) >= 2.0**-56) & ~np.isnan(x)
    assert np.array_equal(rounded(x)[kept], bits[kept])


def test_terms_are_added_in_pairs_the_odd_one_first() -> None:
    assert list(pairs(5)) == [1, 0, 3, 2, 4]
    assert list(pairs(6, 3)) == [1, 0, 2, 4, 3, 5]
    assert list(pairs(0)) == []


def some_bits(shape: tuple[int, ...], seed: int) -> Array:
    """Return bits of numbers of very different sizes."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-30, 30, shape)
    return rounded(x.astype(np.float32))


def summed_by_hand(a: Array, b: Array) -> float:
    """Return the sum of products, each added with one rounding of the exact number."""
    x, y = widened(a).tolist(), widened(b).tolist()
    total = 0.0
    for even in range(0, len(x), 2):
        for p in (even + 1, even):
            if p < len(x):
                exact = Fraction(x[p]) * Fraction(y[p]) + Fraction(total)
                total = float(nearest(exact, 24, -149))
    return total


@pytest.mark.parametrize("terms", [0, 1, 2, 7, 64])
def test_products_equal_exact_sums_that_round_after_each_term(terms: int) -> None:
    a, b = some_bits((3, terms), 1), some_bits((terms, 4), 2)
    found = multiplied(a, b)
    wanted = [[summed_by_hand(row, column) for column in b.T] for row in a]
    assert found.tolist() == wanted


def blocks_by_hand(a: Array, b: Array) -> float:
    """Return the same by blocks of 32 terms: the sum of each rounds, and that of all so far."""
    x, y = widened(a).tolist(), widened(b).tolist()
    total = 0.0
    for start in range(0, len(x), 32):
        parts = {0: 0.0, 1: 0.0}
        for p in range(start, min(start + 32, len(x))):
            exact = Fraction(x[p]) * Fraction(y[p]) + Fraction(parts[p % 2])
            parts[p % 2] = float(nearest(exact, 24, -149))
        block = float(nearest(Fraction(parts[0]) + Fraction(parts[1]), 24, -149))
        total = float(nearest(Fraction(total) + Fraction(block), 24, -149))
    return total


@pytest.mark.parametrize("terms", [0, 1, 2, 31, 32, 33, 65])
def test_blocks_equal_exact_sums_that_round_at_the_same_places(terms: int) -> None:
    a, b = some_bits((3, terms), 1), some_bits((terms, 4), 2)
    found = multiplied(a, b, order="blocks")
    assert found.tolist() == [[blocks_by_hand(row, column) for column in b.T] for row in a]


def test_blocks_of_a_stack_are_those_of_its_matrices() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        m, k, n = rng.integers(1, 100, 3)
        a, b = some_bits((2, m, k), seed), some_bits((k, n), -seed % 97)
        found = multiplied(a, b, order="blocks")
        row, column = rng.integers(m), rng.integers(n)
        for matrix, sums in zip(a, found, strict=True):
            assert sums[row, column] == blocks_by_hand(matrix[row], b[:, column])


def added(total: float, a: float, b: float) -> float:
    """Return the sum of a number and a product of two of bfloat16."""
    return float(multiply_add(*(np.full((), x, np.float32) for x in (total, a, b))))


def test_a_product_that_overflows_may_have_a_finite_sum() -> None:
    big = 2.0**127
    assert added(-big, big, 2) == big
    assert added(-(2.0**103), big, 2) == np.inf
    assert added(-(2.0**104), big, 2) == GREATEST
    assert added(0, big, -2) == -np.inf
    assert np.isnan(added(np.inf, big, -np.inf))


def test_no_sum_is_subnormal() -> None:
    least = 2.0**-56
    total = 0.0
    for step in range(64):
        total = added(total, least if step % 3 else -least, least * (1 + step / 128))
        assert total == 0 or abs(total) >= 2.0**-126


def test_the_rounding_changes_halfway() -> None:
    x = np.array([1.0, 1.001, -3.7, 1e-3, -65000.0], np.float32)
    edge = bfloat16.halfway(x)
    around = [bfloat16.nearest(np.nextafter(edge, to)) for to in (np.float32(0), edge * 2)]
    assert (np.abs(around[0]) < np.abs(around[1])).all()
    assert (np.abs(x - edge) <= np.abs(around[0] - around[1])).all()


def test_sums_over_blocks_of_whole_pairs_equal_those_over_all() -> None:
    a, b = some_bits((3, 11), 3), some_bits((11, 4), 4)
    total = np.zeros((3, 4), np.float32)
    for start in range(0, 11, 4):
        add_products(total, a[:, start : start + 4], b[start : start + 4])
    assert np.array_equal(total, multiplied(a, b))


def test_terms_in_runs_of_one_keep_their_order() -> None:
    assert list(pairs(3, 1)) == [0, 1, 2]


def test_another_order_of_terms_has_other_bits() -> None:
    a, b = some_bits((3, 64), 1), some_bits((64, 4), 2)
    sums = multiplied(a, b), multiplied(a, b, run=1), multiplied(a, b, order="blocks")
    assert len({each.tobytes() for each in sums}) == 3


def test_the_parts_of_a_block_overflow_apart() -> None:
    big = 2.0**127
    a = rounded(np.array([[-big, 0, big], [big, 0, big], [big, -big, 0]], np.float32))
    b = rounded(np.array([[1], [2], [2]], np.float32))
    assert multiplied(a[:1], b, order="blocks") == big
    with np.errstate(all="ignore"):
        assert multiplied(a[1:2], b, order="blocks") == np.inf
        assert np.isnan(multiplied(a[2:], b[[1, 1, 1]], order="blocks"))
