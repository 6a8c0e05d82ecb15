"""The interpreter keeps the order of every sum, and the other promises of a kernel."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from graphc.ir.expr import Axis, BodyBuilder, Broadcast, Expr, call, philox, select
from graphc.ir.op import Array
from graphc.ir.tensor_type import Dim, N
from graphc.kernels.interpret import FUNCTIONS, run
from graphc.kernels.kernel import Gemm, Loop
from graphc.kernels.philox import keep_words

RNG = np.random.default_rng(3)


def loop_of(
    write: Callable[[BodyBuilder], None], rows: Dim, columns: Dim, axis: Axis = "columns"
) -> Loop:
    b = BodyBuilder()
    write(b)
    return Loop(rows, columns, axis, b.body(), "none")


def reduced(x: Array, kind: Callable[[Expr], Expr], broadcast: Broadcast) -> Array:
    def write(b: BodyBuilder) -> None:
        b.store(kind(b.load("x", "each", x.dtype.name)), "out", broadcast)

    out = np.empty(x.shape[0] if broadcast == "row" else x.shape[1], x.dtype)
    run(loop_of(write, *x.shape), {"x": x, "out": out}, 1)
    return out


def uneven(*shape: int) -> Array:
    """Numbers whose sum depends on the order, in float32."""
    return (RNG.standard_normal(shape) * 10.0 ** RNG.integers(-3, 4, shape)).astype(np.float32)


@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 100, 257])
def test_a_sum_along_columns_has_sixteen_lanes_and_a_tree(columns: int) -> None:
    x = uneven(5, columns)
    found = reduced(x, lambda e: e.sum("columns"), "row")
    for row, total in zip(x, found, strict=True):
        lanes = [np.float32(0)] * 16
        for j, number in enumerate(row):
            lanes[j % 16] = lanes[j % 16] + number
        eight = [lanes[i] + lanes[i + 8] for i in range(8)]
        four = [eight[i] + eight[i + 4] for i in range(4)]
        assert total == (four[0] + four[2]) + (four[1] + four[3])


def test_a_sum_along_rows_goes_row_by_row() -> None:
    x = uneven(301, 3)
    found = reduced(x, lambda e: e.sum("rows"), "column")
    for j in range(3):
        total = np.float32(0)
        for number in x[:, j]:
            total = total + number
        assert found[j] == total


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_a_product_goes_along_the_inner_index(trans_a: bool, trans_b: bool) -> None:
    m, n, k = 3, 5, 200
    left, right = uneven(m, k), uneven(k, n)
    b = BodyBuilder()
    b.store(b.product("float32"), "out", "each")
    arrays = {
        "a": np.ascontiguousarray(left.T) if trans_a else left,
        "b": np.ascontiguousarray(right.T) if trans_b else right,
        "out": np.empty((m, n), np.float32),
    }
    run(Gemm(m, n, k, "a", "b", trans_a, trans_b, "float32", b.body(), "rows"), arrays, 1)
    for i in range(m):
        for j in range(n):
            total = np.float32(0)
            for p in range(k):
                total = total + left[i, p] * right[p, j]
            assert arrays["out"][i, j] == total


def test_max_keeps_nan() -> None:
    x = np.array([[1.0, np.nan], [3.0, 2.0]])
    np.testing.assert_array_equal(reduced(x, lambda e: e.max("columns"), "row"), [np.nan, 3])
    np.testing.assert_array_equal(reduced(x, lambda e: e.max("rows"), "column"), [3, np.nan])


def test_a_number_is_counted_once_for_each_element() -> None:
    """Reductions run over the whole matrix, also of what depends on neither index."""
    one = np.ones((3, 5))
    found = reduced(one, lambda e: e.builder.const(2, "float64").sum("columns"), "row")
    np.testing.assert_array_equal(found, [10, 10, 10])
    found = reduced(one, lambda e: e.sum("columns").sum("rows"), "column")
    np.testing.assert_array_equal(found, [15] * 5)


def test_spans_shapes_and_the_batch() -> None:
    """Buffers have the users' shapes; sizes and indices are those of this batch."""

    def write(b: BodyBuilder) -> None:
        x, y = b.load("x", "each", "float64"), b.load("y", "row", "int32")
        z, s = b.load("z", "column", "float64"), b.load("s", "one", "float64")
        hit = b.index("columns").equals(y.cast("int64"))
        b.store(select(hit, x * z, s), "out", "each")
        b.store(b.index("rows"), "number", "row")
        b.store(b.size("rows", "float64"), "rows", "one")
        b.store(b.size("columns", "float64"), "columns", "one")
        b.store(b.dim(3 * N, "float64"), "thrice", "one")
        b.store(s, "filled", "column")

    x, z = RNG.standard_normal((4, 2, 3)), RNG.standard_normal((1, 2, 3))
    y = np.array([5, 0, 2, 2], np.int32)
    arrays: dict[str, Array] = {"x": x, "y": y, "z": z, "s": np.array(7.5)}
    arrays |= {"out": np.empty((4, 2, 3)), "number": np.empty((4, 1), np.int64)}
    arrays |= {name: np.empty(()) for name in ("rows", "columns", "thrice")}
    arrays["filled"] = np.empty(6)
    run(loop_of(write, 2 * N, 6), arrays, 2)
    wanted = np.full((4, 6), 7.5)
    for i, j in enumerate(y):
        wanted[i, j] = (x * z).reshape(4, 6)[i, j]
    np.testing.assert_array_equal(arrays["out"], wanted.reshape(4, 2, 3))
    np.testing.assert_array_equal(arrays["number"][:, 0], [0, 1, 2, 3])
    assert [float(arrays[k]) for k in ("rows", "columns", "thrice")] == [4, 6, 6]
    np.testing.assert_array_equal(arrays["filled"], [7.5] * 6)


def test_a_kernel_loads_before_it_stores() -> None:
    def write(b: BodyBuilder) -> None:
        x, y = b.load("x", "each", "float64"), b.load("y", "each", "float64")
        b.store(y, "x", "each")
        b.store(x, "y", "each")

    arrays = {"x": np.array([1.0, 2]), "y": np.array([3.0, 4])}
    run(loop_of(write, 1, 2), arrays, 1)
    assert [list(array) for array in arrays.values()] == [[3, 4], [1, 2]]


def test_a_product_is_followed_by_expressions_and_column_sums() -> None:
    b = BodyBuilder()
    bias, old = b.load("bias", "column", "float64"), b.load("old", "each", "float64")
    value = select(old > 0, b.product("float64") + bias, 0)
    b.store(value, "out", "each")
    b.store(value.sum("rows"), "sums", "column")
    x, w = RNG.standard_normal((4, 3)), RNG.standard_normal((3, 5))
    arrays: dict[str, Array] = {
        "x": x,
        "w": w,
        "bias": RNG.standard_normal(5),
        "old": RNG.standard_normal((4, 5)),
    }
    arrays |= {"out": np.empty((4, 5)), "sums": np.empty(5)}
    run(Gemm(N, 5, 3, "x", "w", False, False, "float64", b.body(), "rows"), arrays, 4)
    wanted = np.where(arrays["old"] > 0, x @ w + arrays["bias"], 0)
    np.testing.assert_allclose(arrays["out"], wanted, rtol=1e-12)
    np.testing.assert_allclose(arrays["sums"], wanted.sum(0), rtol=1e-12)


def test_random_words() -> None:
    def write(b: BodyBuilder) -> None:
        seed, draws = b.load("seed", "one", "uint64"), b.load("draws", "one", "int64")
        b.store(philox(seed, draws, 2**32 - 1), "out", "each")

    arrays: dict[str, Array] = {
        "seed": np.array(2**64 - 1, np.uint64),
        "draws": np.array(2**33 + 1),
    }
    arrays["out"] = np.empty((3, 70), np.uint32)
    run(loop_of(write, N, 70), arrays, 3)
    np.testing.assert_array_equal(arrays["out"], keep_words(2**64 - 1, 2**32 - 1, 2**33 + 1, 3, 70))


def test_casts_go_toward_zero() -> None:
    def write(b: BodyBuilder) -> None:
        b.store(b.load("x", "each", "float32").cast("int32"), "out", "each")

    arrays: dict[str, Array] = {
        "x": np.array([-1.9, 1.9], np.float32),
        "out": np.empty(2, np.int32),
    }
    run(loop_of(write, 1, 2), arrays, 1)
    assert list(arrays["out"]) == [-1, 1]


def test_each_row_has_its_place_however_many_there_are() -> None:
    b = BodyBuilder()
    b.store(b.offset((2, 2)), "out", "row")
    kernel = Loop(96 * N, 1, "columns", b.body(), "none", (12, 8))
    out = np.empty(96 * 100, np.int32)
    run(kernel, {"out": out}, 100)
    row = np.arange(len(out))
    np.testing.assert_array_equal(out, row // 8 % 2 * 2 + row % 2)


def test_every_function_keeps_the_dtype_of_its_step() -> None:
    for function in FUNCTIONS:
        if function in ("select", "cast"):
            continue
        for dtype in ("float32", "float64"):
            b = BodyBuilder()
            x = b.load("x", "each", dtype)
            unary = ("neg", "abs", "sqrt", "exp", "log", "tanh", "sigmoid", "erf", "cos", "not")
            unary = (*unary, "floor", "ceil", "round", "round_bfloat16")
            value = call(function, x) if function in unary else call(function, x, x)
            b.store(value, "out", "each")
            arrays: dict[str, Array] = {
                "x": np.full((1, 2), 0.5, dtype),
                "out": np.empty((1, 2), value.dtype),
            }
            run(Loop(1, 2, "columns", b.body(), "none"), arrays, 1)
            scalar = FUNCTIONS[function](*[arrays["x"]] * (1 if function in unary else 2))
            np.testing.assert_allclose(arrays["out"], scalar, rtol=1e-6)


def test_a_buffer_of_another_size_is_refused() -> None:
    def write(b: BodyBuilder) -> None:
        b.store(b.load("x", "each", "float64"), "out", "each")

    with pytest.raises(ValueError, match="reshape"):
        run(loop_of(write, 2, 3), {"x": np.zeros(5), "out": np.zeros(6)}, 1)
