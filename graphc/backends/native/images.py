"""The images that a window runs over: read in place, or as copies with zeros around them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.vectors import Vectors
from graphc.kernels.window import Window


class Images:
    """The images, one at a time; a copy is in a thread's memory, whose zeros are written once."""

    def __init__(self, frame: Frame, window: Window, copy: Value) -> None:
        """`copy` has space for the positions of an image."""
        self.frame, self.f, self.window, self.copy = frame, frame.f, window, copy

    def clear(self) -> None:
        """Emit the zeros of the copy, if there is one, for the positions that no image writes."""
        if not self.window.is_direct:
            size = self.frame.scratch.image
            fill(self._vectors(), self.copy, size, self.frame.tile.dtype)

    def first_channel(self, column: Value) -> Value:
        """Emit the first channel that a column of the result reads."""
        if self.window.groups == 1:
            return "0"
        group = self.f.quotient(column, self.frame.scratch.part)
        return self.f.mul(group, self.window.channels)

    def at(self, number: Value, column: Value) -> Value:
        """Emit the address of an image, copied if needed, for a panel that begins at a column."""
        f, frame = self.f, self.frame
        first = f.add(f.mul(number, self.window.pixels), self.first_channel(column))
        image = frame.address(frame.a, first)
        if self.window.is_direct:
            return image
        f.do(f"call void @{self._emit_copy()}(ptr {image}, ptr {self.copy})")
        return self.copy

    def _vectors(self) -> Vectors:
        return Vectors(self.frame.module, self.f, self.frame.tile.lanes)

    def _emit_copy(self) -> str:
        """Emit the function that copies the pixels of an image to their positions."""
        module, tile, window = self.frame.module, self.frame.tile, self.window
        pixel = window.channels, window.groups
        place = window.space, pixel, window.held, window.before, window.apart
        key = ("image", tile.dtype, tile.lanes, place)
        name = module.known(key)
        if name is None:
            name = module.name("image", key)
            f = Function(name, (("ptr", "%from"), ("ptr", "%to")), attributes="#1")
            _Copy(Vectors(module, f, tile.lanes), tile.dtype, window).emit()
            f.ret()
            module.add(f)
        return name


class _Copy:
    """The code of a copy: a loop for each dimension, the last one over neighbours in memory."""

    def __init__(self, v: Vectors, dtype: str, window: Window) -> None:
        self.v, self.f, self.dtype, self.window = v, v.function, dtype, window
        self.element = element_type(dtype)

    def emit(self) -> None:
        """Emit the copy of the whole image."""
        self._axis(0, "%from", "%to", self.window.pixels)

    def _axis(self, axis: int, source: Value, target: Value, pixels: int) -> None:
        """Emit the copy of one dimension; one step of the dimension before is `pixels` elements."""
        window, f = self.window, self.f
        first, end = _met(window, axis)
        inner = pixels // window.space[axis]
        step = window.apart[axis] * window.pitches[axis]
        start = (first * window.apart[axis] + window.before[axis]) * window.pitches[axis]
        source = f.address(source, first * inner, self.element)
        target = f.address(target, start, self.element)
        if axis == len(window.space) - 1 and window.apart[axis] == window.groups == 1:
            _move(self.v, source, target, (end - first) * inner, self.dtype)
            return

        def pixel(i: Value, _: list[Value]) -> None:
            place = f.address(source, f.mul(i, inner), self.element)
            to = f.address(target, f.mul(i, step), self.element)
            if axis == len(window.space) - 1:
                _move(self.v, place, to, window.channels, self.dtype)
            else:
                self._axis(axis + 1, place, to, inner)

        f.loop(0, end - first, 1, pixel)


def _met(window: Window, axis: int) -> tuple[int, int]:
    """Return the first and end pixel of a dimension that have a position in the copy."""
    before, apart, size = window.before[axis], window.apart[axis], window.held[axis]
    first = max(-(before // apart), 0)
    end = min((size - 1 - before) // apart + 1, window.space[axis])
    return first, max(end, first)


def _move(v: Vectors, source: Value, target: Value, size: int, dtype: str) -> None:
    """Emit the copy of `size` neighbours in memory."""

    def vector(i: Value | int, mask: Value | None) -> None:
        x = v.load(v.function.address(source, i, element_type(dtype)), dtype, mask)
        v.store(x, v.function.address(target, i, element_type(dtype)), dtype, mask)

    _by_vectors(v, size, vector)


def fill(v: Vectors, target: Value, size: int, dtype: str) -> None:
    """Emit stores of `size` zeros from the address `target` on."""

    def vector(i: Value | int, mask: Value | None) -> None:
        place = v.function.address(target, i, element_type(dtype))
        v.store(v.const(0, dtype), place, dtype, mask)

    _by_vectors(v, size, vector)


def _by_vectors(v: Vectors, size: int, vector: Callable[[Value | int, Value | None], None]) -> None:
    full = size // v.lanes * v.lanes
    if full == v.lanes:
        vector(0, None)
    elif full:
        v.function.loop(0, full, v.lanes, lambda i, _: vector(i, None))
    if size > full:
        vector(full, v.mask_below(size - full))


def place_of(f: Function, number: Value, sizes: Sequence[int], steps: Sequence[int]) -> Value:
    """Emit the offset in elements of a place, by its number in C order over `sizes`."""
    found: Value = "0"
    for axis in reversed(range(len(sizes))):
        at = number
        if axis:
            at, number = f.remainder(number, sizes[axis]), f.quotient(number, sizes[axis])
        found = f.add(found, f.mul(at, steps[axis]))
    return found
