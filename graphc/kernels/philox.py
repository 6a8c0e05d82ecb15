"""The random words of dropout masks and random numbers: Philox4x32-10 in NumPy.

Philox is counter-based: a word is a pure function of (counter, key), so a mask does not
depend on how a batch is cut, on threads, or on earlier draws.  Algorithm and
constants: J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as
easy as 1, 2, 3", SC11, section 3.3 and table 2.

The element at row r and column c of a mask reads

    counter  (16 * (c // 64) + c % 16,  r,  draws,  stream)      each mod 2**32
    key      (low, high) 32-bit words of the seed
    word     (c % 64) // 16  of the four

so one counter serves four columns sixteen apart, and sixteen neighbouring counters fill 64
columns.  `keep_words` computes this directly; `fill_words` computes the same bits without
allocating.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint32]
_Wide = NDArray[np.uint64]

_LOW = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)

_GROUP = 64  # columns served by one group of counters
_LANES = 16  # counters in a group
_BLOCK = 5120  # counters computed together: 240 KiB of state, near enough to the core
_PANEL = _BLOCK // _LANES  # groups of columns computed together

_SHIFT = np.uint64(32)
_MASK = np.uint64(_LOW)
_PAIR = np.array(MULTIPLIERS, np.uint64).reshape(2, 1)


def stream_of(name: str) -> int:
    """Return a layer's stream: the first 4 bytes of BLAKE2b-512 of its UTF-8 name, big endian."""
    return int.from_bytes(blake2b(name.encode(errors="surrogatepass")).digest()[:4], "big")


def threshold(keep_prob: float) -> int:
    """Return the bound below which a word means "keep": ``ceil(keep_prob * 2**32)``.

    Raise ValueError outside 0..1.  The product is exact, and 1 gives 2**32: all words.
    """
    if not 0.0 <= keep_prob <= 1.0:
        raise ValueError(f"keep_prob must lie between 0 and 1, not {keep_prob}")
    return math.ceil(keep_prob * 2**32)


def philox4x32(
    counter: Sequence[ArrayLike], key: tuple[int, int]
) -> tuple[Words, Words, Words, Words]:
    """Return four uint32 arrays of random words: Philox4x32-10, the readable form.

    `counter` holds four arrays or numbers that broadcast together, each taken mod 2**32;
    `key` holds two numbers.  The results have the broadcast shape.
    """
    x0, x1, x2, x3 = (np.bitwise_and(np.asarray(word, np.uint64), _MASK) for word in counter)
    for k0, k1 in _round_keys(key):
        p0, p1 = x0 * np.uint64(MULTIPLIERS[0]), x2 * np.uint64(MULTIPLIERS[1])
        x0, x1, x2, x3 = (
            (p1 >> _SHIFT) ^ x1 ^ np.uint64(k0),
            p1 & _MASK,
            (p0 >> _SHIFT) ^ x3 ^ np.uint64(k1),
            p0 & _MASK,
        )
    w0, w1, w2, w3 = (word.astype(np.uint32) for word in np.broadcast_arrays(x0, x1, x2, x3))
    return w0, w1, w2, w3


def keep_words(
    seed: int,
    stream: int,
    draws: int,
    rows: int,
    columns: int,
    first_row: int = 0,
    first_column: int = 0,
) -> Words:
    """Return the word of every element of a mask, uint32 (rows, columns): the definition.

    `first_row` and `first_column` are the indices of row 0 and column 0 over all ranks.
    """
    row = np.arange(first_row, first_row + rows, dtype=np.uint64)[:, None]
    column = np.arange(first_column, first_column + columns, dtype=np.uint64)[None, :]
    counter = (_LANES * (column // _GROUP) + column % _LANES, row, draws & _LOW, stream & _LOW)
    words = np.stack(philox4x32(counter, key_of(seed)))
    which = (column % _GROUP // _LANES).astype(np.intp)
    chosen: Words = np.take_along_axis(words, np.broadcast_to(which, (1, rows, columns)), 0)[0]
    return chosen


def key_of(seed: int) -> tuple[int, int]:
    """Return the key of a seed: its (low, high) 32-bit words, the seed taken mod 2**64."""
    whole = int(seed)  # NumPy's integers do not shift like this
    return whole & _LOW, whole >> 32 & _LOW


def mask_scratch(rows: int, columns: int) -> list[tuple[tuple[int, ...], str]]:
    """Return shape and dtype of each buffer that `fill_words` needs for up to (rows, columns).

    They take at most 380 KiB in all, however large the mask.
    """
    panel = min(_groups(columns), _PANEL) * _LANES
    block = min(max(rows, 1), _BLOCK // panel)
    size = block * panel
    return [((6 * size,), "uint64"), ((3 * panel + 2 * block,), "uint64")]


def fill_words(
    out: Words,
    seed: int,
    stream: int,
    draws: int,
    scratch: Sequence[NDArray[Any]],
    first_row: int = 0,
) -> None:
    """Write the words of `keep_words` into `out`, uint32 (rows, columns).

    `scratch` holds C-contiguous buffers as `mask_scratch` lists them for this or a larger number of
    rows; their contents do not matter.  Nothing but constants of a few bytes is allocated.
    """
    rows, columns = out.shape
    panel = min(_groups(columns), _PANEL)
    block = min(max(rows, 1), _BLOCK // (panel * _LANES))
    keys = _round_keys(key_of(seed))
    for left in range(0, columns, panel * _GROUP):
        for top in range(0, rows, block):
            part = out[top : top + block, left : left + panel * _GROUP]
            size = part.shape[0] * _groups(part.shape[1]) * _LANES
            state = scratch[0].reshape(-1)[: 6 * size].reshape(3, 2, size)
            corner = (first_row + top, left // _GROUP * _LANES)
            _first_rounds(state, scratch[1].reshape(-1), part.shape, corner, (draws, stream), keys)
            for key in keys[2:]:
                _round(state, key)
            _write(part, state)


def _groups(columns: int) -> int:
    """Return how many groups of counters serve `columns` columns."""
    return max(-(-columns // _GROUP), 1)


def _round_keys(key: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the key of every round: the Weyl sequence that starts at `key`."""
    return [((key[0] + r * WEYL[0]) & _LOW, (key[1] + r * WEYL[1]) & _LOW) for r in range(ROUNDS)]


def _count_from(first: int, out: _Wide) -> None:
    """Fill `out` with first, first + 1, ... mod 2**32."""
    # Not np.arange, which allocates.
    out.fill(1)
    out[0] = first & _LOW
    np.add.accumulate(out, out=out)
    np.bitwise_and(out, _MASK, out=out)


def _first_rounds(
    state: _Wide,
    vectors: _Wide,
    shape: tuple[int, int],
    corner: tuple[int, int],
    constants: tuple[int, int],
    keys: list[tuple[int, int]],
) -> None:
    """Run rounds one and two, after which only one word of four depends on both row and column.

    Row and column enter through different words and meet in round two at the earliest, so the
    work up to there is done on one row and one column.  `state` becomes the input of `_round`.
    """
    rows, lanes = shape[0], _groups(shape[1]) * _LANES
    column, c1, c3 = vectors[: 3 * lanes].reshape(3, lanes)
    row, r3 = vectors[3 * lanes : 3 * lanes + 2 * rows].reshape(2, rows)
    _count_from(corner[0], row)
    _count_from(corner[1], column)
    draws, stream = constants[0] & _LOW, constants[1] & _LOW
    product = draws * MULTIPLIERS[1]

    np.bitwise_xor(row, np.uint64(product >> 32 ^ keys[0][0]), out=row)
    np.multiply(column, _PAIR[0], out=column)
    np.bitwise_and(column, _MASK, out=c3)
    np.right_shift(column, _SHIFT, out=column)
    np.bitwise_xor(column, np.uint64(stream ^ keys[0][1]), out=column)

    np.multiply(row, _PAIR[0], out=row)
    np.bitwise_and(row, _MASK, out=r3)
    np.right_shift(row, _SHIFT, out=row)
    np.multiply(column, _PAIR[1], out=column)
    np.bitwise_and(column, _MASK, out=c1)
    np.right_shift(column, _SHIFT, out=column)
    np.bitwise_xor(column, np.uint64(product & _LOW ^ keys[1][0]), out=column)
    np.bitwise_xor(c3, np.uint64(keys[1][1]), out=c3)

    (x0, x2), (x1, x3), (spread, _) = state.reshape(3, 2, rows, lanes)
    np.copyto(x0, column)
    np.copyto(x1, c1)
    np.copyto(x2, row[:, None])
    np.copyto(spread, c3)  # NumPy would allocate to broadcast two operands at once
    np.bitwise_xor(x2, spread, out=x2)
    np.copyto(x3, r3[:, None])


def _round(state: _Wide, key: tuple[int, int]) -> None:
    """Run one round on `state`: words (x0, x2), words (x1, x3), and room for two products."""
    even, odd, product = state
    np.multiply(even, _PAIR, out=product)
    # Each half of the state takes the product of the other half.
    swapped = product[::-1]
    np.right_shift(swapped, _SHIFT, out=even)
    np.bitwise_xor(even, odd, out=even)
    np.bitwise_xor(even[0], np.uint64(key[0]), out=even[0])
    np.bitwise_xor(even[1], np.uint64(key[1]), out=even[1])
    np.bitwise_and(swapped, _MASK, out=odd)


def _write(part: Words, state: _Wide) -> None:
    """Write the words in `state` at their places: sixteen columns of each group have one word."""
    rows, columns = part.shape
    groups, full = _groups(columns), columns // _GROUP
    (w0, w2), (w1, w3) = state[:2].reshape(2, 2, rows, groups, _LANES)
    placed = part[:, : full * _GROUP].reshape(rows, full, 4, _LANES)
    for number, word in enumerate((w0, w1, w2, w3)):
        np.copyto(placed[:, :, number], word[:, :full], casting="unsafe")
        left = full * _GROUP + number * _LANES
        rest = part[:, left : left + _LANES]
        np.copyto(rest, word[:, -1, : rest.shape[1]], casting="unsafe")
