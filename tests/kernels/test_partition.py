"""How threads share a kernel: by what they need not add up, and where there is enough for each."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graphc.ir.expr import Axis, Body, BodyBuilder, Broadcast, Expr
from graphc.ir.forms import Product, Window, WindowProduct
from graphc.ir.tensor_type import Batch, Dim, N
from graphc.kernels.kernel import Partition, gemm_partition, loop_partition
from tests.together import together

Reduce = Callable[[Expr, Axis], Expr]
IMAGE = Window((4, 4), 2, (3, 3), (2, 2), (1, 1), (1, 1), (0, 0), (1, 1))


@pytest.mark.parametrize(
    ("m", "n", "inner", "capacity", "partition"),
    [
        (N, 10, 20, 128, "rows"),
        (N, 10, 20, 32, "rows"),  # two runs of 16 rows, one for each of two threads
        (N, 10, 20, 31, "columns"),
        (10, 40, N, 128, "columns"),
        (Batch(4), 10, 20, 8, "rows"),
        (128, 256, 64, 1, "columns"),  # b has 2**14 elements, and is larger than a
        (128, 256, 63, 1, "rows"),
        (256, 256, 64, 1, "rows"),
        (255, 256, 64, 1, "columns"),
        (128, 256, N, 64, "columns"),
    ],
)
def test_products(m: Dim, n: Dim, inner: Dim, capacity: int, partition: Partition) -> None:
    assert gemm_partition(m, n, Product(inner), capacity) == partition


@pytest.mark.parametrize(("rows", "partition"), [(16, "columns"), (17, "rows"), (31, "rows")])
def test_short_convolutions_are_shared_by_rows(rows: int, partition: Partition) -> None:
    """Their columns are fewer than one thread takes at a time."""
    assert gemm_partition(rows, 8, WindowProduct(IMAGE.depth, window=IMAGE), 1) == partition


def body(*stores: Broadcast, reduced: str = "", axis: Axis = "columns") -> Body:
    """Something that is stored by these broadcasts."""
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    if reduced == "sum":
        b.store(x.sum(axis), "total", "row" if axis == "columns" else "column")
    elif reduced == "max":
        b.store(x.max(axis), "most", "row" if axis == "columns" else "column")
    for broadcast in stores:
        b.store(b.load(f"{broadcast} in", broadcast, "float32") + 1.0, broadcast, broadcast)
    return b.body()


@together(
    "rows, columns, axis, what, partition",
    [
        # What adds up or compares rows is shared by columns, however few.
        (N, 4, "rows", body(reduced="sum", axis="rows"), "columns"),
        (N, 4, "rows", body(reduced="max", axis="rows"), "columns"),
        (2, 4, "rows", body(reduced="sum", axis="rows"), "columns"),
        (N, 4, "rows", body("column"), "columns"),
        # What does so along columns, or not at all, is shared by rows where there are enough.
        (N, 4, "columns", body(reduced="sum"), "rows"),
        (N, 4, "columns", body("each", "row"), "rows"),
        (N, 4, "rows", body("each"), "rows"),
        (32, 4, "columns", body("each"), "rows"),
        (31, 4, "columns", body("each"), "none"),
        (31, 4, "columns", body(reduced="sum"), "none"),
        # One number for each column, or one for all, has no thread by rows.
        (N, 4, "columns", body("each", "column"), "none"),
        (N, 4, "columns", body("one"), "none"),
        # A single row is shared by columns, if nothing is added up along it.
        (1, 2, "columns", body("each"), "columns"),
        (1, N, "columns", body("each"), "columns"),
        (1, 1, "columns", body("each"), "none"),
        (1, 64, "columns", body("each", "row"), "none"),
        (1, 64, "columns", body("each", reduced="sum"), "none"),
        (1, 64, "columns", body("each", reduced="max"), "none"),
        (2, 64, "columns", body("each"), "none"),
    ],
)
def test_loops(rows: Dim, columns: Dim, axis: Axis, what: Body, partition: Partition) -> None:
    assert loop_partition(rows, columns, axis, what, 128) == partition


@pytest.mark.parametrize("of", [Expr.sum, Expr.max])
def test_what_is_reduced_and_not_stored_keeps_a_row_together(of: Reduce) -> None:
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    b.store(x - of(x, "columns"), "y", "each")
    assert loop_partition(1, 64, "columns", b.body(), 1) == "none"
    assert loop_partition(N, 64, "columns", b.body(), 64) == "rows"
