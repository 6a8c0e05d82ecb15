"""Convolutions of bfloat16: by the code of float32, on widened copies of both factors.

The terms of a pair, which are channels of one pixel, are added second first: in the copies they
have changed places.
"""

from __future__ import annotations

from collections.abc import Mapping

from graphc.backends.native.bfloat16_scratch import WideScratch
from graphc.backends.native.ir import Callee, Function, Value
from graphc.backends.native.loop_structure import each_vector
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import ALIGNMENT, Dim
from graphc.kernels.kernel import CHUNK, Convolution

NARROW, WIDE = "bfloat16", "float32"
COPIES = "wide a", "wide b"
"""The names of the copies, as buffers of the product of float32."""


class Widened:
    """The emitter of a convolution's function: the copies of what a thread reads, and a product."""

    def __init__(
        self, f: Function, kernel: Convolution, scratch: WideScratch, pitch: Mapping[str, Dim]
    ) -> None:
        """Prepare; `pitch` has the elements from row to row of every matrix."""
        self.f, self.kernel, self.scratch, self.pitch = f, kernel, scratch, pitch
        self.window, self.run = kernel.window, kernel.run or 1
        self.v = Vectors(f, max(2, scratch.tile.lanes))

    def emit(self, plain: Callee, buffers: Mapping[str, Value]) -> None:
        """Emit the copies, and the call of the product of float32."""
        f, kernel = self.f, self.kernel
        copies = ["%scratch"]
        for elements in self.scratch.elements:
            size = f.round_down(f.add(f.mul(f.size(elements), 4), ALIGNMENT - 1), ALIGNMENT)
            copies.append(f.address(copies[-1], size, "i8"))
        self._copy_images(buffers[kernel.a], copies[0])
        self._copy_b(buffers[kernel.b], copies[1])
        places = dict(buffers) | dict(zip(COPIES, copies, strict=False))
        pointers = [places[name] for name in plain.buffers]
        f.call(plain.name, *pointers, copies[-1], "%n", "%tid", "%threads")

    def _copy_images(self, source: Value, target: Value) -> None:
        """Emit the copy of the images that this thread reads."""
        f, kernel, window = self.f, self.kernel, self.window
        first, end = "0", f.size(kernel.images)
        if kernel.partition == "rows" and not kernel.trans_a:
            low, high = f.thread_part(f.size(kernel.m), CHUNK)
            first, end = f.quotient(low, window.count), f.ceiling(high, window.count)
        start = f.mul(first, window.pixels)
        count = f.larger(f.mul(f.sub(end, first), window.pixels), 0)
        self._copy_runs(self._narrow(source, start), self._wide(target, start), count)

    def _copy_b(self, source: Value, target: Value) -> None:
        """Emit the copy of the other factor: of its runs of channels, or of rows."""
        f, kernel = self.f, self.kernel
        if kernel.trans_b:
            self._copy_runs(source, target, f.size(self.scratch.elements[1]))
            return
        columns, pitch = f.size(kernel.n), f.size(self.pitch[kernel.b])
        for number in f.each(0, f.size(kernel.k)):
            at = self._wide(target, f.mul(number, columns))
            self._copy(self._narrow(source, f.mul(self._partner(number), pitch)), at, columns, 1)

    def _partner(self, number: Value) -> Value:
        """Emit the number of the other row of a pair; an odd last one is its own."""
        f, run = self.f, self.run
        if run == 1:
            return number
        inside = f.remainder(number, run)
        other = f.value(f"xor i64 {inside}, 1")
        return f.add(f.sub(number, inside), f.select(f.less(other, run), "i64", other, inside))

    def _copy_runs(self, source: Value, target: Value, count: Value) -> None:
        """Emit the copy of runs, in each of which the elements of pairs change places."""
        f, run = self.f, self.run
        if run == 1 or run % 2 == 0:
            self._copy(source, target, count, run)
            return
        for start in f.each(0, count, run):
            self._copy(self._narrow(source, start), self._wide(target, start), str(run), run)

    def _copy(self, source: Value, target: Value, count: Value, run: int) -> None:
        """Emit the copy of neighbours; those of pairs change places, but for an odd last one."""
        v, lanes = self.v, self.v.lanes
        for i, mask in each_vector(v, count):
            x = v.cast(v.load(self._narrow(source, i), NARROW, mask), NARROW, WIDE)
            if run > 1:
                odd = run % lanes - 1 if mask is not None and run % 2 else -1
                order = [lane if lane == odd else lane ^ 1 for lane in range(lanes)]
                x = v.shuffle(x, x, order, WIDE)
            v.store(x, self._wide(target, i), WIDE, mask)

    def _narrow(self, base: Value, index: Value) -> Value:
        return self.f.address(base, index, element_type(NARROW))

    def _wide(self, base: Value, index: Value) -> Value:
        return self.f.address(base, index, element_type(WIDE))
