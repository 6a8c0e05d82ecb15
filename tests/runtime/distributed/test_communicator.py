"""Sums over ranks: in the order of a balanced tree, whoever adds up what."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import graphc as gc
from graphc.compiler.sharding import room
from graphc.runtime.distributed.communicator import Solo, TreeSum, wait
from graphc.runtime.distributed.exchange import Exchange
from graphc.runtime.distributed.loopback import Loopback, run_ranks


def tree(parts: list[np.ndarray]) -> np.ndarray:
    """The definition."""
    half = len(parts) // 2
    return parts[0] if not half else tree(parts[:half]) + tree(parts[half:])


def numbers(count: int, elements: int, seed: int) -> list[np.ndarray]:
    """Of very different sizes, so that any other order gives other bits."""
    rng = np.random.default_rng(seed)
    made = rng.normal(size=(count, elements)) * 10.0 ** rng.integers(-6, 6, (count, elements))
    return list(made.astype(np.float32))


@settings(max_examples=12, deadline=None)
@given(
    size=st.sampled_from((1, 2, 4, 8)),
    elements=st.sampled_from((1, 2, 3, 17, 1024, 1025, 1500, 4096)),
    seed=st.integers(0, 99),
)
def test_every_rank_has_the_sum_of_the_tree(size: int, elements: int, seed: int) -> None:
    parts = numbers(size, elements, seed)

    def main(ranks: Loopback) -> np.ndarray:
        buffer = parts[ranks.rank].copy()
        scratch = np.empty(room(elements, 4), np.float32)
        wait(TreeSum(ranks, buffer, scratch, 3), 10)
        return buffer

    for found in run_ranks(size, main):
        assert found.tobytes() == tree(parts).tobytes()


@pytest.mark.parametrize("lanes", [1, 2, 4, 8])
def test_shards_of_one_rank_are_added_in_the_same_order(lanes: int) -> None:
    parts = numbers(lanes, 40, 0)
    exchange = Exchange(SimpleNamespace(programs={}, lanes=lanes, ranks=1), Solo())
    exchange._kept[0] = [np.zeros(40, np.float32) for _ in range((lanes - 1).bit_length())]
    for exchange.lane, part in enumerate(parts):
        buffer = part.copy()
        (exchange._send if exchange.lane == lanes - 1 else exchange._keep)(0, buffer)
    assert buffer.tobytes() == tree(parts).tobytes()


def test_three_ranks_have_one_sum_in_any_order() -> None:
    parts = numbers(3, 9, 0)

    def main(ranks: Loopback) -> np.ndarray:
        buffer = parts[ranks.rank].copy()
        wait(ranks.total(buffer, 0), 10)
        return buffer

    found = run_ranks(3, main)
    assert len({array.tobytes() for array in found}) == 1
    np.testing.assert_allclose(found[0], sum(parts), rtol=1e-6)


def test_broadcast_and_gather() -> None:
    def main(ranks: Loopback) -> tuple[list[int], float]:
        buffer = np.full(3, float(ranks.rank + 7))
        ranks.broadcast(buffer)
        return ranks.gather(10 * ranks.rank), float(buffer.sum())

    assert run_ranks(3, main) == [([0, 10, 20], 21.0)] * 3


def test_a_rank_that_hangs_is_named() -> None:
    def main(ranks: Loopback) -> None:
        if ranks.rank == 0:
            buffer = np.zeros(4, np.float32)
            wait(TreeSum(ranks, buffer, buffer.copy(), 0), 0.05)

    with pytest.raises(gc.RankError, match=r"rank 1 has not answered for 0\.05 s"):
        run_ranks(2, main)


def test_the_cause_is_told_when_a_rank_ends() -> None:
    def main(ranks: Loopback) -> None:
        if ranks.rank == 1:
            raise ZeroDivisionError("planted")
        ranks.gather(None)

    with pytest.raises(ZeroDivisionError, match="planted"):
        run_ranks(2, main)
