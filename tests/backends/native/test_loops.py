"""The native code of `Loop` kernels computes what NumPy computes, for any shape and threads."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphc.ir.expr import Axis, Body, BodyBuilder, call, philox, select
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.kernel import Loop, Partition
from graphc.kernels.philox import keep_words
from tests.backends.native import loop_bodies as bodies
from tests.backends.native.compiled_function import TARGETS
from tests.backends.native.loop_function import Arrays, LoopFunction, arrays_for, expected

COLUMNS = (1, 2, 10, 15, 16, 17, 37, 63, 64, 65, 100, 1000)
FEW = (1, 17, 64, 100)
THOROUGH = ("softmax", "standardize", "batchnorm gradient")
"""The kinds that between them have all the loops; the others run for few columns."""
KINDS: dict[str, tuple[Axis, Partition, Callable[[str], Body]]] = {
    "softmax": ("columns", "rows", bodies.softmax_loss),
    "dropout": ("columns", "rows", bodies.relu_dropout),
    "momentum": ("columns", "rows", bodies.momentum),
    "standardize": ("columns", "rows", bodies.standardize),
    "standardize blocks": ("columns", "columns", bodies.standardize),
    "bias": ("rows", "columns", bodies.bias_update),
    "batchnorm": ("rows", "columns", bodies.batchnorm),
    "batchnorm gradient": ("rows", "columns", bodies.batchnorm_gradient),
}


def kernel_of(kind: str, rows: Dim, columns: Dim, dtype: str = "float32") -> Loop:
    axis, partition, body = KINDS[kind]
    return Loop(rows, columns, axis, body(dtype), partition)


def check(function: LoopFunction, n: int = 1, tolerance: float = 2e-5, seed: int = 0) -> None:
    """Against NumPy, and the same bytes for one to four threads in any order."""
    arrays = arrays_for(function.kernel, n, seed)
    alone = function(arrays, n)
    for name, want in expected(function.kernel, arrays, n).items():
        np.testing.assert_allclose(alone[name], want, tolerance, tolerance, err_msg=name)
    for threads in ((1, 0), (0, 2, 1), (3, 1, 2, 0)):
        same_bytes(function(arrays, n, threads), alone)


def same_bytes(got: Arrays, want: Arrays) -> None:
    for name in want:
        assert got[name].tobytes() == want[name].tobytes(), name


# ---------------------------------------------------------------------- shapes


@pytest.mark.one_in(7)
@pytest.mark.parametrize(
    ("kind", "columns"), [(k, c) for k in KINDS for c in (COLUMNS if k in THOROUGH else FEW)]
)
def test_columns(kind: str, columns: int) -> None:
    function = LoopFunction(kernel_of(kind, Batch(), columns))
    for rows in (1, 2, 33) if columns == 1000 else (1, 2, 3, 15, 16, 17, 33, 40):
        check(function, rows, seed=rows)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("rows", [1, 17])
@pytest.mark.parametrize("kind", KINDS)
def test_fixed_rows(kind: str, rows: int) -> None:
    for columns in (10, 128) if rows == 17 else (1, 70):
        check(LoopFunction(kernel_of(kind, rows, columns)))


@pytest.mark.one_in(7)
@pytest.mark.parametrize("kind", KINDS)
def test_columns_of_the_batch(kind: str) -> None:
    function = LoopFunction(kernel_of(kind, 3, Batch(5)))
    for n in (*range(1, 28), 64, 200):
        check(function, n, seed=n)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("target", TARGETS[1:])
@pytest.mark.parametrize("kind", KINDS)
def test_other_machines(kind: str, target: str) -> None:
    check(LoopFunction(kernel_of(kind, Batch(), 37), target), 19)


@pytest.mark.parametrize("kind", KINDS)
def test_float64(kind: str) -> None:
    check(LoopFunction(kernel_of(kind, Batch(), 37, "float64")), 21, 1e-12)


# ---------------------------------------------------------------------- a single row or column


@pytest.mark.one_in(3)
@pytest.mark.parametrize("columns", [1, 5, 16, 100, 200, Batch()])
def test_one_row(columns: Dim) -> None:
    mean = LoopFunction(Loop(1, columns, "columns", bodies.mean_of_all(), "none"))
    flat = LoopFunction(Loop(1, columns, "columns", bodies.momentum(), "columns"))
    dropped = LoopFunction(Loop(1, columns, "columns", bodies.relu_dropout(), "none"))
    for n in (1, 7, 64, 65, 300) if isinstance(columns, Batch) else (1,):
        check(mean, n)
        check(flat, n)
        check(dropped, n)


@pytest.mark.parametrize("partition", ["rows", "none"])
@pytest.mark.parametrize("rows", [1, 5, 100, Batch(2)])
def test_one_column(rows: Dim, partition: Partition) -> None:
    b = BodyBuilder()
    x, y = b.load("x", "each", "float32"), b.load("y", "row", "float32")
    scale = b.load("scale", "column", "float32")
    number = b.index("rows").cast("float32") + b.index("columns").cast("float32")
    b.store((x - y) * scale + number, "z", "row")
    function = LoopFunction(Loop(rows, 1, "columns", b.body(), partition))
    for n in (1, 40):
        check(function, n)


def test_total_of_one_column() -> None:
    b = BodyBuilder()
    b.store(b.load("x", "each", "float32").mean("rows"), "mean", "one")
    check(LoopFunction(Loop(Batch(), 1, "rows", b.body(), "none")), 50)


# ---------------------------------------------------------------------- what single steps mean


@pytest.mark.parametrize("partition", ["rows", "columns", "none"])
def test_places_and_sizes(partition: Partition) -> None:
    b = BodyBuilder()
    i, j = b.index("rows"), b.index("columns")
    sizes = b.size("rows", "int64") * 1000 + b.size("columns", "int64")
    b.store((i * 100 + j) * b.load("one", "each", "int64") + sizes, "out", "each")
    for columns in (1, 17, 70):
        check(LoopFunction(Loop(Batch(2), columns, "columns", b.body(), partition)), 20)


def test_words_are_those_of_philox() -> None:
    b = BodyBuilder()
    words = philox(b.load("seed", "one", "uint64"), b.load("draws", "one", "int64"), 2**32 - 1)
    b.store(words.cast("int64") + 0 * b.load("zero", "each", "int64"), "out", "each")
    arrays: dict[str, NDArray[Any]] = {
        "seed": np.full((1, 1), 2**64 - 3, np.uint64),
        "draws": np.full((1, 1), 12, np.int64),
    }
    for rows, columns in itertools.product((1, 20), (1, 40, 100, Batch(3))):
        function = LoopFunction(Loop(rows, columns, "columns", b.body(), "rows"))
        width = columns if isinstance(columns, int) else 3 * 50
        zero = np.zeros((rows, width), np.int64)
        out = function({**arrays, "zero": zero, "out": zero}, 50)["out"]
        np.testing.assert_array_equal(out, keep_words(2**64 - 3, 2**32 - 1, 12, rows, width))


def test_masks_and_integers() -> None:
    b = BodyBuilder()
    flag, x = b.load("flag", "each", "bool"), b.load("x", "each", "int64")
    far, row = b.load("far", "row", "bool"), b.load("row", "row", "int64")
    largest, total = x.max("columns"), select(flag, x, 0).sum("columns")
    b.store(largest, "largest", "row")
    b.store(total, "total", "row")
    b.store(call("and", call("or", flag, far), x < row), "mask", "each")
    b.store(select(call("not", flag), x - largest, total), "mixed", "each")
    b.store(largest > total, "more", "row")
    for columns in (1, 16, 37, 64, 100, Batch(3)):
        check(LoopFunction(Loop(Batch(), columns, "columns", b.body(), "rows")), 35)


def test_labels_beyond_the_columns_pick_nothing() -> None:
    b = BodyBuilder()
    here = b.index("columns").equals(b.load("label", "row", "int64"))
    b.store(here, "here", "each")
    function = LoopFunction(Loop(Batch(), 100, "columns", b.body(), "rows"))
    labels = np.array([[-1], [3], [2**32 + 3], [99], [100], [-(2**63)]])
    out = function({"label": labels, "here": np.ones((6, 100), np.bool_)}, 6)["here"]
    np.testing.assert_array_equal(out, np.arange(100) == labels)


@pytest.mark.parametrize("columns", [10, 200])
def test_nan_and_infinity(columns: int) -> None:
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    b.store(x.max("columns"), "largest", "row")
    b.store(x.sum("columns"), "total", "row")
    function = LoopFunction(Loop(Batch(), columns, "columns", b.body(), "rows"))
    x = np.zeros((4, columns), np.float32)
    x[0, 3], x[1, columns - 1], x[2] = np.nan, np.inf, -np.inf
    out = function({"x": x, "largest": np.ones((4, 1), np.float32), "total": x[:, :1]}, 4)
    np.testing.assert_array_equal(out["largest"].ravel(), [np.nan, np.inf, -np.inf, 0])
    np.testing.assert_array_equal(out["total"].ravel(), [np.nan, np.inf, -np.inf, 0])


# ---------------------------------------------------------------------- the order of sums


def test_a_row_sum_has_sixteen_lanes_and_a_tree() -> None:
    b = BodyBuilder()
    b.store(b.load("x", "each", "float32").sum("columns"), "total", "row")
    for columns in (1, 10, 16, 37, 64, 100, 1000, Batch(3)):
        function = LoopFunction(Loop(3, columns, "columns", b.body(), "none"))
        arrays = arrays_for(function.kernel, 50)
        x = arrays["x"]
        lanes = np.zeros((3, 16), np.float32)
        for j in range(x.shape[1]):
            lanes[:, j % 16] += x[:, j]
        for half in (8, 4, 2, 1):
            lanes = lanes[:, :half] + lanes[:, half:]
        np.testing.assert_array_equal(function(arrays, 50)["total"], lanes)


def test_a_column_sum_has_the_order_of_rows() -> None:
    b = BodyBuilder()
    b.store(b.load("x", "each", "float32").sum("rows"), "total", "column")
    for columns in (1, 10, 100):
        function = LoopFunction(Loop(Batch(), columns, "rows", b.body(), "columns"))
        arrays = arrays_for(function.kernel, 77)
        want = np.add.accumulate(arrays["x"], axis=0)[-1:]
        np.testing.assert_array_equal(function(arrays, 77)["total"], want)


@pytest.mark.parametrize("columns", [10, 37, 100, 1000])
def test_a_row_does_not_depend_on_the_batch(columns: int) -> None:
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    centred = x - x.max("columns")
    b.store(centred - call("log", call("exp", centred).sum("columns")), "y", "each")
    function = LoopFunction(Loop(Batch(), columns, "columns", b.body(), "rows"))
    arrays = arrays_for(function.kernel, 40)
    whole = function(arrays, 40)["y"]
    for i in (0, 1, 17, 39):
        alone = function({name: a[i : i + 1] for name, a in arrays.items()}, 1)["y"]
        assert alone.tobytes() == whole[i].tobytes()
