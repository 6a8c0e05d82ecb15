"""The images that a convolution of bfloat16 in blocks reads: in place, or copies with zeros."""

from __future__ import annotations

from graphc.backends.native.gemm_frame import Frame
from graphc.backends.native.gemm_pairs import BITS
from graphc.backends.native.gemm_windows import emit_image
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.loop_structure import clear
from graphc.backends.native.vectors import Vectors
from graphc.ir.forms import BLOCK, Window


class HeldImages:
    """The images of a product, and the memory of the copies if they are not read in place."""

    def __init__(self, frame: Frame, window: Window, copies: Value) -> None:
        self.frame, self.f, self.window, self.copies = frame, frame.f, window, copies

    def clear(self, elements: int) -> None:
        """Emit zeros in the place of the copies; those around pixels stay."""
        if not self.window.is_direct:
            clear(Vectors(self.f, BLOCK), self.copies, elements, BITS)

    def read(self, first: Value, end: Value | int) -> Value:
        """Emit the copies of some images, and the address of the first one."""
        if self.window.is_direct:
            return self._image(first)
        f, copy = self.f, emit_image(self.frame.module, BLOCK, BITS, self.window)
        for number in f.each(first, end):
            held = f.mul(f.sub(number, first), self.window.held_elements)
            f.call(copy, self._image(number), f.address(self.copies, held, "i16"))
        return self.copies

    def _image(self, number: Value) -> Value:
        """Emit the address of an image."""
        return self.frame.factor(self.frame.a, self.f.mul(number, self.window.pixels))


def place_start(f: Function, window: Window, number: Value) -> Value:
    """Emit the first element that a place of some images reads."""
    image, *at = f.indices(number, window.places)
    start = f.mul(image, window.held_elements)
    for index, step in zip(at, window.steps, strict=True):
        start = f.add(start, f.mul(index, step))
    return start


def offset_start(f: Function, window: Window, number: Value) -> Value:
    """Emit the elements from a place's first one to that of an offset of the filter."""
    start: Value = "0"
    at = f.indices(number, window.kernel[1:])
    for index, dilation, pitch in zip(at, window.dilation, window.pitches, strict=True):
        start = f.add(start, f.mul(index, dilation * pitch))
    return start
