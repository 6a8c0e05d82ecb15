"""Matrix products in C99: one accumulator an element, in the order of k, and the body after it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from graphc.backends.c.body import BodyWriter, needed
from graphc.backends.c.scalars import TYPES, Code, dim_text, literal
from graphc.ir.expr import Step
from graphc.ir.forms import Sizes, Window
from graphc.kernels.kernel import Gemm, stored

BLOCK = 16
"""The columns whose accumulators are kept together."""


class ProductWriter:
    """The writer of a product kernel."""

    def __init__(self, kernel: Gemm, names: Mapping[str, str], pitch: Mapping[str, str]) -> None:
        self.kernel, self.names, self.pitch = kernel, names, dict(pitch)
        self.sizes = dim_text(kernel.m), dim_text(kernel.n)
        self.suffix = "f" if kernel.dtype == "float32" else ""
        self.code: Code

    def write(self, code: Code) -> None:
        """Write the kernel: the matrices of a stack one after the other."""
        self.code = code
        stack = self.kernel.stack
        if stack is None:
            self._matrix({}, self.names)
            return
        index = [f"s{axis}" for axis in range(len(stack.sizes))]
        self._stacked(index, 0)

    def _stacked(self, index: list[str], axis: int) -> None:
        stack = self.kernel.stack
        assert stack is not None, "the kernel is of a stack"
        if axis < len(index):
            with self.code.loop(index[axis], dim_text(stack.sizes[axis])):
                self._stacked(index, axis + 1)
            return
        kernel, names = self.kernel, dict(self.names)
        pitch = dict(self.pitch)
        for buffer, strides in ((kernel.a, stack.a), (kernel.b, stack.b)):
            names[buffer] = self._moved(self.names[buffer], index, strides, "const ")
            pitch[buffer] = dim_text(strides[-1])
        for buffer in dict.fromkeys((*kernel.body.loads, *kernel.body.written)):
            if self._is_each(buffer):
                strides = stored(kernel, stack, buffer)
                constant = "" if buffer in kernel.body.written else "const "
                names[buffer] = self._moved(self.names[buffer], index, strides, constant)
                pitch[buffer] = dim_text(strides[-1])
        self._matrix(pitch, names)

    def _is_each(self, buffer: str) -> bool:
        body = self.kernel.body
        loads = any(s.buffer == buffer and s.broadcast == "each" for s in body.steps)
        return loads or any(s.buffer == buffer and s.broadcast == "each" for s in body.stores)

    def _moved(self, name: str, index: list[str], strides: tuple, constant: str) -> str:
        terms = [
            f"{i} * {dim_text(stride)}" for i, stride in zip(index, strides, strict=False) if stride
        ]
        if not terms:
            return name
        moved = self.code.fresh("m")
        kind = TYPES[self.kernel.dtype]
        self.code.do(f"{constant}{kind} *{moved} = {name} + {' + '.join(terms)};")
        return moved

    def _matrix(self, pitch: Mapping[str, str], names: Mapping[str, str]) -> None:
        """Write the loops over the rows and the blocks of columns of one product."""
        code, kernel, kind = self.code, self.kernel, TYPES[self.kernel.dtype]
        pitch = {**self.pitch, **pitch}
        rows, columns = self.sizes
        writer = BodyWriter(kernel.body, names, pitch, self.sizes, self._leaf)
        ones: dict[int, str] = {}
        steps = enumerate(kernel.body.steps)
        writer.write(code, [n for n, s in steps if s.broadcast == "one"], ones)
        with code.loop("i", rows), code.loop("first", columns, step=BLOCK):
            rest = f"{columns} - first"
            code.do(f"const ptrdiff_t end = {rest} < {BLOCK} ? {columns} : first + {BLOCK};")
            code.do(f"{kind} sums[{BLOCK}] = {{{literal(0, kernel.dtype)}}};")
            self._sums(names, pitch)
            with code.loop("j", "end", "first"):
                known = dict(ones)
                stores = kernel.body.stores
                writer.write(code, needed(kernel.body, [s.step for s in stores], known), known)
                for store in stores:
                    condition = {"row": "j == 0", "column": "i == 0", "one": "i + j == 0"}
                    if store.broadcast == "each":
                        writer.store(code, [store], known)
                    else:
                        with code.block(f"if ({condition[store.broadcast]})"):
                            writer.store(code, [store], known)

    def _leaf(self, step: Step, known: Mapping[int, str]) -> str:
        if step.op == "philox":
            seed, draws, *first = (known[arg] for arg in step.args)
            row = f"(uint32_t)({first[0]} + i)" if first else "(uint32_t)i"
            called = self.code.functions.philox()
            stream = f"UINT32_C({step.value})"
            return f"{called}((uint64_t){seed}, (uint32_t){draws}, {stream}, {row}, (uint32_t)j)"
        assert step.op == "product", f"a product has no {step.op}"
        return "sums[j - first]"

    # ------------------------------------------------------------------ the sums

    def _sums(self, names: Mapping[str, str], pitch: Mapping[str, str]) -> None:
        kernel = self.kernel
        if kernel.window is not None:
            self._window_sums(kernel.window, names)
            return
        a, b = names[kernel.a], names[kernel.b]
        left = f"{a}[p * {pitch[kernel.a]} + i]" if kernel.trans_a else f"{a}[i * {pitch[kernel.a]} + p]"
        right = f"{b}[j * {pitch[kernel.b]} + p]" if kernel.trans_b else f"{b}[p * {pitch[kernel.b]} + j]"
        with self.code.loop("p", dim_text(kernel.k)):
            self._add(left, right)

    def _add(self, left: str, right: str) -> None:
        code = self.code
        code.do(f"const {TYPES[self.kernel.dtype]} x = {left};")
        with code.loop("j", "end", "first"):
            code.do(f"sums[j - first] = fma{self.suffix}(x, {right}, sums[j - first]);")

    def _window_sums(self, window: Window, names: Mapping[str, str]) -> None:
        """Write the sums of a window's matrix: over offsets and channels, or over places."""
        kernel, code = self.kernel, self.code
        a, b = names[kernel.a], names[kernel.b]
        n, groups = dim_text(kernel.n), window.groups
        part = f"({n} / {groups})" if groups > 1 else n
        if kernel.trans_a:
            self._split("i", window, offset=True)
            code.do(f"const ptrdiff_t c = i % {window.channels};")
            with code.loop("p", dim_text(kernel.k)):
                self._split("p", window, offset=False)
                self._pixel(window)
                right = f"{b}[p * {n} + j]"
                with code.loop("j", "end", "first"):
                    group = f" + j / {part} * {window.channels}" if groups > 1 else ""
                    x = f"inside ? {a}[pixel * {window.pixel} + c{group}] : {literal(0, kernel.dtype)}"
                    code.do(f"const {TYPES[kernel.dtype]} x = {x};")
                    code.do(f"sums[j - first] = fma{self.suffix}(x, {right}, sums[j - first]);")
            return
        self._split("i", window, offset=False)
        with code.loop("o", str(prod(window.kernel))):
            self._split("o", window, offset=True, by_channels=False)
            self._pixel(window)
            if window.is_spread:  # zeros between pixels are not multiplied
                code.do("if (!inside) continue;")
            with code.loop("c", str(window.channels)):
                if kernel.trans_b:
                    back = f"({prod(window.kernel) - 1} - o)"
                    column = f"(j % {part})" if groups > 1 else "j"
                    right = f"{b}[({back} * {part} + {column}) * {window.pixel} + c"
                    right += f" + j / {part} * {window.channels}]" if groups > 1 else "]"
                else:
                    right = f"{b}[(o * {window.channels} + c) * {n} + j]"
                with code.loop("j", "end", "first"):
                    group = f" + j / {part} * {window.channels}" if groups > 1 else ""
                    x = f"inside ? {a}[pixel * {window.pixel} + c{group}] : {literal(0, kernel.dtype)}"
                    code.do(f"const {TYPES[kernel.dtype]} x = {x};")
                    code.do(f"sums[j - first] = fma{self.suffix}(x, {right}, sums[j - first]);")

    def _split(self, name: str, window: Window, offset: bool, by_channels: bool = True) -> None:
        """Write the index of a place, or of an offset, in each dimension of space."""
        code = self.code
        if offset:
            whole = f"{name} / {window.channels}" if by_channels else name
            stem, sizes = "k", window.kernel
        else:
            whole, stem, sizes = f"{name} % {window.count}", "q", window.places
            code.do(f"const ptrdiff_t image = {name} / {window.count};")
        for axis, text in enumerate(_unraveled(whole, sizes)):
            code.do(f"const ptrdiff_t {stem}{axis} = {text};")

    def _pixel(self, window: Window) -> None:
        """Write the pixel that a place and an offset meet, and whether there is one."""
        code, conditions, index = self.code, [], "image"
        for axis, size in enumerate(window.space):
            stride, dilation = window.stride[axis], window.dilation[axis]
            before, divisor = window.before[axis], window.divisor[axis]
            code.do(f"const ptrdiff_t at{axis} = q{axis} * {stride} + k{axis} * {dilation} - {before};")
            name = f"at{axis}"
            if divisor > 1:
                conditions.append(f"at{axis} % {divisor} == 0")
                code.do(f"const ptrdiff_t pixel{axis} = at{axis} / {divisor};")
                name = f"pixel{axis}"
            conditions += [f"{name} >= 0", f"{name} < {size}"]
            index = f"({index} * {size} + {name})"
        code.do(f"const bool inside = {' && '.join(conditions)};")
        code.do(f"const ptrdiff_t pixel = {index};")


def _unraveled(whole: str, sizes: Sizes) -> list[str]:
    """Return the expressions of an index in each dimension."""
    found, below = [], prod(sizes)
    for number, size in enumerate(sizes):
        below //= size
        text = f"({whole}) / {below}" if below > 1 else f"({whole})"
        found.append(f"{text} % {size}" if number else text)
    return found
