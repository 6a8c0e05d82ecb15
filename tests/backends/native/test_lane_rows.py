"""Rows of few columns, which native code takes sixteen at once: each is as if it were alone."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.backends.native.row_loops import rows_fit_lanes
from graphc.ir.expr import BodyBuilder, call, select
from graphc.ir.tensor_type import Batch
from graphc.kernels.kernel import Loop
from tests.backends.native.loop_function import Array, LoopFunction, arrays_for, expected

COLUMNS = (2, 3, 7, 10, 16)
ROWS = 37


def kernel(columns: int) -> Loop:
    """A softmax loss and its gradient, scaled by row, column, and the numbers of both."""
    b = BodyBuilder()
    x = b.load("x", "each", "float32") * b.load("scale", "column", "float32")
    x = x + b.load("bias", "row", "float32") * b.load("rate", "one", "float32")
    largest = x.max("columns")
    powers = call("exp", x - largest)
    total = powers.sum("columns")
    hit = call("equal", b.load("label", "row", "int64"), b.index("columns"))
    score = select(hit, x, 0).sum("columns")
    b.store(call("log", total) + largest - score, "loss", "row")
    b.store(powers / total - select(hit, b.const(1, "float32"), 0), "gradient", "each")
    b.store((b.index("rows") + b.index("columns")).cast("float32") * x, "numbers", "each")
    return Loop(Batch(), columns, "columns", b.body(), "rows")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("columns", COLUMNS)
def test_each_row_is_as_if_alone(columns: int) -> None:
    """Sixteen together have the bytes of one at a time, with infinities and NaN."""
    loop = kernel(columns)
    assert rows_fit_lanes(loop)
    function, arrays = LoopFunction(loop), arrays_for(loop, ROWS)
    arrays["x"][3, 1], arrays["x"][5, 0], arrays["x"][7, 1] = np.nan, np.inf, -np.inf
    arrays["x"][9] = -0.0
    together = function(arrays, ROWS, threads=(1, 0))
    for row in range(ROWS):
        alone = function({name: _row(x, row) for name, x in arrays.items()}, 1)
        for name in ("loss", "gradient"):
            assert together[name][row].tobytes() == alone[name][0].tobytes(), (name, row)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("columns", COLUMNS)
def test_values_are_those_of_the_interpreter(columns: int) -> None:
    """And so are the numbers of rows and columns."""
    loop = kernel(columns)
    arrays = arrays_for(loop, ROWS)
    found, want = LoopFunction(loop)(arrays, ROWS), expected(loop, arrays, ROWS)
    for name, x in want.items():
        np.testing.assert_allclose(found[name], x, rtol=2e-5, atol=2e-6)


def test_rows_are_updated_in_place() -> None:
    """What is written may lie where the rows were."""
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    b.store(x / x.sum("columns"), "y", "each")
    loop = Loop(Batch(), 10, "columns", b.body(), "none")
    arrays = arrays_for(loop, 32)
    apart, inside = (LoopFunction(loop)(arrays, 32, share=s) for s in (None, {"y": "x"}))
    assert apart["y"].tobytes() == inside["y"].tobytes()


@pytest.mark.parametrize("columns", [2, 10, 16])
def test_sums_begin_at_zero(columns: int) -> None:
    """So a sum of -0 is 0, as of every other kernel; a maximum of -0 is -0."""
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    b.store(x.sum("columns"), "sum", "row")
    b.store(x.max("columns"), "most", "row")
    loop = Loop(Batch(), columns, "columns", b.body(), "rows")
    assert rows_fit_lanes(loop)
    arrays = {"x": np.full((ROWS, columns), -0.0, np.float32)}
    arrays |= {name: np.ones(ROWS, np.float32) for name in ("sum", "most")}
    found = LoopFunction(loop)(arrays, ROWS)
    assert not np.signbit(found["sum"]).any() and not found["sum"].any()
    assert np.signbit(found["most"]).all() and not found["most"].any()


def _row(x: Array, row: int) -> Array:
    return x[row : row + 1] if len(x) == ROWS else x
