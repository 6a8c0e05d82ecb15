"""Rectangles that share bytes: both ways to find them against comparing all with all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.check.verify import sharing as module
from graphc.check.verify.sharing import Rectangles, sharing

Rectangle = tuple[int, int, int, int]
"""low, high, start, end"""


def rectangles(rows: list[Rectangle]) -> Rectangles:
    table = np.array(rows, np.int64).reshape(-1, 4)
    return Rectangles(*(table[:, i] for i in range(4)))


def share(a: Rectangle, b: Rectangle) -> bool:
    return max(a[0], b[0]) < min(a[1], b[1])


def clash(a: Rectangle, b: Rectangle) -> bool:
    return share(a, b) and max(a[2], b[2]) <= min(a[3], b[3])


def one() -> st.SearchStrategy[Rectangle]:
    low, size = st.integers(0, 20), st.integers(0, 8)
    start, life = st.integers(0, 30), st.integers(0, 4)
    return st.tuples(low, size, start, life).map(lambda t: (t[0], t[0] + t[1], t[2], t[2] + t[3]))


@pytest.mark.parametrize("dense", [64, -1])
def test_against_all_pairs(dense: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DENSE", dense)  # -1: by the sweep
        compare()


@given(rows=st.lists(one(), max_size=12))
def compare(rows: list[Rectangle]) -> None:
    found = sharing(rectangles(rows))
    count = range(len(rows))
    clashes = {(i, j) for i in count for j in count if i != j and clash(rows[i], rows[j])}
    if found.conflict is not None:
        assert found.conflict in clashes
        return
    assert not clashes
    pairs = set(zip(found.before.tolist(), found.after.tolist(), strict=True))
    assert pairs == {(i, j) for i in count for j in count if follows(rows, i, j)}


def follows(rows: list[Rectangle], i: int, j: int) -> bool:
    """Whether j is the next one to have some byte after i."""
    for byte in range(max(rows[i][0], rows[j][0]), min(rows[i][1], rows[j][1])):
        later = [k for k, r in enumerate(rows) if r[0] <= byte < r[1] and r[2] > rows[i][3]]
        if later and min(later, key=lambda k: rows[k][2]) == j:
            return True
    return False


def test_many_wide_rectangles_are_swept() -> None:
    """Cells are few times more than rectangles only where those are small."""
    n = 2_000
    rows = [(i, i + 1, 0, 0) for i in range(n)] + [(0, n, t, t) for t in range(1, n)]
    found = sharing(rectangles(rows))
    assert found.conflict is None
    assert len(found.before) == 2 * n - 2
    rows[-1] = (0, n, 5, 5)
    conflict = sharing(rectangles(rows)).conflict
    assert conflict is not None
    assert set(conflict) == {n + 4, len(rows) - 1}
