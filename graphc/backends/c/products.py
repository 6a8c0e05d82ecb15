"""Matrix products in C99: tiles of sums in registers, and the body after each tile.

Factors that a tile cannot read in place are packed into the kernel's scratch: columns of b that are
rows in memory, or fewer than a tile has; and pixels of a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from graphc.backends.c.body import BodyWriter, needed
from graphc.backends.c.scalars import Code, dim_text, literal
from graphc.backends.c.tile import most_columns
from graphc.backends.interface import C_TYPES
from graphc.ir.expr import Step
from graphc.ir.forms import Sizes, Window
from graphc.ir.tensor_type import ITEMSIZE, Shape, dim_at
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm
from graphc.kernels.stack import parts_of, single_product

ROWS = 8
"""The rows of a tile."""
DEPTH = 256
"""The values of k for which the pixels of a tile are packed at a time."""


def scratch_bytes(kernel: Gemm, n: int) -> int:
    """Return the bytes that a product packs factors into, for a batch of `n` rows."""
    columns, size = most_columns(kernel.dtype), ITEMSIZE[kernel.dtype]
    panel = dim_at(kernel.k, n) * columns
    return size * (panel + (ROWS * DEPTH if isinstance(kernel, Convolution) else 0))


class ProductWriter:
    """The writer of a product kernel."""

    def __init__(
        self,
        kernel: Gemm,
        names: Mapping[str, str],
        types: Mapping[str, str],
        pitch: Mapping[str, str],
    ) -> None:
        self.kernel, self.names, self.types, self.pitch = kernel, names, types, dict(pitch)
        self.kind = C_TYPES[kernel.dtype]
        self.columns = f"GC_COLUMNS_{kernel.dtype}"
        self.code: Code

    def write(self, code: Code) -> None:
        """Write the kernel: the matrices of a stack one after the other."""
        self.code = code
        if isinstance(self.kernel, BatchedGemm):
            self._stacked(self.kernel, [f"s{axis}" for axis in range(len(self.kernel.sizes))], 0)
        else:
            self._matrix(self.pitch, self.names)

    def _stacked(self, kernel: BatchedGemm, index: list[str], axis: int) -> None:
        """Write the loops over a stack, and in them one of its products."""
        if axis < len(index):
            with self.code.loop(index[axis], dim_text(kernel.sizes[axis])):
                self._stacked(kernel, index, axis + 1)
            return
        names, pitch = dict(self.names), dict(self.pitch)
        for part in parts_of(kernel):
            names[part.name] = self._moved(part.buffer, index, part.strides)
            pitch[part.name] = dim_text(part.pitch)
        ProductWriter(single_product(kernel), names, self.types, pitch).write(self.code)

    def _moved(self, buffer: str, index: list[str], strides: Shape) -> str:
        """Return the name of a pointer to a matrix of the stack."""
        pairs = zip(index, strides, strict=True)
        terms = [f"{i} * {dim_text(stride)}" for i, stride in pairs if stride]
        if not terms:
            return self.names[buffer]
        moved = self.code.fresh("m")
        kind = f"{'' if buffer in self.kernel.body.written else 'const '}{self.types[buffer]}"
        self.code.do(f"{kind} *const {moved} = {self.names[buffer]} + {' + '.join(terms)};")
        return moved

    # ------------------------------------------------------------------ one product

    def _matrix(self, pitch: Mapping[str, str], names: Mapping[str, str]) -> None:
        """Write the loops over tiles of one product, group by group."""
        kernel, code = self.kernel, self.code
        groups = kernel.window.groups if isinstance(kernel, Convolution) else 1
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
        with code.loop("first", end, start, self.columns):
            rest = f"{end} - first"
            fits = f"{rest} < {self.columns} ? {rest} : {self.columns}"
            code.do(f"const ptrdiff_t width = {fits};")
            b, b_p = self._panel(writer)
            with code.loop("above", dim_text(kernel.m), step=ROWS):
                rest = f"{dim_text(kernel.m)} - above"
                code.do(f"const ptrdiff_t rows = {rest} < {ROWS} ? {rest} : {ROWS};")
                code.do(f"{self.kind} sums[{ROWS} * {self.columns}];")
                with code.loop("s", f"{ROWS} * {self.columns}"):
                    code.do(f"sums[s] = {literal(0, kernel.dtype)};")
                self._sums(writer, b, b_p)
                self._epilogue(writer, ones)

    def _sums(self, writer: BodyWriter, b: str, b_p: str) -> None:
        """Write the calls that add up the products of a tile."""
        kernel, code = self.kernel, self.code
        tile, k = code.functions.tile(kernel.dtype), dim_text(kernel.k)
        if isinstance(kernel, Convolution):
            with code.loop("depth", k, step=DEPTH):
                self._pixels(kernel.window, kernel.trans_a, writer.names[kernel.a])
                pixels = f"packed, {DEPTH}, 1"
                code.do(f"{tile}(rows, part_k, {pixels}, {b} + depth * {b_p}, {b_p}, sums);")
            return
        a, pitch = writer.names[kernel.a], writer.pitch[kernel.a]
        left = (
            f"{a} + above, 1, {pitch}" if kernel.trans_a else f"{a} + above * {pitch}, {pitch}, 1"
        )
        code.do(f"{tile}(rows, {k}, {left}, {b}, {b_p}, sums);")

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
        window = kernel.window if isinstance(kernel, Convolution) else None
        b, pitch = writer.names[kernel.b], writer.pitch[kernel.b]
        if window is not None:
            pitch = dim_text(kernel.n)
        code.do(f"{self.kind} *const panel = scratch;")
        if kernel.trans_b:
            transposed = f"{b}[(first + j) * {pitch} + p]"
            self._pack(transposed if window is None else self._tap(window, b))
            return "panel", self.columns
        with code.block(f"if (width < {self.columns})"):
            self._pack(f"{b}[p * {pitch} + first + j]")
        code.do(f"const {self.kind} *const right = width < {self.columns} ? panel : {b} + first;")
        code.do(f"const ptrdiff_t right_p = width < {self.columns} ? {self.columns} : {pitch};")
        return "right", "right_p"

    def _pack(self, element: str) -> None:
        """Write the copy of element (p, j) of each row and column into the panel, and zeros."""
        code, zero = self.code, literal(0, self.kernel.dtype)
        with code.loop("p", dim_text(self.kernel.k)), code.loop("j", self.columns):
            code.do(f"panel[p * {self.columns} + j] = j < width ? {element} : {zero};")

    def _tap(self, window: Window, filters: str) -> str:
        """Return the weight that a pixel's gradient meets: taps in reverse order."""
        n, groups, channels = dim_text(self.kernel.n), window.groups, window.channels
        part = f"({n} / {groups})" if groups > 1 else n
        column = "(first + j - group * part)" if groups > 1 else "(first + j)"
        extra = f" + group * {channels}" if groups > 1 else ""
        back = f"({prod(window.kernel) - 1} - p / {channels})"
        return f"{filters}[({back} * {part} + {column}) * {window.pixel} + p % {channels}{extra}]"

    def _pixels(self, window: Window, transposed: bool, images: str) -> None:
        """Write the packing of the pixels that the rows of a tile meet, 0 where there are none."""
        kernel, code = self.kernel, self.code
        k, group = dim_text(kernel.k), f" + group * {window.channels}" if window.groups > 1 else ""
        code.do(f"const ptrdiff_t part_k = {k} - depth < {DEPTH} ? {k} - depth : {DEPTH};")
        panel = f"{k} * {self.columns}"
        code.do(f"{self.kind} *const packed = ({self.kind} *)scratch + {panel};")
        with code.loop("r", "rows"), code.loop("q", "part_k"):
            place, offset = (
                ("depth + q", "above + r") if kernel.trans_a else ("above + r", "depth + q")
            )
            code.do(f"const ptrdiff_t place = {place}, offset = {offset};")
            conditions, index = [], f"place / {window.count}"
            where = _unraveled(f"place % {window.count}", window.places)
            tap = _unraveled(f"offset / {window.channels}", window.kernel)
            for axis, size in enumerate(window.space):
                text = (
                    f"{where[axis]} * {window.stride[axis]} + {tap[axis]} * {window.dilation[axis]}"
                )
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
