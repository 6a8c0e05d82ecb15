"""The addresses of the pixels that a line of places meets, offset by offset of the filter.

An offset that does not meet a pixel meets zeros: an address is selected, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import prod
from typing import NamedTuple

from graphc.backends.native.ir import Function, Value
from graphc.kernels.window import Phase, Sizes, Window

STRAIGHT = 16
"""The most factors of a line of the filter that are taken without a loop."""


class KernelLine(NamedTuple):
    """A line of the filter: its number, and the address of the line of pixels that it meets."""

    number: int
    pixels: Value


def line_arguments(rank: int) -> list[tuple[str, str]]:
    """Return the arguments: the image, a line of zeros, the index of the line per dimension.

    The last dimension, which the line of places runs over, has none.
    """
    numbers = [("i64", f"%at{axis}") for axis in range(rank - 1)]
    return [("ptr", "%image"), ("ptr", "%zeros"), *numbers]


class GroupLine:
    """A line of places, in a function that has `line_arguments`."""

    def __init__(
        self, f: Function, element: str, window: Window, outer: Sequence[Phase], last: Phase
    ) -> None:
        """`outer` are the phases of the line, `last` that of the places in it."""
        self.f, self.element, self.window = f, element, window
        self.phase = last
        self.kernel_lines = [self._line(outer, met) for met in product(*(p.met for p in outer))]

    def _line(self, phases: Sequence[Phase], met: Sequence[tuple[int, int]]) -> KernelLine:
        f, window = self.f, self.window
        number, index, there = 0, "0", None
        for axis, (offset, at) in enumerate(met):
            number = number * window.kernel[axis] + offset
            place = f.quotient(f"%at{axis}", window.apart[axis])
            pixel = f.add(f.mul(place, window.stride[axis]), at)
            pitch = prod(window.space[axis + 1 :]) * window.pixel
            index = f.add(index, f.mul(pixel, pitch))
            if inside(window, axis, phases[axis]) != (0, phases[axis].places):
                is_pixel = f.value(f"icmp ult i64 {pixel}, {window.space[axis]}")
                there = is_pixel if there is None else f.value(f"and i1 {there}, {is_pixel}")
        pixels = f.address("%image", index, self.element)
        return KernelLine(number, pixels if there is None else self._or_zeros(there, pixels))

    def pixel(self, line: KernelLine, place: Value, at: Value | int, *, checked: bool) -> Value:
        """Emit the address of the pixel that a place meets; if `checked`, zeros if it has none."""
        f, window = self.f, self.window
        number = f.add(f.mul(place, window.stride[-1]), at)
        address = f.address(line.pixels, f.mul(number, window.pixel), self.element)
        if not checked:
            return address
        there = f.value(f"icmp ult i64 {number}, {window.space[-1]}")
        return self._or_zeros(there, address)

    def _or_zeros(self, there: Value, address: Value) -> Value:
        return self.f.value(f"select i1 {there}, ptr {address}, ptr %zeros")

    def offsets(
        self,
        body: Callable[[Value, Value, list[Value]], list[Value]],
        carried: list[Value],
        type: str,
    ) -> list[Value]:
        """Emit `carried = body(offset, at, carried)` for each offset of a line of the filter.

        Return the last values, which are of `type`.  The offsets are evenly spaced.
        """
        met = self.phase.met
        if not met:
            return carried
        (offset, at), (second, then) = met[0], met[min(1, len(met) - 1)]

        def one(i: Value | int, carried: list[Value]) -> list[Value]:
            f = self.f
            number = f.add(f.mul(i, second - offset), offset)
            return body(number, f.add(f.mul(i, then - at), at), carried)

        if self.straight < len(met):
            return self.f.loop(0, len(met), 1, one, [(type, x) for x in carried])
        for i in range(len(met)):
            carried = one(i, carried)
        return carried

    @property
    def straight(self) -> int:
        """The number of offsets of a line of the filter that are taken without a loop."""
        many = len(self.phase.met) * self.window.channels > STRAIGHT
        return 1 if many else len(self.phase.met)


def inside(window: Window, axis: int, phase: Phase) -> Sizes:
    """Return the first and end place of a phase between which all offsets meet pixels."""
    first, end, stride = 0, phase.places, window.stride[axis]
    for _, at in phase.met:
        first = max(first, -(at // stride))
        end = min(end, (window.space[axis] - 1 - at) // stride + 1)
    first = min(first, phase.places)
    return first, max(first, end)
