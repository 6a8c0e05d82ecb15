"""Memory planning: places live ranges in one aligned arena, as small as can be found.

Choosing offsets so that the arena is smallest is NP-hard, so `place` tries several rules of
thumb, in an order fixed in advance and within a fixed amount of work, and keeps the best arena.
The same ranges always get the same offsets, whatever order they are given in.

Up to `GREEDY_LIMIT` ranges, every range is put into the lowest or the tightest gap between the
ranges placed before it that are live at the same time, under several orders; the range that
spoils an order is then moved to its front and the order tried again. Above the limit ranges are
taken in order of time only, from a free list.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import cycle, islice
from math import isqrt
from typing import NamedTuple

from graphc.ir.tensor_type import align
from graphc.kernels.program import Arena, LiveRange

GREEDY_LIMIT = 4_000

_WORK = GREEDY_LIMIT**2 // 2  # pairs of ranges that the greedy orders of one call compare
_ATTEMPTS = 1_000  # greedy orders tried by one call
_BRIEF = (6, 0, 16)  # ranges that live fewer epochs are placed at the high end of a free block

_Offsets = list[int]  # by position in the canonical order
_Span = tuple[int, int]  # start, end
_Gap = Callable[[int, list[_Span]], int]


class _Item(NamedTuple):
    """A range with its size rounded up and its position in the canonical order."""

    rank: int
    size: int
    first: int
    last: int

    @property
    def epochs(self) -> int:
        return self.last - self.first + 1


def peak_bytes(ranges: Iterable[LiveRange]) -> int:
    """Return the most rounded bytes that are live in one epoch: no arena can be smaller."""
    change: defaultdict[int, int] = defaultdict(int)
    for live in ranges:
        size = align(live.nbytes)
        change[live.first] += size
        change[live.last + 1] -= size
    now = peak = 0
    for epoch in sorted(change):
        now += change[epoch]
        peak = max(peak, now)
    return peak


def place(ranges: Sequence[LiveRange], *, _greedy_limit: int = GREEDY_LIMIT) -> Arena:
    """Give each range an offset, so that ranges that share an epoch share no bytes.

    Ranges of no bytes get offset 0. Raise ValueError if two ranges have the same name.
    """
    offsets = {live.name: 0 for live in ranges}
    if len(offsets) < len(ranges):
        raise ValueError(f"two live ranges are named {_repeated(ranges)!r}")
    sized = [live for live in ranges if live.nbytes]
    sized.sort(key=lambda live: (live.first, -live.nbytes, -live.last, live.name))
    items = [
        _Item(rank, align(live.nbytes), live.first, live.last) for rank, live in enumerate(sized)
    ]
    search = _Search(items, peak_bytes(sized))
    search.run(greedy=len(items) <= _greedy_limit)
    offsets.update(zip((live.name for live in sized), search.offsets, strict=True))
    return Arena(offsets, search.nbytes, search.peak)


def _repeated(ranges: Sequence[LiveRange]) -> str:
    """Return the first name that occurs twice."""
    seen: set[str] = set()
    for live in ranges:
        if live.name in seen:
            return live.name
        seen.add(live.name)
    raise AssertionError("every name comes once")


class _Search:
    """The best offsets found so far for some items, and the work left for finding better ones."""

    def __init__(self, items: list[_Item], peak: int) -> None:
        self.items = items
        self.peak = peak
        self.offsets: _Offsets = []
        self.nbytes = 0
        self.work = _WORK

    def run(self, greedy: bool) -> None:
        """Try one rule after the other until one reaches the peak or the work is used up."""
        for brief in _BRIEF if greedy else _BRIEF[:1]:
            if not self.done:
                self._keep(_FreeList(self.peak, brief).place(self.items))
        if greedy and not self.done:
            self._try_orders()

    @property
    def done(self) -> bool:
        """True if no arena can be smaller than the one found."""
        return self.nbytes == self.peak if self.offsets else not self.items

    def _keep(self, offsets: _Offsets) -> None:
        nbytes = max(offsets[item.rank] + item.size for item in self.items)
        if not self.offsets or nbytes < self.nbytes:
            self.offsets, self.nbytes = offsets, nbytes

    def _try_orders(self) -> None:
        """Try each order with each kind of gap once; then improve them in turn."""
        orders = list(_orders(self.items))
        tries = [(list(order), gap) for order in orders for gap in (_lowest, _tightest)]
        for order, gap in islice(cycle(tries), _ATTEMPTS):
            if self.done or self.work <= 0:
                return
            self._attempt(order, gap)

    def _attempt(self, order: list[_Item], gap: _Gap) -> None:
        """Place by this order; keep an improvement, or else move its obstacle to the front."""
        # Placing k items compares k * k / 2 pairs: no more items than the work left pays for.
        affordable = order[: isqrt(2 * self.work) + 1]
        offsets, placed = _greedy(affordable, gap, len(order), self.nbytes)
        self.work -= placed * placed // 2
        if placed == len(order):
            self._keep(offsets)
        # It stopped at an item that reached the limit, not for lack of work.
        elif placed < len(affordable):
            order.insert(0, order.pop(placed))


def _orders(items: list[_Item]) -> Iterator[list[_Item]]:
    """Yield the orders that greedy placement starts from; ties are settled by time."""
    yield sorted(items, key=lambda item: (-item.size, -item.epochs, item.rank))
    yield sorted(items, key=lambda item: (-item.epochs, -item.size, item.rank))
    yield sorted(items, key=lambda item: (-item.size * item.epochs, item.rank))
    yield list(items)
    yield sorted(items, key=lambda item: (-item.last, -item.size, item.rank))


def _greedy(order: list[_Item], gap: _Gap, count: int, limit: int) -> tuple[_Offsets, int]:
    """Put each item into a gap among its neighbours in time; stop at one that reaches the limit.

    Return the offsets and the number of items placed below the limit.
    """
    offsets = [0] * count
    placed: list[tuple[_Span, int, int]] = []  # span, first, last
    for item in order:
        begin, until, size = item.first, item.last, item.size
        busy = [span for span, first, last in placed if first <= until and last >= begin]
        offset = gap(size, busy)
        if offset + size >= limit:
            break
        offsets[item.rank] = offset
        insort(placed, ((offset, offset + size), begin, until))
    return offsets, len(placed)


def _lowest(size: int, busy: list[_Span]) -> int:
    """Return the lowest offset at which `size` bytes are free; the spans are sorted."""
    top = 0
    for start, end in busy:
        if start - top >= size:
            return top
        if end > top:  # `max` is slower, and this is the innermost loop
            top = end
    return top


def _tightest(size: int, busy: list[_Span]) -> int:
    """Return the offset of the smallest gap with room, or else the end of the last span."""
    top, best, room = 0, -1, 0
    for start, end in busy:
        free = start - top
        if free >= size and (best < 0 or free < room):
            best, room = top, free
        if end > top:  # `max` is slower, and this is the innermost loop
            top = end
    return top if best < 0 else best


class _FreeList:
    """Placement in order of time: the smallest free block with room, among blocks kept sorted.

    The free space starts as one block of the peak's size. Long live ranges are cut from the low
    end of a block and short ones from the high end, so that the long ones pile up below without
    holes.
    """

    def __init__(self, room: int, brief: int) -> None:
        self._brief = brief
        self._blocks: list[_Span] = []  # size, start
        self._ends: dict[int, int] = {}  # start -> end
        self._starts: dict[int, int] = {}  # end -> start
        self._top = room
        if room:
            self._add(0, room)

    def place(self, items: list[_Item]) -> _Offsets:
        """Return the offset of each item; the items come in order of their first epochs."""
        offsets = [0] * len(items)
        live: list[tuple[int, int, int]] = []  # last, start, end
        for item in items:
            while live and live[0][0] < item.first:
                _, start, end = heappop(live)
                self._release(start, end)
            offset = self._take(item.size, item.epochs < self._brief)
            offsets[item.rank] = offset
            heappush(live, (item.last, offset, offset + item.size))
        return offsets

    def _take(self, size: int, high: bool) -> int:
        position = bisect_left(self._blocks, (size, 0))
        if position == len(self._blocks):
            return self._grow(size)
        start = self._blocks[position][1]
        end = self._remove(start)
        offset = end - size if high else start
        if offset > start:
            self._add(start, offset)
        if offset + size < end:
            self._add(offset + size, end)
        return offset

    def _grow(self, size: int) -> int:
        """Make room at the end of the arena, starting in a last block that is too small."""
        start = self._starts.get(self._top, self._top)
        if start < self._top:
            self._remove(start)
        self._top = start + size
        return start

    def _release(self, start: int, end: int) -> None:
        """Free the bytes, as one block with the free blocks next to them."""
        if start in self._starts:
            start = self._starts[start]
            self._remove(start)
        if end in self._ends:
            end = self._remove(end)
        self._add(start, end)

    def _add(self, start: int, end: int) -> None:
        insort(self._blocks, (end - start, start))
        self._ends[start] = end
        self._starts[end] = start

    def _remove(self, start: int) -> int:
        """Remove the block that starts here from the list, and return its end."""
        end = self._ends.pop(start)
        del self._starts[end]
        del self._blocks[bisect_left(self._blocks, (end - start, start))]
        return end
