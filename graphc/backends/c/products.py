"""Matrix products in C99: tiles of sums in registers, and the body after each tile.

Factors that a tile cannot read in place are packed into the kernel's scratch: columns of b that are
rows in memory, or fewer than a tile has; and pixels of a window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod

from graphc.backends.c.body import BodyWriter, needed
from graphc.backends.c.scalars import TYPES, Code, dim_text, literal
from graphc.backends.c.tile import most_columns
from graphc.ir.expr import Body, Step
from graphc.ir.forms import Sizes, Window

from graphc.ir.tensor_type import ITEMSIZE, Dim, Shape, dim_at
from graphc.kernels.iteration_space import dense_strides
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm

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
        self, kernel: Gemm, names: Mapping[str, str], types: Mapping[str, str], pitch: Mapping[str, str]
    ) -> None:
        self.kernel, self.names, self.types, self.pitch = kernel, names, types, dict(pitch)
        self.kind = TYPES[kernel.dtype]
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
        for part, buffer, strides, row in _parts(kernel):
            names[part] = self._moved(buffer, index, strides)
            pitch[part] = dim_text(row)
        ProductWriter(_one(kernel), names, self.types, pitch).write(self.code)

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
                if not isinstance(kernel, Convolution):
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
        b, window = writer.names[kernel.b], kernel.window if isinstance(kernel, Convolution) else None
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


def _one(kernel: BatchedGemm) -> Gemm:
    """Return a single product of a stack, with the names of parts as its buffers."""
    body = kernel.body
    steps = [s._replace(buffer=s.broadcast + s.buffer) if s.op == "load" else s for s in body.steps]
    stores = [s._replace(buffer=f"stored {s.buffer}") for s in body.stores]
    one = Body(tuple(steps), tuple(stores))
    sides = "left", "right", kernel.trans_a, kernel.trans_b
    return Gemm(kernel.m, kernel.n, kernel.k, *sides, kernel.dtype, one, "none")


def _parts(kernel: BatchedGemm) -> Iterator[tuple[str, str, Shape, Dim]]:
    """Yield name, buffer, strides between matrices and between rows of what a product reads."""
    none: Shape = (0,) * len(kernel.sizes)
    by_kind = {
        "each": dense_strides((*kernel.sizes, kernel.m, kernel.n))[:-2],
        "row": dense_strides((*kernel.sizes, kernel.m))[:-1],
        "column": none,
        "one": none,
    }
    yield "left", kernel.a, kernel.strides_a[:-1], kernel.strides_a[-1]
    yield "right", kernel.b, kernel.strides_b[:-1], kernel.strides_b[-1]
    for s in kernel.body.steps:
        if s.op == "load":
            yield s.broadcast + s.buffer, s.buffer, by_kind[s.broadcast], kernel.n
    for store, (*between, row) in zip(kernel.body.stores, kernel.strides_out, strict=True):
        yield f"stored {store.buffer}", store.buffer, tuple(between), row


def _unraveled(whole: str, sizes: Sizes) -> list[str]:
    """Return the expressions of an index in each dimension."""
    found, below = [], prod(sizes)
    for number, size in enumerate(sizes):
        below //= size
        text = f"({whole}) / {below}" if below > 1 else f"({whole})"
        found.append(f"({text} % {size})" if number else f"({text})")
    return found
