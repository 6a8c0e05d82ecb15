"""Sorting by 16 bits at a time against Python's own."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from graphc.check.verify.facts import sorted_unique, stable_order

NUMBERS = st.lists(st.integers(-3, 3) | st.integers(-(2**20), 2**20) | st.integers(0, 2**61))


@given(NUMBERS)
def test_order_is_stable(numbers: list[int]) -> None:
    found = stable_order(np.array(numbers, np.int64)).tolist()
    assert found == sorted(range(len(numbers)), key=numbers.__getitem__)


@given(NUMBERS)
def test_each_number_once(numbers: list[int]) -> None:
    assert sorted_unique(np.array(numbers, np.int64)).tolist() == sorted(set(numbers))
