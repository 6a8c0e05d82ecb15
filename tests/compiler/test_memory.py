"""The memory planner: buffers that live together never share bytes, and little is wasted."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.compiler.memory import GREEDY_LIMIT, peak_bytes, place
from graphc.ir.tensor_type import ALIGNMENT, align
from graphc.kernels.program import Arena, LiveRange
from tests.together import together

MODES = pytest.mark.parametrize("limit", [GREEDY_LIMIT, 0], ids=["greedy", "time"])


@st.composite
def live_ranges(draw: st.DrawFn) -> list[LiveRange]:
    """Ranges of every kind: empty ones, odd and repeated sizes, brief and long lives."""
    size = st.one_of(st.sampled_from([0, 64, 512, 4096]), st.integers(0, 2_000))
    shape = st.tuples(size, st.integers(-3, 25), st.integers(0, 12))
    rows = draw(st.lists(shape, max_size=40))
    return [LiveRange(f"r{i}", n, first, first + d) for i, (n, first, d) in enumerate(rows)]


def check(ranges: Sequence[LiveRange], arena: Arena) -> None:
    """What every arena promises, by a sweep over time that keeps the bytes in use disjoint."""
    assert list(arena.offsets) == [live.name for live in ranges]
    assert all(offset >= 0 and offset % ALIGNMENT == 0 for offset in arena.offsets.values())
    ends = [arena.offsets[r.name] + align(r.nbytes) for r in ranges]
    assert arena.nbytes == max(ends, default=0)
    assert arena.nbytes >= arena.peak == peak_bytes(ranges)
    live: list[LiveRange] = []
    for one in sorted((r for r in ranges if r.nbytes), key=lambda r: r.first):
        live = [other for other in live if other.last >= one.first]
        start = arena.offsets[one.name]
        for other in live:
            begin = arena.offsets[other.name]
            assert start + one.nbytes <= begin or begin + other.nbytes <= start, (one, other)
        live.append(one)


def training(
    layers: int, activation: int, weight: int, rng: random.Random | None = None
) -> list[LiveRange]:
    """A forward chain that saves activations, and the backward chain that frees them.

    With `rng`, sizes and the lives of the gradients vary from layer to layer.
    """

    def size(base: int) -> int:
        return base if rng is None else rng.choice([base, base, base // 2, base * 2, base * 3 // 4])

    def extra() -> int:
        return 1 if rng is None else rng.randint(1, 2)

    loss = LiveRange("loss", 2_560, layers, layers + 1)
    ranges = [loss, LiveRange("dloss", 2_560, layers + 1, layers + 2)]
    now = layers + 2
    for i in reversed(range(layers)):
        ranges.append(LiveRange(f"d{i}", size(activation), now, now + extra()))
        ranges.append(LiveRange(f"dw{i}", size(weight), now + 1, now + 1 + extra()))
        ranges.append(LiveRange(f"db{i}", 512, now + 1, now + 1 + extra()))
        ranges.append(LiveRange(f"a{i}", size(activation), i, now + 1))
        now += 2 if rng is None else rng.randint(2, 3)
    return ranges


def scattered(count: int, epochs: int, longest: int, seed: int) -> list[LiveRange]:
    """Ranges with no pattern to them."""
    rng = random.Random(seed)
    firsts = [rng.randrange(epochs) for _ in range(count)]
    return [
        LiveRange(f"x{i}", rng.randrange(1, 100_000), first, first + rng.randrange(longest))
        for i, first in enumerate(firsts)
    ]


@given(live_ranges())
@MODES
def test_ranges_that_live_together_lie_apart(limit: int, ranges: list[LiveRange]) -> None:
    check(ranges, place(ranges, _greedy_limit=limit))


@settings(max_examples=40)
@given(live_ranges(), st.randoms(use_true_random=False))
@MODES
def test_placement_does_not_depend_on_the_order_given(
    limit: int, ranges: list[LiveRange], rng: random.Random
) -> None:
    arena = place(ranges, _greedy_limit=limit)
    assert place(ranges, _greedy_limit=limit) == arena
    assert place(rng.sample(ranges, len(ranges)), _greedy_limit=limit) == arena


@given(live_ranges())
def test_the_peak_is_the_fullest_epoch(ranges: list[LiveRange]) -> None:
    totals = [
        sum(align(r.nbytes) for r in ranges if r.first <= epoch <= r.last)
        for epoch in range(-3, 38)
    ]
    assert peak_bytes(ranges) == max(totals)


@given(live_ranges())
def test_greedy_is_never_worse_than_time_order(ranges: list[LiveRange]) -> None:
    assert place(ranges).nbytes <= place(ranges, _greedy_limit=0).nbytes


@pytest.mark.parametrize(
    "layers", [1, 2, 3, 5, 10, 50, 200, pytest.param(2_000, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("weight", [4_096, 65_536, 1 << 20])
def test_a_training_step_wastes_at_most_two_percent(layers: int, weight: int) -> None:
    ranges = training(layers, 32_768, weight)
    arena = place(ranges)
    check(ranges, arena)
    assert arena.nbytes <= 1.02 * arena.peak


@together("seed", range(10))
@pytest.mark.parametrize("layers", [3, 10, 50])
def test_an_uneven_training_step_wastes_at_most_two_percent(layers: int, seed: int) -> None:
    ranges = training(layers, 32_768, 65_536, random.Random(seed))
    arena = place(ranges)
    check(ranges, arena)
    assert arena.nbytes <= 1.02 * arena.peak


def test_a_chain_needs_two_buffers() -> None:
    ranges = [LiveRange(f"h{i}", 1_000, i, i + 1) for i in range(30)]
    assert place(ranges).nbytes == 2 * align(1_000)


def test_greedy_finds_what_time_order_misses() -> None:
    ranges = scattered(200, 100, 20, seed=1)
    arena = place(ranges)
    check(ranges, arena)
    assert arena.nbytes <= 1.06 * arena.peak
    assert arena.nbytes < place(ranges, _greedy_limit=0).nbytes


@pytest.mark.one_in(2)
@pytest.mark.parametrize("longest", [5, 300])
def test_twenty_thousand_ranges(longest: int) -> None:
    ranges = scattered(20_000, 20_000, longest, seed=2)
    arena = place(ranges)
    check(ranges, arena)
    assert arena.nbytes <= 1.15 * arena.peak


def test_as_many_ranges_as_greedy_takes() -> None:
    ranges = scattered(GREEDY_LIMIT, 2_000, 40, seed=3)
    check(ranges, place(ranges))


def test_sizes_are_rounded_up() -> None:
    assert [align(n) for n in (0, 1, 63, 64, 65)] == [0, 64, 64, 64, 128]


def test_nothing_takes_no_bytes() -> None:
    assert place([]) == Arena({}, 0, 0)
    empty = [LiveRange("e", 0, 0, 5), LiveRange("f", 0, 2, 2)]
    assert place(empty) == Arena({"e": 0, "f": 0}, 0, 0)
    assert place([*empty, LiveRange("x", 10, 1, 2)]).nbytes == 64


def test_a_repeated_name_is_refused() -> None:
    ranges = [LiveRange("a", 4, 0, 1), LiveRange("b", 4, 0, 1), LiveRange("b", 0, 5, 6)]
    with pytest.raises(ValueError, match="'b'"):
        place(ranges)


def test_a_range_must_make_sense() -> None:
    with pytest.raises(ValueError, match="negative"):
        LiveRange("a", -1, 0, 1)
    with pytest.raises(ValueError, match="before"):
        LiveRange("a", 1, 2, 1)
