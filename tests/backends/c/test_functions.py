"""The scalar functions of C files have the bits of native code, with instructions or without."""

from __future__ import annotations

import ctypes
import math
import operator
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.backends.arithmetic import Value
from graphc.backends.c.scalars import Code, Functions, Scalars
from graphc.backends.c.target import PROLOGUE
from graphc.backends.interface import C_TYPES
from graphc.backends.maths import apply
from graphc.backends.native.vectors import Vectors
from graphc.backends.softfloat import ARITY
from graphc.kernels.philox import keep_words
from tests.backends.c.trained import WHOLE
from tests.backends.native.compiled_function import map_of
from tests.backends.test_softfloat import drawn, special
from tests.extras import needs
from tests.files.c_model import STRICT

UNARY = ("exp", "log", "tanh", "sigmoid", "erf", "cos", "sqrt", "floor", "ceil", "round", "abs")
BINARY = ("pow", "floor_div", "maximum", "minimum", "less")
OPERATIONS = [*((name, 1) for name in UNARY), *((name, 2) for name in BINARY)]
FLOATS = pytest.mark.parametrize("dtype", ["float32", "float64"])


def library(folder: Path, text: str, *flags: str, cc: str = "cc") -> ctypes.CDLL:
    (folder / "functions.c").write_text(text)
    command = [needs(cc), *STRICT, *flags, "-fPIC", "-shared", "functions.c", "-o"]
    done = subprocess.run(
        [*command, "functions.so"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:3000]
    return ctypes.CDLL(str(folder / "functions.so"))


def map_text(functions: Functions, name: str, arity: int, dtype: str, result: str) -> str:
    """A C function that applies a scalar function to every element."""
    code = Code(functions)
    with code.loop("i", "n"):
        args = [code.value(f"x{k}[i]", dtype) for k in range(arity)]
        if name in ARITY:
            found: Value = Scalars(code).intrinsic(name, args, dtype)
        else:
            found = Scalars(code).applied(name, args, [dtype] * arity, result)
        code.do(f"y[i] = {found};")
    listed = ", ".join(f"const {C_TYPES[dtype]} *x{k}" for k in range(arity))
    head = f"void map_{name}(ptrdiff_t n, {listed}, {C_TYPES[result]} *y)"
    return "\n".join([f"{head};", head, "{", *code.lines, "}", ""])


def call(run: Callable[..., None], result: str, *args: Any) -> Any:
    found = np.empty(len(args[0]), result)
    pointers = (ctypes.c_void_p(x.ctypes.data) for x in (*args, found))
    run(ctypes.c_ssize_t(len(args[0])), *pointers)
    return found


def native(name: str, arity: int, dtype: str, result: str, fused: bool) -> Callable[..., Any]:
    def emit(v: Vectors, x: list[Value]) -> Sequence[Value]:
        if name in ARITY:
            return [v.intrinsic(name, x, dtype)]
        return [apply(v, name, x, [dtype] * arity, result)]

    return map_of(emit, [dtype] * arity, [result], 4, fused=fused)


def same(one: Any, other: Any) -> bool:
    """Whether all bits are equal; a NaN equals every NaN."""
    one, other = one.copy(), other.copy()
    if one.dtype.kind == "f":
        one[np.isnan(one)] = other[np.isnan(other)] = np.nan
    return bool(one.tobytes() == other.tobytes())


def check(
    folder: Path, operations: Sequence[tuple[str, int]], dtype: str, fused: bool, *flags: str
) -> None:
    rng = np.random.default_rng(3)
    columns = [
        np.concatenate([np.repeat(special(dtype), 31), drawn(rng, dtype, 2000)]),
        np.concatenate([np.tile(special(dtype), 31), drawn(rng, dtype, 2000)]),
        rng.permutation(np.concatenate([np.tile(special(dtype), 31), drawn(rng, dtype, 2000)])),
    ]
    functions = Functions(fused)
    results = {name: "bool" if name == "less" else dtype for name, _ in operations}
    maps = [map_text(functions, name, k, dtype, results[name]) for name, k in operations]
    found = library(folder, "\n\n".join([PROLOGUE, *functions.texts.values(), *maps]), *flags)
    for name, arity in operations:
        args = columns[:arity]
        expected = native(name, arity, dtype, results[name], fused)(*args)[0]
        got = call(getattr(found, f"map_{name}"), results[name], *args)
        assert same(got, expected), f"{name} {dtype} {flags}"


def test_some_functions(tmp_path: Path) -> None:
    check(tmp_path, [("exp", 1), ("pow", 2), ("sqrt", 1)], "float32", True, "-O1")


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("flags", ["-O2 -march=native", "-O3", f"-O2 {WHOLE}"])
@FLOATS
def test_all_functions(dtype: str, flags: str, fused: bool, tmp_path: Path) -> None:
    check(tmp_path, OPERATIONS, dtype, fused, *flags.split())


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["-O2 -march=native", "-O2", f"-O2 {WHOLE}", f"-O0 {WHOLE}"])
@FLOATS
def test_operations_that_targets_may_lack(dtype: str, flags: str, tmp_path: Path) -> None:
    check(tmp_path, list(ARITY.items()), dtype, True, *flags.split())


@pytest.mark.parametrize(
    ("flag", "words"),
    [("-ffast-math", b"without -ffast-math"), ("-Ofast", b"without -ffast-math")],
)
def test_arithmetic_that_is_not_exact_is_refused(flag: str, words: bytes, tmp_path: Path) -> None:
    (tmp_path / "functions.c").write_text(PROLOGUE)
    command = [needs("cc"), flag, "-fsyntax-only", "functions.c"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode
    assert words in done.stderr


@pytest.mark.slow
def test_the_file_needs_no_library(tmp_path: Path) -> None:
    functions = Functions(fused=True)
    dtypes = ("float32", "float64")
    maps = [
        map_text(functions, name, k, dtype, dtype).replace("map_", f"map_{dtype}_")
        for dtype in dtypes
        for name, k in [*OPERATIONS[:-1], *ARITY.items()]
        if not (name in ARITY and name in UNARY)
    ]
    text = "\n\n".join([PROLOGUE, *functions.texts.values(), *maps])
    for flags in ("-O2 -march=native", "-O2", "-O3 -ffreestanding", f"-O2 {WHOLE}"):
        library(tmp_path, text, *flags.split(), "-nostdlib", "-Wl,--no-undefined")


WHOLE_DTYPES = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


def test_floats_become_the_nearest_whole_number_there_is(tmp_path: Path) -> None:
    """At, below and above each bound; NaN becomes 0."""
    functions, texts = Functions(fused=True), []
    casts = [(source, to) for source in ("float32", "float64") for to in WHOLE_DTYPES]
    for source, to in casts:
        code = Code(functions)
        with code.loop("i", "n"):
            code.do(f"y[i] = {Scalars(code).cast(code.value('x[i]', source), source, to)};")
        head = f"void {to}_of_{source}(ptrdiff_t n, const {C_TYPES[source]} *x, {C_TYPES[to]} *y)"
        texts.append("\n".join([f"{head};", head, "{", *code.lines, "}", ""]))
    made = library(tmp_path, "\n".join([PROLOGUE, *functions.texts.values(), *texts]), "-O1")
    for source, to in casts:
        bounds, real = np.iinfo(to), np.dtype(source).type
        edges = [real(end) for end in (bounds.min, bounds.max, bounds.max + 1, 0, 1, -1, 2**70)]
        near = [np.nextafter(x, real(to)) for x in edges for to in (-np.inf, np.inf)]
        x = np.array([*edges, *near, -0.5, 0.5, 1.999, -1.999, np.inf, -np.inf, np.nan], source)
        wanted = [
            0 if np.isnan(one) else bounds.max if one == np.inf
            else bounds.min if one == -np.inf else min(max(int(one), bounds.min), bounds.max)
            for one in x
        ]  # fmt: skip
        assert call(getattr(made, f"{to}_of_{source}"), to, x).tolist() == wanted, (source, to)


COMPARED = {
    "less": operator.lt, "less_equal": operator.le, "greater": operator.gt,
    "greater_equal": operator.ge, "equal": operator.eq, "not_equal": operator.ne,
}  # fmt: skip


@pytest.mark.parametrize("name", COMPARED)
def test_a_whole_number_is_compared_with_itself(name: str) -> None:
    """Compilers warn of that, so the result is written; floats may be NaN."""
    for dtype in (*WHOLE_DTYPES, "bool"):
        found = Scalars(Code(Functions(fused=True))).compare(name, "x", "x", dtype)
        assert found == ("true" if COMPARED[name](1, 1) else "false")
    for dtype in ("float32", "float64"):
        assert Scalars(Code(Functions(fused=True))).compare(name, "x", "x", dtype).startswith("v")


def test_rounding_to_bfloat16(tmp_path: Path) -> None:
    """Ties go to even, and below 2**-56 to 0: by the definition, in exact fractions."""
    functions, code = Functions(fused=True), Code(Functions(fused=True))
    name = functions.to_bfloat16()
    with code.loop("i", "n"):
        code.do(f"y[i] = {name}(x[i]);")
    head = "void map(ptrdiff_t n, const float *x, uint16_t *y)"
    text = [PROLOGUE, *functions.texts.values(), f"{head};", head, "{", *code.lines, "}", ""]
    rng = np.random.default_rng(0)
    words = np.concatenate([rng.integers(0, 2**16, 400) << 16, 2**16 * np.arange(0x3F70, 0x3F90)])
    words = np.concatenate([words + more for more in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)])
    least = np.float32(2.0**-56)
    edges = [least, np.nextafter(least, np.float32(0)), -least, np.float32(0), np.float32(np.inf)]
    x = np.concatenate([words.astype(np.uint32).view(np.float32), np.array(edges, np.float32)])
    x = x[np.isnan(x) | (np.abs(x) < 2.0**127) | np.isinf(x)]
    found = call(library(tmp_path, "\n".join(text), "-O1").map, "uint16", x)
    numbers = (found.astype(np.uint32) << 16).view(np.float32)
    assert (np.isnan(numbers) == np.isnan(x)).all()
    for number, made in zip(
        x[np.isfinite(x)].tolist(), numbers[np.isfinite(x)].tolist(), strict=True
    ):
        exponent = math.frexp(number)[1] - 8  # of the last of 8 binary digits
        wanted = 0.0 if abs(number) < least else round(math.ldexp(number, -exponent))
        assert made == math.ldexp(wanted, exponent), number


def test_words_of_a_seed_of_any_size(tmp_path: Path) -> None:
    functions = Functions(fused=True)
    head = "void words(ptrdiff_t n, const uint64_t *seed, uint32_t *y)"
    line = f"for (ptrdiff_t i = 0; i < n; ++i) y[i] = {functions.philox()}(seed[i], 3, 77, 9, 200);"
    text = "\n".join([PROLOGUE, *functions.texts.values(), f"{head};", head, "{", line, "}", ""])
    seeds = [0, 5, 2**31, 2**32 + 5, 2**63 + 5, 2**64 - 5]
    found = call(library(tmp_path, text, "-O1").words, "uint32", np.array(seeds, "uint64"))
    assert found.tolist() == [keep_words(seed, 77, 3, 1, 201, 9)[0, 200] for seed in seeds]
