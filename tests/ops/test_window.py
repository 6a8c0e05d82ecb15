"""The pixels that windows meet, against counting them one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.ops.window import misses, pixels_inside


@given(
    st.integers(0, 12),
    st.integers(1, 6),
    st.integers(1, 5),
    st.integers(1, 7),
    st.integers(0, 9),
    st.integers(1, 9),
)
def test_pixels_are_counted(
    count: int, kernel: int, stride: int, dilation: int, before: int, size: int
) -> None:
    inside = range(before, before + size)
    found = [
        sum(at * stride + k * dilation in inside for k in range(kernel)) for at in range(count)
    ]
    assert pixels_inside(count, kernel, stride, dilation, inside).tolist() == found
    if count:
        assert misses(count, kernel, stride, dilation, inside) == (0 in found)


def test_no_window_is_too_large() -> None:
    huge = 2**40
    assert not misses(huge, huge, 1, 1, range(huge - 1, huge + 3))
    assert misses(huge + 4, huge, 1, 1, range(huge - 1, huge + 3))
    with pytest.raises(ValueError, match="too many"):
        misses(huge, 2, 1, huge, range(4))
