"""Vectors against NumPy: memory, lanes, and the scalar functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.backends.maths import apply
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.expr import BOOLEANS
from graphc.kernels.interpret import FUNCTIONS
from tests.backends.native.compiled_function import TARGETS, function_of, map_of
from tests.together import together

SMALL = ("int16", "int8", "uint16", "uint8")
DTYPES = ("float32", "float64", "int64", "int32", "uint64", "uint32", "bool", *SMALL)
FLOATS = ("float32", "float64")
EVERYWHERE = pytest.mark.parametrize("target", TARGETS)
WIDTHS = pytest.mark.parametrize(
    ("lanes", "target"),
    [(16, "host"), (8, "host"), (4, "host"), *((n, t) for t in TARGETS[1:] for n in (16, 4))],
)


def numbers(dtype: str, size: int, seed: int = 0) -> NDArray[Any]:
    random = np.random.default_rng(seed)
    if dtype in FLOATS:
        return random.normal(size=size).astype(dtype)
    low, high = (0, 2) if dtype == "bool" else (0 if dtype[0] == "u" else -40, 40)
    return random.integers(low, high, size).astype(dtype)


@pytest.mark.one_in(3)
@WIDTHS
@pytest.mark.parametrize("dtype", DTYPES)
def test_masked_memory_touches_what_it_should(dtype: str, lanes: int, target: str) -> None:
    def write(v: Vectors) -> None:
        mask = v.mask_below("%n")
        v.store(v.load("%from", dtype, mask), "%to", dtype)
        v.store(v.load("%from", dtype), "%kept", dtype, mask)

    copy = function_of(["ptr %from", "ptr %to", "ptr %kept", "i64 %n"], write, lanes, target)
    source = numbers(dtype, lanes)
    for n in (-1, 0, 1, lanes - 1, lanes, lanes + 5, 2**40 + 1):
        inside = np.arange(lanes) < n
        to, kept = np.ones(lanes, dtype), np.ones(lanes, dtype)
        copy(source, to, kept, n)
        np.testing.assert_array_equal(to, np.where(inside, source, 0))
        np.testing.assert_array_equal(kept, np.where(inside, source, 1))


@WIDTHS
@pytest.mark.parametrize("dtypes", [("int32", "int8"), ("int32", "int16"), ("int64", "int32")])
def test_narrower_numbers_touch_what_they_should(
    dtypes: tuple[str, str], lanes: int, target: str
) -> None:
    wide, narrow = dtypes

    def write(v: Vectors) -> None:
        for count in range(1, lanes):
            to = v.function.address("%to", count * lanes, element_type(narrow))
            x = v.cast(v.load("%from", wide), wide, narrow)
            v.store(x, to, narrow, v.mask_below(count))

    source, to = numbers(wide, lanes), np.ones((lanes, lanes), narrow)
    function_of(["ptr %from", "ptr %to"], write, lanes, target)(source, to)
    inside = np.arange(lanes) < np.arange(lanes)[:, None]
    np.testing.assert_array_equal(to, np.where(inside, source, 1))


def test_a_mask_of_a_known_count() -> None:
    def write(v: Vectors) -> None:
        v.store(v.mask_below(5), "%to", "bool")
        v.store(v.mask_below("3"), v.function.address("%to", 8, "i8"), "bool")

    to = np.zeros(16, "bool")
    function_of(["ptr %to"], write, 8)(to)
    assert to.tolist() == [True] * 5 + [False] * 3 + [True] * 3 + [False] * 5


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_element(dtype: str) -> None:
    def write(v: Vectors) -> None:
        v.store(v.load_splat("%from", dtype), "%all", dtype)
        v.store_first(v.load("%from", dtype), "%first", dtype)

    spread = function_of(["ptr %from", "ptr %all", "ptr %first"], write, 8)
    source = numbers(dtype, 8) if dtype != "bool" else np.arange(8) % 3 == 0
    all_lanes, first = np.zeros(8, dtype), np.zeros(2, dtype)
    spread(source, all_lanes, first)
    assert all_lanes.tolist() == [source[0]] * 8
    assert first.tolist() == [source[0], 0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_constants(dtype: str) -> None:
    values = [0, 1] if dtype == "bool" else [0, 1, 3, 40]
    values += [-7] if dtype[0] in "fi" else []
    floats = [0.1, -0.0, np.inf, -np.inf, np.nan, 1e-45, 3e38] if dtype in FLOATS else []
    listed = [*values, *floats]

    def write(v: Vectors) -> None:
        for i, value in enumerate(listed):
            place = v.function.address("%to", i * v.lanes, element_type(dtype))
            v.store(v.const(value, dtype), place, dtype)

    to = np.empty((len(listed), 4), dtype)
    function_of(["ptr %to"], write, 4)(to)
    expected = np.repeat(np.array(listed, dtype)[:, None], 4, 1)
    assert to.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", FLOATS)
@WIDTHS
def test_sums_add_halves(dtype: str, lanes: int, target: str) -> None:
    def write(v: Vectors) -> None:
        scalar = v.sum(v.load("%from", dtype), dtype)
        v.store_first(v.splat(scalar, dtype), "%to", dtype)

    total = function_of(["ptr %from", "ptr %to"], write, lanes, target)
    for seed in range(20):
        values, to = numbers(dtype, lanes, seed), np.empty(1, dtype)
        total(values, to)
        tree = values
        while tree.size > 1:
            tree = tree[: tree.size // 2] + tree[tree.size // 2 :]
        assert to[0] == tree[0]


@pytest.mark.parametrize("dtype", DTYPES)
def test_largest_lane(dtype: str) -> None:
    def write(v: Vectors) -> None:
        scalar = v.max(v.load("%from", dtype), dtype)
        v.store_first(v.splat(scalar, dtype), "%to", dtype)

    largest = function_of(["ptr %from", "ptr %to"], write, 16)
    for seed in range(20):
        values, to = numbers(dtype, 16, seed), np.zeros(1, dtype)
        largest(values, to)
        assert to[0] == values.max()
        if dtype in FLOATS:
            values[seed % 16] = np.nan
            largest(values, to)
            assert np.isnan(to[0])


@EVERYWHERE
@pytest.mark.parametrize(
    ("dtype", "lanes"),
    [("float32", 16), ("float32", 8), ("float32", 4), ("float64", 8), ("float64", 4),
     ("float64", 2), ("int64", 8), ("int32", 8)],
)  # fmt: skip
def test_transpose(dtype: str, lanes: int, target: str) -> None:
    def write(v: Vectors) -> None:
        element = element_type(dtype)
        rows = [v.function.address("%from", i * lanes, element) for i in range(lanes)]
        columns = v.transpose([v.load(row, dtype) for row in rows], dtype)
        for i, column in enumerate(columns):
            v.store(column, v.function.address("%to", i * lanes, element), dtype)

    square = np.arange(lanes * lanes).astype(dtype).reshape(lanes, lanes)
    transposed = np.zeros_like(square)
    function_of(["ptr %from", "ptr %to"], write, lanes, target)(square, transposed)
    np.testing.assert_array_equal(transposed, square.T)


SPECIAL = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 2.5, -2.5]
PAIRS = np.array([(a, b) for a in SPECIAL for b in SPECIAL]).T
ARITHMETIC = ("add", "sub", "mul", "div", "maximum", "minimum")
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal", "not_equal")


@pytest.mark.one_in(4)
@EVERYWHERE
@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_of_two_floats(dtype: str, target: str) -> None:
    names = (*ARITHMETIC, *COMPARISONS, "and", "or")
    results = [dtype] * len(ARITHMETIC) + ["bool"] * (len(names) - len(ARITHMETIC))

    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [
            apply(v, name, x, [dtype] * 2, result)
            for name, result in zip(names, results, strict=True)
        ]

    a, b = np.concatenate([PAIRS.astype(dtype), numbers(dtype, 200).reshape(2, 100)], 1)
    found = map_of(emit, [dtype] * 2, results, target=target)(a, b)
    with np.errstate(all="ignore"):
        for name, result in zip(names, found, strict=True):
            np.testing.assert_array_equal(result, FUNCTIONS[name](a, b), name)


@pytest.mark.parametrize("dtype", FLOATS)
def test_functions_of_one_float(dtype: str) -> None:
    names = ("neg", "abs", "sqrt", "cos", "floor", "ceil", "round")

    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [apply(v, name, x, [dtype], dtype) for name in names]

    halves = np.arange(-3.5, 4)
    a = np.concatenate([SPECIAL, halves, numbers(dtype, 100)]).astype(dtype)
    found = dict(zip(names, map_of(emit, [dtype], [dtype] * len(names))(a), strict=True))
    with np.errstate(all="ignore"):
        for name in ("neg", "abs", "sqrt", "floor", "ceil", "round"):
            assert np.array_equal(found[name], FUNCTIONS[name](a), equal_nan=True)
            assert np.array_equal(np.signbit(found[name]), np.signbit(FUNCTIONS[name](a))), name
        exact = np.cos(a.astype("float64"))
        np.testing.assert_allclose(found["cos"], exact, rtol=2 * float(np.finfo(dtype).eps))


@pytest.mark.one_in(4)
@EVERYWHERE
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64", *SMALL])
def test_functions_of_integers(dtype: str, target: str) -> None:
    names = ("add", "sub", "mul", "maximum", "minimum", "floor_div", *COMPARISONS, "and", "or")
    results = [dtype] * 6 + ["bool"] * 8

    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [
            apply(v, name, x, [dtype] * 2, result)
            for name, result in zip(names, results, strict=True)
        ]

    ends = np.iinfo(dtype)
    some = np.array([0, 1, 2, 7, ends.max, ends.min, ends.max - 1, ends.min + 1], dtype)
    some = np.concatenate([some, -some, numbers(dtype, 10)])
    a, b = np.repeat(some, some.size), np.tile(some, some.size)
    found = map_of(emit, [dtype] * 2, results, target=target)(a, b)
    with np.errstate(all="ignore"):
        for name, result in zip(names, found, strict=True):
            np.testing.assert_array_equal(result, FUNCTIONS[name](a, b), name)


@pytest.mark.parametrize("divisor", [-3, -1, 0, 1, 2, 10])
def test_floor_division_by_a_constant(divisor: int) -> None:
    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [apply(v, "floor_div", [x[0], v.const(divisor, "int64")], ["int64"] * 2, "int64")]

    a = np.arange(-20, 20)
    with np.errstate(all="ignore"):
        expected = a // np.int64(divisor)
    np.testing.assert_array_equal(map_of(emit, ["int64"], ["int64"])(a)[0], expected)


@pytest.mark.parametrize("limit", [0.0, 1.5, -np.inf, np.nan])
def test_extremes_with_a_constant_propagate_nan(limit: float) -> None:
    def emit(v: Vectors, x: list[str]) -> list[str]:
        c, dtypes = v.const(limit, "float32"), ["float32"] * 2
        return [
            apply(v, name, args, dtypes, "float32")
            for name in ("maximum", "minimum")
            for args in ([x[0], c], [c, x[0]])
        ]

    a = np.array([*SPECIAL, 1.25, 1.75], "float32")
    b = np.full_like(a, limit)
    found = map_of(emit, ["float32"], ["float32"] * 4)(a)
    for result, extreme in zip(found, [np.maximum] * 2 + [np.minimum] * 2, strict=True):
        np.testing.assert_array_equal(result, extreme(a, b))


@pytest.mark.one_in(4)
@EVERYWHERE
@pytest.mark.parametrize("dtype", DTYPES)
def test_selection_and_logic(dtype: str, target: str) -> None:
    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [
            apply(v, "select", x, ["bool", dtype, dtype], dtype),
            apply(v, "not", x[1:2], [dtype], "bool"),
        ]

    mask, a, b = numbers("bool", 50), numbers(dtype, 50, 1), numbers(dtype, 50, 2)
    chosen, negated = map_of(emit, ["bool", dtype, dtype], [dtype, "bool"], target=target)(
        mask, a, b
    )
    np.testing.assert_array_equal(chosen, np.where(mask, a, b))
    np.testing.assert_array_equal(negated, np.logical_not(a))


@pytest.mark.one_in(4)
@EVERYWHERE
@pytest.mark.parametrize("source", DTYPES)
def test_casts(source: str, target: str) -> None:
    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [apply(v, "cast", x, [source], dtype) for dtype in DTYPES]

    a = numbers(source, 50)
    a = np.abs(a) * 10 if source in FLOATS else a
    a[:2] += np.asarray(200 if source == "uint8" else 0, source)  # which an int8 cannot hold
    found = map_of(emit, [source], DTYPES, target=target)(a)
    for dtype, result in zip(DTYPES, found, strict=True):
        np.testing.assert_array_equal(result, a.astype(dtype), dtype)


@pytest.mark.one_in(4)
@EVERYWHERE
@pytest.mark.parametrize("source", FLOATS)
def test_floats_beyond_the_integers(source: str, target: str) -> None:
    integers = ("int64", "int32", "uint64", "uint32")

    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [apply(v, "cast", x, [source], dtype) for dtype in integers]

    a = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, -2.75, 2.75], source)
    found = map_of(emit, [source], integers, target=target)(a)
    for dtype, result in zip(integers, found, strict=True):
        top, bottom = np.iinfo(dtype).max, np.iinfo(dtype).min
        assert result.tolist() == [0, top, bottom, top, bottom, max(-2, bottom), 2]


@pytest.mark.parametrize("dtype", FLOATS)
@together("exponent", [0, 1, 2, 3, 4, 7, -1, -2, 0.5, -0.5, 1.7, -12, 33])
def test_powers(exponent: float, dtype: str) -> None:
    def emit(v: Vectors, x: list[str]) -> list[str]:
        power = apply(v, "pow", [x[0], v.const(exponent, dtype)], [dtype] * 2, dtype)
        return [power, apply(v, "pow", [x[0], v.const(exponent, dtype)], [dtype] * 2, dtype)]

    a = np.concatenate([np.array([0.0, 1.0, -1.0, np.inf, np.nan, -2.5], dtype),
                        np.abs(numbers(dtype, 100))])  # fmt: skip
    found, same = map_of(emit, [dtype], [dtype] * 2)(a)
    assert found.tobytes() == same.tobytes()
    with np.errstate(all="ignore"):
        exact = np.power(a.astype("longdouble"), np.dtype(dtype).type(exponent))
        expected = exact.astype(dtype)
    np.testing.assert_allclose(found, expected, rtol=4 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", FLOATS)
def test_general_power(dtype: str) -> None:
    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [apply(v, "pow", x, [dtype] * 2, dtype)]

    a, b = np.abs(numbers(dtype, 100)), numbers(dtype, 100, 1)
    expected = np.power(a.astype("float64"), b).astype(dtype)
    (found,) = map_of(emit, [dtype] * 2, [dtype])(a, b)
    np.testing.assert_allclose(found, expected, rtol=4 * float(np.finfo(dtype).eps))


def test_products_round_once() -> None:
    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [v.fma(x[0], x[1], x[2], "float32")]

    a, b, c = numbers("float32", 300).reshape(3, 100)
    c = -(a * b)
    exact = (a.astype("float64") * b + c).astype("float32")
    assert np.any(exact)
    np.testing.assert_array_equal(map_of(emit, ["float32"] * 3, ["float32"])(a, b, c)[0], exact)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_of_a_kernel(name: str) -> None:
    dtype = {"floor_div": "int64", "round_bfloat16": "float32"}.get(name, "float64")
    count = 3 if name == "select" else getattr(FUNCTIONS[name], "nin", 1)
    result = "bool" if name in BOOLEANS else dtype

    def emit(v: Vectors, x: list[str]) -> list[str]:
        return [apply(v, name, x, [dtype] * count, result)]

    args = [np.abs(numbers(dtype, 50, seed)) + (dtype == "int64") for seed in range(count)]
    (found,) = map_of(emit, [dtype] * count, [result])(*args)
    np.testing.assert_allclose(found, FUNCTIONS[name](*args), rtol=1e-15)
