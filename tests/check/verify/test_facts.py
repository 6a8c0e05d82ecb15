"""Sorting by 16 bits at a time, and sizes for every batch, against Python's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphc.check.verify.facts import (
    always_at_most,
    size_at,
    size_product,
    sorted_unique,
    stable_order,
)

NUMBERS = st.lists(st.integers(-3, 3) | st.integers(-(2**20), 2**20) | st.integers(0, 2**61))


@given(NUMBERS)
def test_order_is_stable(numbers: list[int]) -> None:
    found = stable_order(np.array(numbers, np.int64)).tolist()
    assert found == sorted(range(len(numbers)), key=numbers.__getitem__)


@given(NUMBERS)
def test_each_number_once(numbers: list[int]) -> None:
    assert sorted_unique(np.array(numbers, np.int64)).tolist() == sorted(set(numbers))


SIZE = st.tuples(st.integers(0, 60), st.integers(0, 30), st.integers(0, 3))


@given(SIZE, SIZE, st.integers(1, 12))
def test_a_size_is_at_most_another_for_every_batch(
    a: tuple[int, ...], b: tuple[int, ...], capacity: int
) -> None:
    less, more = np.array([a], np.int64), np.array([b], np.int64)
    every = all(size_at(less, n)[0] <= size_at(more, n)[0] for n in range(1, capacity + 1))
    assert bool(always_at_most(less, more, capacity)[0]) == every


@given(st.tuples(*[st.integers(0, 9)] * 2), st.tuples(*[st.integers(0, 9)] * 2))
def test_products_of_sizes(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    x, y = (np.array([(*size, 0)], np.int64) for size in (a, b))
    for n in (1, 2, 7):
        assert size_at(size_product(x, y), n) == size_at(x, n) * size_at(y, n)
