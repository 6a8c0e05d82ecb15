"""The sizes of windows as users give them: one number for all dimensions, or one for each."""

from __future__ import annotations

from typing import Any

from graphc.base.arguments import listed, plain, whole
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.tensor_type import Shape
from graphc.ops.pad import Pads
from graphc.ops.window import Sizes, reach

SAME = "same"


def sizes(op: str, word: str, given: Any, rank: int, least: int = 1) -> Sizes:
    """Return a whole number, or `rank` of them, as a tuple; raise GraphError for anything else."""
    several = listed(given)
    numbers = (plain(given),) * rank if several is None else several
    if len(numbers) != rank or any(whole(n, least) is None for n in numbers):
        raise GraphError(
            f"{op}: {word} is {given!r}, it must be a whole number from {least} up, "
            f"or {rank} of them",
            loc=caller_loc(),
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
            loc=caller_loc(),
            hint=f"a pair says how much goes before and after: padding={((0, 1),) * rank}",
        )
    return tuple((pair[0], pair[1]) for pair in pairs)


def same_pads(op: str, space: Shape, kernel: Sizes, stride: Sizes, dilation: Sizes) -> Pads:
    """Return padding that gives size / stride places, rounded up.

    An odd one is at the end.
    """
    pairs = []
    for size, span, step in zip(space, reach(kernel, dilation), stride, strict=True):
        if not isinstance(size, int):
            raise GraphError(f"{op}: padding 'same' needs an image of fixed size", loc=caller_loc())
        total = max((-(-size // step) - 1) * step + span - size, 0)
        pairs.append((total // 2, total - total // 2))
    return tuple(pairs)
