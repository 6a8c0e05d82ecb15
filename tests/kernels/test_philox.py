"""Philox words: published answers, and that both forms agree."""

from __future__ import annotations

import hashlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from graphc.ir.tensor_type import TensorType
from graphc.kernels.philox import (
    fill_words,
    keep_words,
    key_of,
    mask_scratch,
    philox4x32,
    stream_of,
    threshold,
)
from graphc.ops.dropout import DropoutMask
from tests.ops.harness import Bound

ONES = 0xFFFFFFFF

# Random123 (D. E. Shaw Research), the philox4x32 rows with 10 rounds of its known answers.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def buffers(rows: int, columns: int) -> list[NDArray[Any]]:
    """Scratch full of rubbish."""
    return [np.full(shape, 255, dtype) for shape, dtype in mask_scratch(rows, columns)]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_published_answers(
    counter: tuple[int, ...], key: tuple[int, int], answer: tuple[int, ...]
) -> None:
    assert tuple(int(word) for word in philox4x32(counter, key)) == answer


def test_arrays_broadcast_and_agree_with_single_counters() -> None:
    column, row = np.arange(5)[None, :], np.arange(3)[:, None]
    words = philox4x32((column, row, 7, 9), (1, 2))
    assert all(word.shape == (3, 5) and word.dtype == np.uint32 for word in words)
    single = philox4x32((4, 2, 7, 9), (1, 2))
    assert [int(word[2, 4]) for word in words] == [int(word) for word in single]


def test_words_follow_the_stated_counter() -> None:
    seed, stream, draws = 0x0123456789ABCDEF, 42, 6
    words = keep_words(seed, stream, draws, 4, 150, first_row=10)
    for row, column in [(0, 0), (1, 15), (2, 16), (3, 63), (0, 64), (3, 149)]:
        counter = (16 * (column // 64) + column % 16, 10 + row, draws, stream)
        expected = philox4x32(counter, (0x89ABCDEF, 0x01234567))[column % 64 // 16]
        assert words[row, column] == expected


@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 1), (3, 10), (7, 50), (33, 130), (600, 64), (5, 21000), (2, 65536)]
)
def test_fast_words_equal_the_definition(rows: int, columns: int) -> None:
    out = np.full((rows, columns), 77, np.uint32)
    fill_words(out, -5, 77, 3, buffers(rows, columns), first_row=2**32 - 2)
    np.testing.assert_array_equal(out, keep_words(-5, 77, 3, rows, columns, first_row=2**32 - 2))


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 200),
    seed=st.integers(0, 2**64 - 1),
    stream=st.integers(0, 2**32 - 1),
    draws=st.integers(0, 2**33),
    spare=st.integers(0, 9),
)
def test_fast_words_equal_the_definition_anywhere(
    rows: int, columns: int, seed: int, stream: int, draws: int, spare: int
) -> None:
    out = np.full((rows, columns), 77, np.uint32)
    fill_words(out, seed, stream, draws, buffers(rows + spare, columns))
    np.testing.assert_array_equal(out, keep_words(seed, stream, draws, rows, columns))


def test_words_are_written_into_strided_rows_only() -> None:
    wide = np.full((9, 100), 77, np.uint32)
    fill_words(wide[:, :70], 1, 2, 3, buffers(9, 70))
    np.testing.assert_array_equal(wide[:, :70], keep_words(1, 2, 3, 9, 70))
    assert (wide[:, 70:] == 77).all()


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_no_words(shape: tuple[int, int]) -> None:
    fill_words(np.empty(shape, np.uint32), 1, 2, 3, buffers(*shape))
    assert keep_words(1, 2, 3, *shape).shape == shape


def test_a_row_does_not_depend_on_the_rows_around_it() -> None:
    whole = keep_words(11, 12, 13, 50, 70)
    np.testing.assert_array_equal(keep_words(11, 12, 13, 20, 70), whole[:20])
    np.testing.assert_array_equal(keep_words(11, 12, 13, 30, 70, first_row=20), whole[20:])
    for first in (0, 1, 31, 49):
        part = np.empty((50 - first, 70), np.uint32)
        fill_words(part, 11, 12, 13, buffers(50, 70), first_row=first)
        np.testing.assert_array_equal(part, whole[first:])


def test_a_column_does_not_depend_on_the_width() -> None:
    np.testing.assert_array_equal(keep_words(1, 2, 3, 4, 40), keep_words(1, 2, 3, 4, 200)[:, :40])


def test_seed_stream_and_draw_each_change_the_words() -> None:
    arguments = [(1, 2, 3), (1 + 2**40, 2, 3), (2, 2, 3), (1, 5, 3), (1, 2, 4)]
    assert len({keep_words(*three, 8, 8).tobytes() for three in arguments}) == len(arguments)


def test_words_are_roughly_uniform_and_rows_uncorrelated() -> None:
    words = keep_words(2024, 5, 0, 512, 512) / 2**32
    cells = np.bincount((words.ravel() * 256).astype(int), minlength=256)
    expected = words.size / 256
    chi_square = float(((cells - expected) ** 2 / expected).sum())
    assert 150 < chi_square < 380  # 255 degrees of freedom: within 5.5 standard deviations
    assert abs(words.mean() - 0.5) < 0.003
    for left, right in ((words[1:], words[:-1]), (words[:, 16:], words[:, :-16])):
        assert abs(np.corrcoef(left.ravel(), right.ravel())[0, 1]) < 0.01


def test_threshold_is_exact() -> None:
    assert threshold(0.0) == 0
    assert threshold(1.0) == 2**32
    assert threshold(0.5) == 2**31
    assert threshold(0.8) == 3435973837
    assert threshold(2.0**-40) == 1


@pytest.mark.parametrize("keep_prob", [-0.1, 1.5, float("nan")])
def test_threshold_refuses_what_is_no_probability(keep_prob: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold(keep_prob)


@pytest.mark.parametrize("keep_prob", [1.0, 0.3, 2.0**-40])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_mask_keeps_the_words_below_the_threshold(keep_prob: float, dtype: str) -> None:
    op = DropoutMask((64, 256), dtype, keep_prob, 2)
    types = [TensorType((), "uint64"), TensorType((), "int64")]
    mask = Bound(op, types, 1).run([np.asarray(1), np.asarray(3)])
    keep = keep_words(1, 2, 3, 64, 256) < threshold(keep_prob)
    np.testing.assert_array_equal(mask, np.where(keep, np.dtype(dtype).type(1 / keep_prob), 0))


def test_stream_is_the_start_of_the_hash_of_the_name() -> None:
    assert stream_of("dropout_1") == int(hashlib.blake2b(b"dropout_1").hexdigest()[:8], 16)
    assert stream_of("") == 0x786A02F7  # BLAKE2b-512 of nothing, RFC 7693


def test_key_splits_the_seed_into_low_and_high() -> None:
    assert key_of(0x0123456789ABCDEF) == (0x89ABCDEF, 0x01234567)
    assert key_of(-1) == (ONES, ONES)


def test_scratch_stays_small() -> None:
    def size(rows: int, columns: int) -> int:
        return sum(
            int(np.prod(shape)) * np.dtype(dtype).itemsize
            for shape, dtype in mask_scratch(rows, columns)
        )

    assert max(size(r, c) for r in (1, 128, 10**6) for c in (1, 768, 10**6)) <= 420 * 1024


def test_filling_makes_no_array_memory() -> None:
    out = np.empty((256, 768), np.uint32)
    scratch = buffers(256, 768)
    fill_words(out, 1, 2, 3, scratch)
    tracemalloc.start()
    fill_words(out, 1, 2, 4, scratch)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < out.nbytes / 16  # objects of other threads of the process count, too
