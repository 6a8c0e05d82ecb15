"""Kernels share a function only if each of them, alone in its module, has that very function.

A function of a module is found by a key.  What the text depends on and the key leaves out would
make a kernel call the function of another one, which only that pair of kernels shows: so families
of kernels that differ in one thing are written into one module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product as combinations
from typing import Any

import pytest

from graphc.backends.native.gemm import emit_gemm
from graphc.backends.native.ir import Module
from graphc.backends.native.loops import emit_loop
from graphc.backends.native.module_parts import named_by_text
from graphc.backends.native.pack_panels import emit_packing
from graphc.backends.native.target import DOTS, PAIRS, TILES, VNNI, WIDENED, Words
from graphc.backends.native.transpose_scatter import emit_scatter_add
from graphc.ir.expr import BodyBuilder
from graphc.ir.tensor_type import Dim, N
from graphc.kernels.kernel import LANES, Convolution, Gemm, Loop, ScatterAdd
from tests.backends.native.gemm_function import store_product
from tests.backends.native.window_function import specs

Emit = Callable[[Module], object]
WORDS: dict[str, Words] = {"pairs": WIDENED, "blocks": WIDENED, "int8": PAIRS}
FASTER: dict[str, Words] = {"pairs": DOTS, "blocks": TILES, "int8": VNNI}


def gemm(
    kernel: Gemm,
    bits: int = 512,
    words: dict[str, Words] = WORDS,
    apart: dict[str, int] | None = None,
    **how: Any,
) -> Emit:
    """The product, of matrices whose rows lie side by side, or so far `apart`."""
    pitch = {"c": kernel.n, **kernel.factor_columns, **(apart or {})}
    return partial(emit_gemm, kernel=kernel, pitch=pitch, bits=bits, words=words, **how)


def of(m: Dim, n: int, k: Dim, a: bool = False, b: bool = False, kind: str = "float32") -> Gemm:
    """A product of floats, of int8, or of bfloat16 in the order of `kind`."""
    dtype = {"int8": "int32", "pairs": "float32", "blocks": "float32"}.get(kind, kind)
    builder = BodyBuilder()
    store_product(builder, builder.product(dtype))
    fields = m, n, k, "a", "b", a, b, dtype, builder.body(), "rows"
    return Gemm(*fields, order=kind if kind in ("pairs", "blocks") else None)  # type: ignore[arg-type]


def matrices() -> Iterator[Emit]:
    for kind in ("float32", "float64", "pairs", "blocks"):
        for a, b in combinations((False, True), repeat=2):
            yield gemm(of(N, 37, 37, a, b, kind))
        for n, k in ((37, 38), (38, 37), (70, 37), (64, 300)):
            yield gemm(of(N, n, k, kind=kind))
            yield gemm(of(N, n, k, False, True, kind))
        yield gemm(of(5, 37, 37, kind=kind))
        yield gemm(of(N, 37, 37, kind=kind), 256, FASTER if kind == "pairs" else WORDS)
        for buffer, b in combinations("abc", (False, True)):
            yield gemm(of(N, 37, 37, False, b, kind), apart={buffer: 80})
        for b, bits in combinations((False, True), (512, 256)):
            yield gemm(of(N, 300, 300, False, b, kind), bits)
        if kind != "float64":
            yield gemm(of(N, 64, 64, kind=kind), packed=True)
            yield gemm(of(N, 62, 64, kind=kind), packed=True)
            yield gemm(of(N, 64, 64, False, True, kind), packed=True)
    for m, n, k in ((30, 20, N), (30, 21, N), (31, 20, N), (30, 300, N)):
        yield gemm(of(m, n, k, True), rows=4096)
        yield gemm(of(m, n, k, True), 256, rows=4096)
    for n, k in ((33, 36), (33, 37), (34, 36), (16, 36)):
        yield gemm(of(N, n, k, kind="int8"))
        yield gemm(of(N, n, k, kind="int8"), 512, FASTER)
        yield gemm(replace(of(N, n, k, kind="int8"), partition="columns"))
    yield gemm(of(N, 64, 64, kind="blocks"), 512, FASTER)


def packings() -> Iterator[Emit]:
    """Square factors as they are and transposed, and others."""
    for kind in ("float32", "pairs", "blocks"):
        for n, k in ((48, 48), (48, 50), (50, 48)):
            for a, b in combinations((False, True), repeat=2):
                yield partial(emit_packing, kernel=of(40, n, k, a, b, kind), bits=512, words=WORDS)


SHAPE = ((6, 7, 4), (2, 3, 4, 20), (1, 1), (1, 1))
"""An image, filters, a stride and a dilation."""
OTHERS = (
    ((7, 6, 4), *SHAPE[1:]),
    (SHAPE[0], (3, 2, 4, 20), *SHAPE[2:]),
    (SHAPE[0], (2, 3, 4, 21), *SHAPE[2:]),
    ((6, 7, 5), (2, 3, 5, 20), *SHAPE[2:]),
    (*SHAPE[:2], (2, 1), (1, 1)),
    (*SHAPE[:2], (1, 2), (1, 1)),
    (*SHAPE[:2], (1, 1), (2, 1)),
    (*SHAPE[:2], (1, 1), (1, 2)),
)
"""Those that differ from it in one thing."""
BEFORE = ((0, 0), (1, 0), (0, 1), (1, 1), (-1, 0), (2, 1))


def convolutions(kind: str) -> Iterator[Emit]:
    """Convolutions, and their gradients if they have some; some see an image that is moved."""
    for shape in (SHAPE, *OTHERS):
        yield from map(gemm, kernels(kind, shape))
    for before in BEFORE[1:]:
        for kernel in kernels(kind, SHAPE):
            assert isinstance(kernel, Convolution)
            yield gemm(replace(kernel, window=replace(kernel.window, before=before)))
    if kind != "int8":
        wide, narrow = ((6, 7, 8), (2, 3, 4, 40)), ((6, 7, 8), (2, 3, 1, 16))
        for (x, w), groups in ((wide, 2), (narrow, 8)):
            yield from map(gemm, kernels(kind, (x, w, (1, 1), (1, 1)), groups))


def kernels(kind: str, shape: Sequence[Any], groups: int = 1) -> Iterator[Gemm]:
    for spec in specs(*shape, groups=groups)[: 1 if kind == "int8" else 3]:
        kernel = spec.kernel()
        if kind in ("pairs", "blocks"):
            kernel = replace(kernel, order=kind)  # type: ignore[arg-type]
        elif kind == "int8":
            plain = of(N, 1, 1, kind="int8")
            kernel = replace(kernel, dtype="int32", body=plain.body)
        yield kernel


def loops() -> Iterator[Emit]:
    """Sums and maxima of rows or columns, between rows that lie differently far apart."""
    for axis, columns, op, dtype in combinations(
        ("rows", "columns"), (5, 33), ("sum", "max"), ("float32", "float64")
    ):
        b = BodyBuilder()
        x = b.load("x", "each", dtype)
        reduced = x.sum(axis) if op == "sum" else x.max(axis)  # type: ignore[arg-type]
        b.store(x - reduced, "y", "each")
        kernel = Loop(N, columns, axis, b.body(), "none")  # type: ignore[arg-type]
        for pitch in ({}, {"x": 40}, {"y": 40}):
            yield partial(emit_loop, kernel=kernel, pitch=pitch)


def scatters() -> Iterator[Emit]:
    """Rows that are added to a table of 9, by indices of two types."""
    for columns, dtype, index, count in combinations(
        (5, 33), ("float32", "float64"), ("int32", "int64"), (N, 7)
    ):
        b = BodyBuilder()
        b.store(b.product(dtype), "y", "each")
        for partition in ("columns", "none"):
            of_rows = {"source": "x", "indices": "i", "index_dtype": index, "count": count}
            kernel = ScatterAdd(9, columns, None, b.body(), partition, **of_rows)  # type: ignore[arg-type]
            yield partial(emit_scatter_add, kernel=kernel)


NARROW = "loops without vectors"
FAMILIES: dict[str, Callable[[], Iterator[Emit]]] = {
    "matrices": matrices,
    "packings": packings,
    "loops": loops,
    "scatters": scatters,
    NARROW: loops,
    **{
        f"convolutions, {kind}": partial(convolutions, kind)
        for kind in ("float32", "pairs", "blocks", "int8")
    },
}


def functions(module: Module) -> set[str]:
    """The functions of a module, named after their texts: a call says which text it calls."""
    return set(named_by_text(module.functions))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_function_is_shared_only_by_kernels_that_have_it(family: str) -> None:
    lanes = 1 if family == NARROW else LANES
    together, alone = Module(lanes), list[tuple[Emit, set[str]]]()
    for emit in FAMILIES[family]():
        module = Module(lanes)
        emit(module)
        emit(together)
        alone.append((emit, functions(module)))
    shared = functions(together)
    assert not [emit for emit, own in alone if not own <= shared]
    assert len(shared) > len(alone) // 2
