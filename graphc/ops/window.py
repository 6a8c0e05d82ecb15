"""Windows of convolution and pooling: their sizes and padding, and their places in an image.

An image has 1, 2 or 3 dimensions of space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np

from graphc.base.arguments import listed, plain, whole
from graphc.base.errors import GraphError
from graphc.ir.op import Array
from graphc.ir.tensor_type import Shape, shape_text
from graphc.ops.pad import Pads

Sizes = tuple[int, ...]
"""A number for each dimension of space."""
Window = tuple[slice, ...]
MOST = 2**31 - 1
"""The largest stride and dilation: places times these are whole numbers of 64 bits."""
MOST_PLACES = 1 << 20
"""The most places of a window that are counted, if its dilation exceeds the image."""


def reach(kernel: Sequence[int], dilation: Sequence[int]) -> Sizes:
    """Return the pixels that a dilated window spans in each dimension; raise ValueError below 1."""
    _check_positive("kernel", kernel)
    _check_positive("dilation", dilation)
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True))


def _check_positive(word: str, numbers: Sequence[int]) -> None:
    if not all(0 < number <= MOST for number in numbers):
        raise ValueError(f"{word} is {tuple(numbers)}, its numbers must be from 1 to {MOST:,}")


def places(space: Shape, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Sizes:
    """Return the numbers of positions of a window in an image; raise ValueError if one is 0."""
    _check_positive("stride", stride)
    found = []
    for size, span, step in zip(space, reach(kernel, dilation), stride, strict=True):
        if not isinstance(size, int):
            raise ValueError(f"an image of {shape_text(space)} pixels has no fixed size")
        if span > size:
            spans = by(reach(kernel, dilation))
            raise ValueError(
                f"the window spans {spans} pixels, the image with its padding {by(space)}\n"
                "take a smaller window, or pad the image"
            )
        found.append((size - span) // step + 1)
    return tuple(found)


def by(sizes: Sequence[object]) -> str:
    """Return sizes as text, such as `3 x 3`."""
    return " x ".join(map(str, sizes))


def dimensions(rank: int) -> str:
    """Return the names of `rank` dimensions of space."""
    return ", ".join(("length",) if rank == 1 else ("depth", "height", "width")[3 - rank :])


def windows(
    kernel: Sizes, stride: Sizes, dilation: Sizes, out: Sequence[int]
) -> Iterator[tuple[Sizes, Window]]:
    """Yield each offset in a window, in order, and the index of its pixels in (n, ...)."""
    for offset in product(*map(range, kernel)):
        cuts = (
            slice(at * step, at * step + (count - 1) * pace + 1, pace)
            for at, step, count, pace in zip(offset, dilation, out, stride, strict=True)
        )
        yield offset, (slice(None), *cuts)


def covering_pads(
    space: Sizes,
    kernel: Sizes,
    stride: Sizes,
    dilation: Sizes,
    pads: Sequence[tuple[int, int]],
) -> tuple[tuple[int, int], ...]:
    """Return pads, extended at the end for one more window over pixels that none reaches.

    There is no such window if it would begin in the padding at the end.
    """
    _check_positive("stride", stride)
    pairs = []
    spans = reach(kernel, dilation)
    for size, span, step, (before, after) in zip(space, spans, stride, pads, strict=True):
        left = (before + size + after - span) % step
        # ONNX and PyTorch do so where they round the number of windows up.
        begin = before + size + after - span - left + step
        more = step - left if left and begin < before + size else 0
        pairs.append((before, after + more))
    return tuple(pairs)


def has_empty_window(count: int, kernel: int, stride: int, dilation: int, inside: range) -> bool:
    """Return whether one of `count` windows has no pixel inside.

    Raise ValueError for more than MOST_PLACES windows if the dilation exceeds the inside.
    """
    if dilation <= len(inside):  # no window steps over the inside
        last = (count - 1) * stride
        return last >= inside.stop or (kernel - 1) * dilation < inside.start
    if count > MOST_PLACES:
        raise ValueError(
            f"{count:,} windows of pixels {dilation:,} apart are too many\n"
            "a dilation is less than the size of the image"
        )
    return int(pixels_inside(count, kernel, stride, dilation, inside).min(initial=1)) == 0


def pixels_inside(count: int, kernel: int, stride: int, dilation: int, inside: range) -> Array:
    """Return the number of pixels inside for each of `count` windows, in one dimension.

    Pixels are `dilation` apart, so the pixels inside lie between two quotients.
    """
    begin = np.arange(count) * stride
    first = np.maximum(-((begin - inside.start) // dilation), 0)
    last = np.minimum((inside.stop - 1 - begin) // dilation, kernel - 1)
    return np.asarray(np.maximum(last - first + 1, 0))


SAME = "same"


def sizes(op: str, word: str, given: Any, rank: int, least: int = 1) -> Sizes:
    """Return a whole number, or `rank` of them, as a tuple; raise GraphError for anything else."""
    several = listed(given)
    numbers = (plain(given),) * rank if several is None else several
    if len(numbers) != rank or any(whole(n, least) is None for n in numbers):
        raise GraphError(
            f"{op}: {word} is {given!r}, it must be a whole number from {least} up, "
            f"or {rank} of them",
            hint=f"one for each dimension of space: {word}={(least or 1,) * rank}",
        )
    return numbers


def pads(op: str, given: Any, rank: int) -> Pads:
    """Return pairs (before, after) from a whole number, `rank` of them, or `rank` pairs.

    Raise GraphError for anything else.
    """
    each = listed(given)
    pairs = tuple(listed(pair) or (plain(pair),) * 2 for pair in each or (given,) * rank)
    numbers = [number for pair in pairs for number in pair]
    fits = len(pairs) == rank and all(len(pair) == 2 for pair in pairs)
    if not fits or any(whole(n, 0) is None for n in numbers):
        raise GraphError(
            f"{op}: padding is {given!r}, it must be a whole number from 0 up, "
            f"{rank} of them, or {rank} pairs of them",
            hint=f"a pair says how much goes before and after: padding={((0, 1),) * rank}",
        )
    return tuple((pair[0], pair[1]) for pair in pairs)


def same_pads(op: str, space: Shape, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Pads:
    """Return padding for size / stride windows, rounded up.

    An odd pixel of it is at the end.  Raise ValueError if a stride is below 1.
    """
    _check_positive("stride", stride)
    pairs = []
    for size, span, step in zip(space, reach(kernel, dilation), stride, strict=True):
        if not isinstance(size, int):
            raise GraphError(f"{op}: padding 'same' needs an image of fixed size")
        total = max((-(-size // step) - 1) * step + span - size, 0)
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)
