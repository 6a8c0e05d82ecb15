"""Kernels in C by themselves compute what the interpreter of kernels does, in Python."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from graphc.backends.c.loops import LoopWriter
from graphc.backends.c.products import ProductWriter
from graphc.backends.c.scalars import Code, Functions, dim_text
from graphc.backends.c.target import PROLOGUE
from graphc.backends.interface import C_TYPES
from graphc.ir.expr import Axis, BodyBuilder
from graphc.ir.op import Array
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Convolution, Gemm, Loop, ScatterAdd, buffers_of
from tests.backends.c.test_functions import library
from tests.backends.native.window_function import specs
from tests.ops.gathers import BY_OP, gather_loop, operands

pytestmark = pytest.mark.needs("cc")
ROWS = 3


class Case(NamedTuple):
    """A kernel, and the arrays of its buffers."""

    told: str
    kernel: Loop | Gemm
    arrays: Mapping[str, Array]


def text_of(functions: Functions, name: str, case: Case) -> str:
    """The function of a kernel."""
    kernel, code = case.kernel, Code(functions)
    used = buffers_of(kernel)
    types = {buffer: C_TYPES[case.arrays[buffer].dtype.name] for buffer in used}
    widths = dict.fromkeys(used, kernel.space[1])
    if isinstance(kernel, Gemm):
        widths |= kernel.factor_columns
    pitch = {buffer: dim_text(width) for buffer, width in widths.items()}
    names = {buffer: f"b_{buffer}" for buffer in used}
    if isinstance(kernel, Gemm):
        ProductWriter(code, kernel, names, types, pitch).write()
    else:
        LoopWriter(code, kernel, names, pitch).write()
    const = {buffer: "" if buffer in kernel.body.written else "const " for buffer in used}
    listed = [f"{const[buffer]}{types[buffer]} *{names[buffer]}" for buffer in used]
    head = f"void {name}({', '.join([*listed, 'ptrdiff_t n'])})"
    idle = [f"(void){word};" for word in (*names.values(), "n")]
    return "\n".join([f"{head};", head, "{", *idle, *code.lines, "}", ""])


def at_an_end(array: Array) -> Array:
    """A copy behind which no memory can be read: who does so is stopped by the system."""
    page = mmap.PAGESIZE
    size = -(-max(array.nbytes, 1) // page) * page
    memory = mmap.mmap(-1, size + page)
    whole = np.frombuffer(memory, np.uint8)
    address = ctypes.c_void_p(whole.ctypes.data + size)
    assert not ctypes.CDLL(None).mprotect(address, ctypes.c_size_t(page), 0)
    made = whole[size - array.nbytes : size].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def check(
    folder: Path,
    cases: list[Case],
    flags: Sequence[str] = ("-O0",),
    placed: Callable[[Array], Array] = np.copy,
) -> None:
    """Each writes what the interpreter of kernels does."""
    functions = Functions(fused=True)
    texts = [text_of(functions, f"run{i}", case) for i, case in enumerate(cases)]
    found = library(folder, "\n".join([PROLOGUE, *functions.texts.values(), *texts]), *flags)
    for number, case in enumerate(cases):
        made, wanted = ({k: by(a) for k, a in case.arrays.items()} for by in (placed, np.copy))
        pointers = [ctypes.c_void_p(made[b].ctypes.data) for b in buffers_of(case.kernel)]
        getattr(found, f"run{number}")(*pointers, ctypes.c_ssize_t(ROWS))
        run(case.kernel, wanted, ROWS)
        for name, array in wanted.items():
            tolerance = 1e-5 if array.dtype == np.float32 else 1e-12
            np.testing.assert_allclose(
                made[name], array, rtol=tolerance, atol=tolerance, err_msg=f"{case.told}: {name}"
            )


def convolutions() -> Iterator[Case]:
    """Convolutions and both gradients: in groups, and on images that begin elsewhere."""
    for (x, w), groups in ((((6, 7, 3), (3, 2, 3, 5)), 1), (((6, 7, 8), (3, 2, 4, 6)), 2)):
        for stride, dilation, before in (
            ((1, 1), (1, 1), (0, 0)),
            ((1, 1), (1, 1), (2, 1)),
            ((2, 1), (1, 2), (1, 3)),
            ((1, 3), (2, 1), (-1, 2)),
        ):
            for i, spec in enumerate(specs(x, w, stride, dilation, groups=groups)):
                kernel = spec.kernel()
                assert isinstance(kernel, Convolution)
                at = tuple(a + b for a, b in zip(kernel.window.before, before, strict=True))
                kernel = replace(kernel, window=replace(kernel.window, before=at))
                told = f"{('y', 'dx', 'dw')[i]} {groups} {stride} {dilation} {before}"
                yield Case(told, kernel, spec.operands(ROWS))


def products(m: int = 7, n: int = 9, k: int = 4) -> Iterator[Case]:
    """A product that stores what each element, row and column has, and what all have."""
    rng = np.random.default_rng(0)
    for a, b in ((False, False), (False, True), (True, False), (True, True)):
        body = BodyBuilder()
        column, row = body.load("column", "column", "float32"), body.load("row", "row", "float32")
        one = body.load("one", "one", "float32")
        body.store(body.product("float32") + column * row, "c", "each")
        body.store(column * 2.0, "of_column", "column")
        body.store(row * 3.0, "of_row", "row")
        body.store(one + 1.0, "of_all", "one")
        sizes = {"a": (k, m) if a else (m, k), "b": (n, k) if b else (k, n), "c": (m, n)}
        sizes |= {"column": (n,), "row": (m,), "one": (), "of_column": (n,)}
        sizes |= {"of_row": (m,), "of_all": ()}
        arrays = {x: np.array(rng.normal(size=v), np.float32) for x, v in sizes.items()}
        kernel = Gemm(m, n, k, "a", "b", a, b, "float32", body.body(), "none")
        yield Case(f"product {a} {b}", kernel, arrays)


def loops() -> Iterator[Case]:
    """Sums, maxima of the lowest numbers there are, and columns that are read and overwritten."""
    axes: tuple[Axis, ...] = ("columns", "rows")
    for axis in axes:
        for dtype in ("int32", "int64", "float32"):
            lowest = -np.inf if dtype == "float32" else np.iinfo(dtype).min
            b = BodyBuilder()
            x = b.load("x", "each", dtype)
            b.store(x.max(axis), "most", "row" if axis == "columns" else "column")
            b.store(x.sum(axis), "sum", "row" if axis == "columns" else "column")
            x = np.full((5, 5), lowest, dtype)
            x[1, 2], x[3, 3] = lowest, 3
            arrays = {"x": x, "most": np.zeros(5, dtype), "sum": np.zeros(5, dtype)}
            yield Case(f"{axis} {dtype}", Loop(5, 5, axis, b.body(), "none"), arrays)
    b = BodyBuilder()
    column = b.load("column", "column", "float32")
    b.store(b.load("x", "each", "float32") + column, "y", "each")
    b.store(column + 1.0, "column", "column")
    rng = np.random.default_rng(1)
    arrays = {k: np.array(rng.normal(size=(4, 20)), np.float32) for k in "xy"}
    arrays["column"] = np.array(rng.normal(size=20), np.float32)
    yield Case("in place", Loop(4, 20, "columns", b.body(), "none"), arrays)


def gathers() -> Iterator[Case]:
    """An example of each op that fetches elements, with indices beyond the ends."""
    for name, examples in BY_OP.items():
        for example in examples[-2:]:
            yield Case(f"{name} {example}", gather_loop(example), operands(example, ROWS))


def scatters() -> Iterator[Case]:
    """Rows that are added at indices, some of them beyond the ends."""
    b = BodyBuilder()
    b.store(b.scatter_add("float32"), "out", "each")
    kernel = ScatterAdd(
        4, 3, "rows", b.body(), "columns",
        source="rows", indices="at", index_dtype="int64", count=6,
    )  # fmt: skip
    rows = np.arange(18, dtype=np.float32).reshape(6, 3)
    at = np.array([0, 9, 2, -3, 4, 2])
    yield Case("scatter-add", kernel, {"rows": rows, "at": at, "out": np.ones((4, 3), np.float32)})


@pytest.mark.parametrize("draw", [convolutions, products, loops, gathers, scatters])
def test_kernels_are_what_the_interpreter_says(draw, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    check(tmp_path, [*draw()])


@pytest.mark.needs("POSIX")
def test_vectors_read_nothing_behind_an_operand(tmp_path: Path) -> None:
    """Of rows that are no whole vectors."""
    cases = [case for n, k in ((21, 70), (9, 3)) for case in products(3, n, k)]
    check(tmp_path, cases, ("-O0", "-march=native"), at_an_end)
