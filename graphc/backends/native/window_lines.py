"""A line of places and the lines of the filter over it: where they meet pixels of an image.

What is outside the image is left out: a branch skips a line of the filter, and a stretch of places
has only the rows that meet pixels there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

from graphc.backends.native.ir import Function, Value
from graphc.ir.forms import Phase, Sizes, Window


class Stretch(NamedTuple):
    """Neighbouring places that meet the pixels of the same rows: the first, and their number."""

    first: int
    places: Value
    rows: tuple[int, ...]


def stretches_of(met: Sequence[range]) -> tuple[range, tuple[Stretch, ...]]:
    """Return the places that any row meets, and their stretches, of the places that each row meets.

    If all rows meet the same places, there is none.
    """
    if len({*met}) == 1:
        return met[0], ()
    edges = sorted({edge for places in met if places for edge in (places.start, places.stop)})
    found = []
    for first, end in pairwise(edges):
        rows = tuple(row for row, places in enumerate(met) if first in places)
        if rows:
            found.append(Stretch(first - edges[0], str(end - first), rows))
    return range(edges[0], edges[-1]), tuple(found)


def inside(window: Window, axis: int, phase: Phase) -> Sizes:
    """Return the first and end place of a phase between which all offsets meet pixels."""
    first, end, stride = 0, phase.places, window.stride[axis]
    for _, at in phase.met:
        first = max(first, -(at // stride))
        end = min(end, (window.space[axis] - 1 - at) // stride + 1)
    first = min(first, phase.places)
    return first, max(first, end)


class FilterLine(NamedTuple):
    """A line of the filter: its number, and the address of the line of pixels that it meets."""

    number: int
    pixels: Value
    there: Value | None
    """True if there are such pixels; None if there always are."""


def filter_lines(
    f: Function,
    element: str,
    window: Window,
    phases: Sequence[Phase],
    numbers: Sequence[Value],
    image: Value,
) -> list[FilterLine]:
    """Emit the lines of the filter that a line of places may meet.

    `phases` and `numbers` are those of the line of places in each dimension but the last.
    """
    around = [f.quotient(at, d) for at, d in zip(numbers, window.divisor, strict=False)]
    found = []
    for met in product(*(phase.met for phase in phases)):
        number, index, there = 0, "0", None
        for axis, (offset, at) in enumerate(met):
            number = number * window.kernel[axis] + offset
            pixel = f.add(f.mul(around[axis], window.stride[axis]), at)
            index = f.add(index, f.mul(pixel, prod(window.space[axis + 1 :]) * window.pixel))
            if inside(window, axis, phases[axis]) != (0, phases[axis].places):
                is_pixel = f.value(f"icmp ult i64 {pixel}, {window.space[axis]}")
                there = is_pixel if there is None else f.both(there, is_pixel)
        found.append(FilterLine(number, f.address(image, index, element), there))
    return found
