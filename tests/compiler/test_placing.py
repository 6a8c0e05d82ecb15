"""The parts of placement, each against a model that marks bytes one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphc.compiler import memory
from graphc.compiler.memory import _FreeList, _greedy, _Item, _lowest, _orders, _Search, _tightest
from graphc.kernels.program import LiveRange

Span = tuple[int, int]

SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6))).map(
    lambda found: sorted((start, start + size) for start, size in found)
)
LIVES = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 20), st.integers(0, 20)), min_size=1)


def gaps(busy: Sequence[Span]) -> tuple[list[Span], int]:
    """The free spans between busy ones, and where the last of those ends."""
    end = max((stop for _, stop in busy), default=0)
    used = [any(start <= byte < stop for start, stop in busy) for byte in range(end)]
    borders = [i for i in range(end + 1) if i in (0, end) or used[i] != used[i - 1]]
    spans = [(a, b) for a, b in pairwise(borders) if not used[a]]
    return spans, end


@given(st.integers(1, 6), SPANS)
def test_the_lowest_gap_with_room(size: int, busy: list[Span]) -> None:
    free, end = gaps(busy)
    assert _lowest(size, busy) == min((a for a, b in free if b - a >= size), default=end)


@given(st.integers(1, 6), SPANS)
def test_the_tightest_gap_with_room(size: int, busy: list[Span]) -> None:
    free, end = gaps(busy)
    rooms = [(b - a, a) for a, b in free if b - a >= size]
    assert _tightest(size, busy) == (min(rooms)[1] if rooms else end)


def items(lives: Sequence[tuple[int, int, int]]) -> list[_Item]:
    """Items in order of their first epochs."""
    ordered = sorted((first, size, first + length) for size, first, length in lives)
    return [_Item(i, size, first, last) for i, (first, size, last) in enumerate(ordered)]


def by_bytes(lives: Sequence[_Item], room: int, brief: int) -> list[int]:
    """Placement in order of time, with a mark for each byte."""
    owner: list[int] = [-1] * room
    offsets = []
    for item in lives:
        owner = [i if i >= 0 and lives[i].last >= item.first else -1 for i in owner]
        free, end = gaps([(byte, byte + 1) for byte, i in enumerate(owner) if i >= 0])
        if end < len(owner):
            free.append((end, len(owner)))
        rooms = [(b - a, a, b) for a, b in free if b - a >= item.size]
        if rooms:
            _, low, high = min(rooms)
            offset = high - item.size if item.epochs < brief else low
        else:
            offset = end
            owner += [-1] * (offset + item.size - len(owner))
        owner[offset : offset + item.size] = [item.rank] * item.size
        offsets.append(offset)
    return offsets


@given(LIVES, st.integers(0, 12), st.integers(0, 10))
def test_blocks_in_order_of_time(lives: list[tuple[int, int, int]], room: int, brief: int) -> None:
    ordered = items(lives)
    assert _FreeList(room, brief).place(ordered) == by_bytes(ordered, room, brief)


@given(LIVES, st.sampled_from([_lowest, _tightest]), st.integers(1, 60))
def test_greedy_stops_at_the_limit(
    lives: list[tuple[int, int, int]], gap: memory._Gap, limit: int
) -> None:
    order = items(lives)
    offsets, placed = _greedy(order, gap, len(order), limit)
    for k, item in enumerate(order[: placed + 1]):
        near = [j for j in order[:k] if j.first <= item.last and item.first <= j.last]
        offset = gap(item.size, sorted((offsets[j.rank], offsets[j.rank] + j.size) for j in near))
        if k == placed:
            assert offset + item.size >= limit
        else:
            assert offsets[item.rank] == offset
            assert offset + item.size < limit


def test_orders() -> None:
    found = [
        [item.rank for item in order]
        for order in _orders(
            [_Item(0, 2, 0, 0), _Item(1, 5, 0, 1), _Item(2, 2, 1, 7), _Item(3, 5, 2, 3)]
        )
    ]
    assert found == [
        [1, 3, 2, 0],  # largest, then longest
        [2, 1, 3, 0],  # longest, then largest
        [2, 1, 3, 0],  # largest in bytes and epochs together
        [0, 1, 2, 3],  # first
        [2, 3, 1, 0],  # last to end
    ]
    even = [_Item(rank, 3, rank, rank + 1) for rank in range(3)]
    late = [[item.rank for item in order] for order in _orders(even)]
    assert late == [[0, 1, 2]] * 4 + [[2, 1, 0]]


@given(LIVES)
def test_the_search_keeps_the_best_of_what_it_tries(lives: list[tuple[int, int, int]]) -> None:
    ordered = items(lives)
    peak = max(sum(i.size for i in ordered if i.first <= epoch <= i.last) for epoch in range(41))
    search = _Search(ordered, peak)
    search.run(greedy=True)
    tried = [_FreeList(peak, brief).place(ordered) for brief in (6, 0, 16)]
    tried += [
        _greedy(order, gap, len(ordered), 10**9)[0]
        for order in _orders(ordered)
        for gap in (_lowest, _tightest)
    ]
    best = min(max(o[i.rank] + i.size for i in ordered) for o in tried)
    assert search.nbytes == max(search.offsets[i.rank] + i.size for i in ordered)
    assert peak <= search.nbytes <= best


def test_the_search_ends_with_its_work(monkeypatch: pytest.MonkeyPatch) -> None:
    # No arena reaches the peak of these, so all that stops the search is its budget.
    lives = [(3, 0, 1), (2, 0, 3), (3, 2, 1), (5, 1, 0)]
    ordered = items([(s, f, n) for s, f, n in lives])
    calls: list[int] = []
    real = _greedy

    def counted(order: list[_Item], gap: memory._Gap, count: int, limit: int) -> object:
        calls.append(len(order))
        return real(order, gap, count, limit)

    monkeypatch.setattr(memory, "_greedy", counted)
    search = _Search(ordered, 1)
    search.run(greedy=True)
    assert len(calls) == memory._ATTEMPTS
    assert set(calls) == {4}

    calls.clear()
    search = _Search(ordered, 1)
    search.work = 20
    search.run(greedy=True)
    # Ten pairs at most in four placed items: an order is cut to what can still be paid for.
    assert 2 <= len(calls) < memory._ATTEMPTS
    assert search.work <= 0 or calls[-1] < 4


def test_what_spoils_an_order_is_moved_to_its_front() -> None:
    search = _Search(items([(4, 0, 0), (4, 0, 0), (9, 0, 0)]), 17)
    search.nbytes, search.offsets = 17, [0, 4, 8]
    order = sorted(search.items, key=lambda item: item.size)
    search._attempt(order, _lowest)
    assert [item.size for item in order] == [9, 4, 4]


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"^two live ranges are named 'b'$"):
        memory.place([LiveRange(name, 1, 0, 0) for name in "abcb"])
    with pytest.raises(ValueError, match=r"^'x' has a negative size of -1 bytes$"):
        LiveRange("x", -1, 0, 0)
    with pytest.raises(ValueError, match=r"^'x' ends in epoch 2, before 3$"):
        LiveRange("x", 1, 3, 2)
    assert LiveRange("x", 0, 3, 3).last == 3
