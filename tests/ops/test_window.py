"""The pixels that windows meet, against counting them one by one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphc as gc
from graphc.ir.text import parse_graph
from graphc.ops import OPS
from graphc.ops.window import has_empty_window, pixels_inside


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
        assert has_empty_window(count, kernel, stride, dilation, inside) == (0 in found)


def test_no_window_is_too_large() -> None:
    huge = 2**40
    assert not has_empty_window(huge, huge, 1, 1, range(huge - 1, huge + 3))
    assert has_empty_window(huge + 4, huge, 1, 1, range(huge - 1, huge + 3))
    with pytest.raises(ValueError, match="too many"):
        has_empty_window(huge, 2, 1, huge, range(4))


def test_files_and_texts_give_windows_of_whole_pixels() -> None:
    net = gc.Net("pool")
    net.output("y", gc.max_pool(net.input("x", (gc.N, 3, 8, 8)), 2, 2))
    text = str(net.graph())
    for word in ("kernel", "stride", "dilation"):
        changed = re.sub(rf"{word}=\(\d, ", f"{word}=(0, ", text)
        with pytest.raises(
            gc.GraphError, match=rf"{word} is \(0, \d\), its numbers must be from 1"
        ):
            parse_graph(changed, OPS)
