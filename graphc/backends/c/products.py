"""Matrix products in C99: tiles of sums in registers, and the body after each tile.

Factors that a tile cannot read in place are packed into the kernel's scratch: columns of b that are
rows in memory, or fewer than a tile has; and pixels of a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from graphc.backends.c.body import BodyWriter, needed
from graphc.backends.c.scalars import TYPES, Code, dim_text, literal
from graphc.backends.c.tile import most_columns
from graphc.ir.expr import Step
from graphc.ir.forms import Sizes, Window
from graphc.ir.tensor_type import ITEMSIZE, dim_at
from graphc.kernels.kernel import Gemm, stored

ROWS = 8
"""The rows of a tile."""
DEPTH = 256
"""The values of k for which the pixels of a tile are packed at a time."""


def scratch_bytes(kernel: Gemm, n: int) -> int:
    """Return the bytes that a product packs factors into, for a batch of `n` rows."""
    columns, size = most_columns(kernel.dtype), ITEMSIZE[kernel.dtype]
    panel = dim_at(kernel.k, n) * columns
    return size * (panel + (ROWS * DEPTH if kernel.window is not None else 0))


class ProductWriter:
    """The writer of a product kernel."""

    def __init__(self, kernel: Gemm, names: Mapping[str, str], pitch: Mapping[str, str]) -> None:
        self.kernel, self.names, self.pitch = kernel, names, dict(pitch)
        self.kind = TYPES[kernel.dtype]
        self.columns = f"GC_COLUMNS_{kernel.dtype}"
        self.code: Code

    def write(self, code: Code) -> None:
        """Write the kernel: the matrices of a stack one after the other."""
        self.code = code
        stack = self.kernel.stack
        if stack is None:
            self._matrix(self.pitch, self.names)
            return
        self._stacked([f"s{axis}" for axis in range(len(stack.sizes))], 0)

    def _stacked(self, index: list[str], axis: int) -> None:
        stack, kernel = self.kernel.stack, self.kernel
        assert stack is not None, "the kernel is of a stack"
        if axis < len(index):
            with self.code.loop(index[axis], dim_text(stack.sizes[axis])):
                self._stacked(index, axis + 1)
            return
        names, pitch = dict(self.names), dict(self.pitch)
        strides = {kernel.a: stack.a, kernel.b: stack.b}
        used = dict.fromkeys((*kernel.body.loads, *kernel.body.written))
        strides |= {buffer: stored(kernel, stack, buffer) for buffer in used if self._is_each(buffer)}
        for buffer, steps in strides.items():
            constant = "" if buffer in kernel.body.written else "const "
            names[buffer] = self._moved(self.names[buffer], index, steps, constant)
            pitch[buffer] = dim_text(steps[-1])
        self._matrix(pitch, names)

    def _is_each(self, buffer: str) -> bool:
        body = self.kernel.body
        read = any(s.buffer == buffer and s.broadcast == "each" for s in body.steps)
        return read or any(s.buffer == buffer and s.broadcast == "each" for s in body.stores)

    def _moved(self, name: str, index: list[str], strides: tuple, constant: str) -> str:
        """Return the name of a pointer to a matrix of the stack."""
        terms = [
            f"{i} * {dim_text(stride)}" for i, stride in zip(index, strides, strict=False) if stride
        ]
        if not terms:
            return name
        moved = self.code.fresh("m")
        self.code.do(f"{constant}{self.kind} *const {moved} = {name} + {' + '.join(terms)};")
        return moved

    # ------------------------------------------------------------------ one product

    def _matrix(self, pitch: Mapping[str, str], names: Mapping[str, str]) -> None:
        """Write the loops over tiles of one product, group by group."""
        kernel, code = self.kernel, self.code
        groups = 1 if kernel.window is None else kernel.window.groups
        sizes = dim_text(kernel.m), dim_text(kernel.n)
        writer = BodyWriter(kernel.body, names, pitch, sizes, self._leaf)
        ones: dict[int, str] = {}
        steps = enumerate(kernel.body.steps)
        writer.write(code, [n for n, s in steps if s.broadcast == "one"], ones)
        if groups == 1:
            self._tiles(writer, ones, "0", sizes[1])
            return
        with code.loop("group", str(groups)):
            code.do(f"const ptrdiff_t part = {sizes[1]} / {groups};")
            self._tiles(writer, ones, "group * part", "group * part + part")

    def _tiles(self, writer: BodyWriter, ones: dict[int, str], start: str, end: str) -> None:
        kernel, code = self.kernel, self.code
        tile = code.functions.tile(kernel.dtype)
        with code.loop("first", end, start, self.columns):
            code.do(f"const ptrdiff_t width = {end} - first < {self.columns} ? {end} - first : {self.columns};")
            b, b_p = self._panel(writer)
            with code.loop("above", dim_text(kernel.m), step=ROWS):
                rest = f"{dim_text(kernel.m)} - above"
                code.do(f"const ptrdiff_t rows = {rest} < {ROWS} ? {rest} : {ROWS};")
                code.do(f"{self.kind} sums[{ROWS} * {self.columns}];")
                with code.loop("s", f"{ROWS} * {self.columns}"):
                    code.do(f"sums[s] = {literal(0, kernel.dtype)};")
                if kernel.window is None:
                    a, pitch = writer.names[kernel.a], writer.pitch[kernel.a]
                    at, a_i, a_p = (
                        (f"{a} + above", "1", pitch)
                        if kernel.trans_a
                        else (f"{a} + above * {pitch}", pitch, "1")
                    )
                    code.do(f"{tile}(rows, {dim_text(kernel.k)}, {at}, {a_i}, {a_p}, {b}, {b_p}, sums);")
                else:
                    with code.loop("depth", dim_text(kernel.k), step=DEPTH):
                        self._pixels(kernel.window, writer.names[kernel.a])
                        code.do(
                            f"{tile}(rows, part_k, packed, {DEPTH}, 1, {b} + depth * {b_p}, {b_p}, sums);"
                        )
                self._epilogue(writer, ones)

    def _epilogue(self, writer: BodyWriter, ones: Mapping[int, str]) -> None:
        code, body = self.code, self.kernel.body
        with code.loop("i", "above + rows", "above"):
            known = dict(ones)
            stores = body.stores
            wanted = needed(body, [s.step for s in stores], known)
            writer.write(code, [n for n in wanted if body.steps[n].broadcast == "row"], known)
            with code.loop("j", "first + width", "first"):
                here = dict(known)
                writer.write(code, needed(body, [s.step for s in stores], here), here)
                condition = {"row": "j == 0", "column": "i == 0", "one": "i + j == 0"}
                for store in stores:
                    if store.broadcast == "each":
                        writer.store(code, [store], here)
                    else:
                        with code.block(f"if ({condition[store.broadcast]})"):
                            writer.store(code, [store], here)

    def _leaf(self, step: Step, known: Mapping[int, str]) -> str:
        if step.op == "philox":
            return self.code.functions.random_word(step, known)
        assert step.op == "product", f"a product has no {step.op}"
        return f"sums[(i - above) * {self.columns} + (j - first)]"

    # ------------------------------------------------------------------ packed factors

    def _panel(self, writer: BodyWriter) -> tuple[str, str]:
        """Write the packing of the columns of a tile, and return their address and row pitch."""
        kernel, code = self.kernel, self.code
        b, window = writer.names[kernel.b], kernel.window
        n, k, zero = dim_text(kernel.n), dim_text(kernel.k), literal(0, kernel.dtype)
        code.do(f"{self.kind} *const panel = scratch;")
        if kernel.trans_b and window is not None:
            offsets, channels, groups = prod(window.kernel), window.channels, window.groups
            part = f"({n} / {groups})" if groups > 1 else n
            column = "(first + j - group * part)" if groups > 1 else "(first + j)"
            extra = f" + group * {channels}" if groups > 1 else ""
            with code.loop("p", k), code.loop("j", self.columns):
                back = f"({offsets - 1} - p / {channels})"
                element = f"{b}[({back} * {part} + {column}) * {window.pixel} + p % {channels}{extra}]"
                code.do(f"panel[p * {self.columns} + j] = j < width ? {element} : {zero};")
            return "panel", self.columns
        pitch = n if window is not None else writer.pitch[kernel.b]
        if kernel.trans_b:
            with code.loop("j", self.columns), code.loop("p", k):
                element = f"{b}[(first + j) * {pitch} + p]"
                code.do(f"panel[p * {self.columns} + j] = j < width ? {element} : {zero};")
            return "panel", self.columns
        with code.block(f"if (width < {self.columns})"):
            with code.loop("p", k), code.loop("j", self.columns):
                element = f"{b}[p * {pitch} + first + j]"
                code.do(f"panel[p * {self.columns} + j] = j < width ? {element} : {zero};")
        code.do(f"const {self.kind} *const right = width < {self.columns} ? panel : {b} + first;")
        code.do(f"const ptrdiff_t right_p = width < {self.columns} ? {self.columns} : {pitch};")
        return "right", "right_p"

    def _pixels(self, window: Window, images: str) -> None:
        """Write the packing of the pixels that the rows of a tile meet, 0 where there are none."""
        kernel, code = self.kernel, self.code
        k, group = dim_text(kernel.k), f" + group * {window.channels}" if window.groups > 1 else ""
        code.do(f"const ptrdiff_t part_k = {k} - depth < {DEPTH} ? {k} - depth : {DEPTH};")
        panel = f"{k} * {self.columns}"
        code.do(f"{self.kind} *const packed = ({self.kind} *)scratch + {panel};")
        with code.loop("r", "rows"), code.loop("q", "part_k"):
            place, offset = ("depth + q", "above + r") if kernel.trans_a else ("above + r", "depth + q")
            code.do(f"const ptrdiff_t place = {place}, offset = {offset};")
            conditions, index = [], f"place / {window.count}"
            where = _unraveled(f"place % {window.count}", window.places)
            tap = _unraveled(f"offset / {window.channels}", window.kernel)
            for axis, size in enumerate(window.space):
                text = f"{where[axis]} * {window.stride[axis]} + {tap[axis]} * {window.dilation[axis]}"
                code.do(f"const ptrdiff_t at{axis} = {text} - {window.before[axis]};")
                pixel = f"at{axis}"
                if window.divisor[axis] > 1:
                    conditions.append(f"at{axis} % {window.divisor[axis]} == 0")
                    pixel = f"at{axis} / {window.divisor[axis]}"
                conditions += [f"at{axis} >= 0", f"{pixel} < {size}"]
                index = f"({index}) * {size} + {pixel}"
            element = f"{images}[({index}) * {window.pixel} + offset % {window.channels}{group}]"
            inside = " && ".join(conditions)
            code.do(f"packed[r * {DEPTH} + q] = {inside} ? {element} : {literal(0, kernel.dtype)};")


def _unraveled(whole: str, sizes: Sizes) -> list[str]:
    """Return the expressions of an index in each dimension."""
    found, below = [], prod(sizes)
    for number, size in enumerate(sizes):
        below //= size
        text = f"({whole}) / {below}" if below > 1 else f"({whole})"
        found.append(f"({text} % {size})" if number else f"({text})")
    return found
