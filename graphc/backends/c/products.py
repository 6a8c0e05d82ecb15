"""Matrix products in C99: blocks of sums, and the body after each block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod

from graphc.backends.body import needed
from graphc.backends.c.body import BodyWriter
from graphc.backends.c.scalars import Code, dim_text, literal
from graphc.backends.c.tile import PLAIN_DEPTH
from graphc.backends.interface import C_TYPES
from graphc.ir.expr import Step
from graphc.ir.forms import Sizes, Window
from graphc.ir.tensor_type import ITEMSIZE, Shape
from graphc.kernels.kernel import BatchedGemm, Convolution, Gemm
from graphc.kernels.stack import parts_of, single_product


class ProductWriter:
    """The writer of a product kernel."""

    def __init__(
        self,
        code: Code,
        kernel: Gemm,
        names: Mapping[str, str],
        types: Mapping[str, str],
        pitch: Mapping[str, str],
    ) -> None:
        self.code, self.kernel = code, kernel
        self.names, self.types, self.pitch = names, types, pitch
        self.kind, self.factor = C_TYPES[kernel.dtype], C_TYPES[kernel.factor_dtype]
        self.columns = f"GC_COLUMNS_{kernel.dtype}"
        self.product = kernel.order or kernel.dtype
        """The name of the function of products."""

    def write(self) -> None:
        """Write the kernel: the matrices of a stack one after the other."""
        if isinstance(self.kernel, BatchedGemm):
            self._stacked(self.kernel, [f"s{axis}" for axis in range(len(self.kernel.sizes))], 0)
        else:
            self._matrix()

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
        ProductWriter(self.code, single_product(kernel), names, self.types, pitch).write()

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

    def _matrix(self) -> None:
        """Write the loops over blocks of one product, group by group."""
        kernel, code = self.kernel, self.code
        groups = kernel.window.groups if isinstance(kernel, Convolution) else 1
        sizes = dim_text(kernel.m), dim_text(kernel.n)
        writer = BodyWriter(code, kernel.body, self.names, self.pitch, sizes, self._leaf)
        ones: dict[int, str] = {}
        steps = enumerate(kernel.body.steps)
        writer.write([n for n, s in steps if s.broadcast == "one"], ones)
        if groups == 1:
            self._blocks(writer, ones, "0", sizes[1])
            return
        with code.loop("group", str(groups)):
            code.do(f"const ptrdiff_t part = {sizes[1]} / {groups};")
            self._blocks(writer, ones, "group * part", "group * part + part")

    def _blocks(self, writer: BodyWriter, ones: dict[int, str], start: str, end: str) -> None:
        kernel, code, columns = self.kernel, self.code, self.columns
        code.functions.product(self.product)
        m = dim_text(kernel.m)
        with code.loop("top", m, step="GC_ROWS"), code.loop("first", end, start, columns):
            code.do(f"const ptrdiff_t rows = {m} - top < GC_ROWS ? {m} - top : GC_ROWS;")
            rest = f"{end} - first"
            code.do(f"const ptrdiff_t width = {rest} < {columns} ? {rest} : {columns};")
            code.do(f"{self.kind} sums[GC_ROWS * {columns}];")
            code.arrays += ITEMSIZE[kernel.dtype]
            with code.loop("s", f"rows * {columns}"):
                code.do(f"sums[s] = {literal(0, kernel.dtype)};")
            if isinstance(kernel, Convolution):
                self._window_sums(kernel, writer)
            else:
                self._sums(writer)
            self._epilogue(writer, ones)

    def _sums(self, writer: BodyWriter) -> None:
        """Write the call that adds up the products of a block."""
        kernel = self.kernel
        a, pitch = writer.names[kernel.a], writer.pitch[kernel.a]
        b, b_pitch = writer.names[kernel.b], writer.pitch[kernel.b]
        left = f"{a} + top, 1, {pitch}" if kernel.trans_a else f"{a} + top * {pitch}, {pitch}, 1"
        right = f"{b} + first, {b_pitch}, 1"
        if kernel.trans_b:
            right = f"{b} + first * {b_pitch}, 1, {b_pitch}"
        self._call(dim_text(kernel.k), left, right)

    def _call(self, k: str, left: str, right: str) -> None:
        """Write a call of the product of matrices, each a pointer and its strides."""
        pairs = f", {int(self.kernel.run != 1)}" if self.product == "pairs" else ""
        name = f"gc_product_{self.product}"
        self.code.do(f"{name}(rows, width, {k}, {left}, {right}, sums{pairs});")

    def _epilogue(self, writer: BodyWriter, ones: Mapping[int, str]) -> None:
        code, body = self.code, self.kernel.body
        with code.loop("i", "top + rows", "top"):
            known = dict(ones)
            stores = body.stores
            wanted = needed(body, (s.step for s in stores))
            writer.write([n for n in wanted if body.steps[n].broadcast == "row"], known)
            with code.loop("j", "first + width", "first"):
                here = dict(known)
                writer.write(wanted, here)
                condition = {"row": "j == 0", "column": "i == 0", "one": "i + j == 0"}
                for store in stores:
                    if store.broadcast == "each":
                        writer.store([store], here)
                    else:
                        with code.block(f"if ({condition[store.broadcast]})"):
                            writer.store([store], here)

    def _leaf(self, step: Step, known: Mapping[int, str]) -> str:
        assert step.op == "product", f"a product has no {step.op}"
        return f"sums[(i - top) * {self.columns} + (j - first)]"

    # ------------------------------------------------------------------ windows of images

    def _window_sums(self, kernel: Convolution, writer: BodyWriter) -> None:
        """Write the calls that add up the products of a block with pixels, packed part by part."""
        code, k = self.code, dim_text(kernel.k)
        with self._parts(k):
            code.do(f"{self.factor} pixels[GC_ROWS * GC_DEPTH];")
            code.arrays += 2 * PLAIN_DEPTH * ITEMSIZE[kernel.factor_dtype]  # and those of taps
            n, b = dim_text(kernel.n), writer.names[kernel.b]
            right, pitch = f"{b} + start * {n} + first", n
            if kernel.trans_b:
                code.do(f"{self.factor} taps[GC_DEPTH * {self.columns}];")
                with code.loop("q", "depth"), code.loop("j", "width"):
                    code.do(f"taps[q * {self.columns} + j] = {self._tap(kernel.window, b)};")
                right, pitch = "taps", self.columns
            exact = kernel.dtype == "int32" or kernel.ordered  # zeros change no sum
            skips = not kernel.window.is_direct and not exact
            if skips:
                code.do("gc_rows missing[GC_DEPTH] = {0};")
                code.arrays += 4 * PLAIN_DEPTH
            self._pixels(kernel, writer.names[kernel.a], skips)
            if not skips:
                self._call("depth", "pixels, GC_DEPTH, 1", f"{right}, {pitch}, 1")
                return
            code.do("ptrdiff_t run = 0; /* the first column that the same rows miss */")
            with code.loop("q", "depth + 1", "1"):
                code.do("if (q < depth && missing[q] == missing[run]) continue;")
                name = code.functions.present(kernel.dtype)
                factors = f"pixels + run, {right} + run * {pitch}, {pitch}"
                code.do(f"{name}(rows, width, q - run, missing[run], {factors}, sums);")
                code.do("run = q;")

    @contextmanager
    def _parts(self, k: str) -> Iterator[None]:
        """Write a loop over parts of k that panels hold; pairs and blocks are within a run."""
        kernel, code = self.kernel, self.code
        left = f"{k} - start"
        if kernel.ordered and (kernel.run != 1 or kernel.order == "blocks"):
            left = f"{kernel.run} - start % {kernel.run}"
        with code.block(f"for (ptrdiff_t start = 0, depth; start < {k}; start += depth)"):
            code.do(f"depth = {left} < GC_DEPTH ? {left} : GC_DEPTH;")
            yield

    def _tap(self, window: Window, filters: str) -> str:
        """Return the weight that a pixel's gradient meets: taps in reverse order."""
        n, groups, channels = dim_text(self.kernel.n), window.groups, window.channels
        part = f"({n} / {groups})" if groups > 1 else n
        column = "(first + j - group * part)" if groups > 1 else "(first + j)"
        extra = f" + group * {channels}" if groups > 1 else ""
        back = f"({prod(window.kernel) - 1} - (start + q) / {channels})"
        place = f"({back} * {part} + {column}) * {window.pixel}"
        return f"{filters}[{place} + (start + q) % {channels}{extra}]"

    def _pixels(self, kernel: Convolution, images: str, skips: bool) -> None:
        """Write the packing of the pixels that the rows of a block meet, 0 where there are none.

        A pixel is copied with its channels.  If it `skips`, it notes the rows without pixels.
        """
        code, window = self.code, kernel.window
        (i, places, top), (j, end, start) = ("r", "rows", "top"), ("q", "depth", "start")
        if kernel.trans_a:
            (i, places, top), (j, end, start) = (j, end, start), (i, places, top)
        by_pixel = code.block(f"for (ptrdiff_t {j} = 0, stop; {j} < {end}; {j} = stop)")
        with code.loop(i, places), by_pixel:
            code.do(f"const ptrdiff_t place = {top} + {i}, offset = {start} + {j};")
            code.do(f"const ptrdiff_t channel = offset % {window.channels};")
            left = f"{window.channels} - channel"
            code.do(f"stop = {left} < {end} - {j} ? {j} + {left} : {end};")
            index, inside = self._position(window)
            group = f" + group * {window.channels}" if window.groups > 1 else ""
            code.do(f"const ptrdiff_t from = ({index}) * {window.pixel} + channel{group};")
            if inside:
                code.do(f"const bool inside = {inside};")
            row, column = ("p", "q") if kernel.trans_a else ("r", "p")
            with code.loop("p", "stop", j):
                element = f"{images}[from + p - {j}]"
                if inside:
                    element = f"inside ? {element} : {literal(0, kernel.factor_dtype)}"
                code.do(f"pixels[{row} * GC_DEPTH + {column}] = {element};")
                if skips:
                    code.do(f"missing[{column}] |= (gc_rows)!inside << {row};")

    def _position(self, window: Window) -> tuple[str, str]:
        """Write the position of a place and an offset; return its pixel, and if it is one."""
        conditions, index = [], f"place / {window.count}"
        where = _unraveled(f"place % {window.count}", window.places)
        tap = _unraveled(f"offset / {window.channels}", window.kernel)
        for axis, size in enumerate(window.space):
            text = f"{where[axis]} * {window.stride[axis]} + {tap[axis]} * {window.dilation[axis]}"
            self.code.do(f"const ptrdiff_t at{axis} = {text} - {window.before[axis]};")
            pixel = f"at{axis}"
            if window.divisor[axis] > 1:
                conditions.append(f"at{axis} % {window.divisor[axis]} == 0")
                pixel = f"at{axis} / {window.divisor[axis]}"
            conditions += [f"at{axis} >= 0", f"{pixel} < {size}"]
            index = f"({index}) * {size} + {pixel}"
        return index, "" if window.is_direct else " && ".join(conditions)


def _unraveled(whole: str, sizes: Sizes) -> list[str]:
    """Return the expressions of an index in each dimension."""
    found, below = [], prod(sizes)
    for number, size in enumerate(sizes):
        below //= size
        text = f"({whole}) / {below}" if below > 1 else f"({whole})"
        found.append(f"({text} % {size})" if number else f"({text})")
    return found
