"""Which memory `Loop` kernels read and write, and when; which kernels share code."""

from __future__ import annotations

import numpy as np
import pytest

from graphc.backends.native.ir import Module
from graphc.backends.native.loops import emit_loop
from graphc.ir.expr import Axis, Body, BodyBuilder, call
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.kernel import Loop, Partition
from tests.backends.native.loop_function import LoopFunction, arrays_for
from tests.backends.native.test_loops import check, kernel_of


@pytest.mark.one_in(3)
@pytest.mark.parametrize("columns", [10, 37, 100, Batch(3)])
@pytest.mark.parametrize("kind", ["momentum", "bias", "batchnorm", "batchnorm gradient"])
def test_in_place(kind: str, columns: Dim) -> None:
    function = LoopFunction(kernel_of(kind, 18, columns))
    arrays = arrays_for(function.kernel, 30)
    share = {name: name.removesuffix(".next") for name in arrays if name.endswith(".next")}
    share |= {"y": "x"} if kind == "batchnorm" else {}
    share |= {"dx": "dy"} if kind == "batchnorm gradient" else {}
    apart, shared = function(arrays, 30), function(arrays, 30, (1, 0), share)
    for name in (store.buffer for store in function.kernel.body.stores):
        assert shared[name].tobytes() == apart[name].tobytes(), name


@pytest.mark.parametrize("columns", [1, 37, 100, Batch(3)])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_stores_across_the_loops(axis: Axis, columns: Dim) -> None:
    """Numbers, and values of a column in a kernel that goes by rows, or the other way round."""
    b = BodyBuilder()
    x, count = b.load("x", "each", "float32"), b.load("count", "one", "int64")
    c, r = b.load("c", "column", "float32"), b.load("r", "row", "float32")
    b.store((x - c * r).max(axis), "largest", "row" if axis == "columns" else "column")
    b.store(call("abs", c) + 1, "by column", "column")
    b.store(r * count.cast("float32"), "by row", "row")
    b.store(count + 1, "next", "one")
    b.store(c, "spread", "each")
    partition: Partition = "rows" if axis == "columns" else "columns"
    check(LoopFunction(Loop(18, columns, axis, b.body(), partition)), 30)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("columns", [2, 17, 64, 100])
@pytest.mark.parametrize("kind", ["momentum", "softmax", "batchnorm gradient"])
def test_rows_apart(kind: str, columns: int) -> None:
    """What lies between the rows is neither used nor changed."""
    kernel = kernel_of(kind, Batch(), columns)
    arrays = arrays_for(kernel, 20)
    matrices = [name for name, array in arrays.items() if array.shape == (20, columns)]
    wide = {name: np.full((20, columns + 5), np.nan, np.float32) for name in matrices}
    for name in matrices:
        wide[name][:, :columns] = arrays[name]
    pitch = dict.fromkeys(matrices, columns + 5)
    after = LoopFunction(kernel, pitch=pitch)({**arrays, **wide}, 20)
    want = LoopFunction(kernel)(arrays, 20)
    for name in want:
        np.testing.assert_array_equal(after[name][:, : want[name].shape[1]], want[name])
    for name in matrices:
        assert np.isnan(after[name][:, columns:]).all()


@pytest.mark.parametrize("partition", ["rows", "columns", "none"])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_rows_and_columns_are_updated_once(axis: Axis, partition: Partition) -> None:
    """In place, along each axis and by each thread partition."""
    b = BodyBuilder()
    c, r, x = (b.load(n, s, "float32") for n, s in (("c", "column"), ("r", "row"), ("x", "each")))
    b.store(c * 2 + 1, "c.next", "column")
    b.store(r * 2 + 1, "r.next", "row")
    b.store(x * 2 + 1, "x.next", "each")
    share = {"c.next": "c", "r.next": "r", "x.next": "x"}
    for columns in (1, 70):
        function = LoopFunction(Loop(35, columns, axis, b.body(), partition))
        arrays = arrays_for(function.kernel)
        after = function(arrays, 1, (0, 2, 1), share)
        for name in ("c", "r", "x"):
            np.testing.assert_array_equal(after[name], arrays[name] * 2 + 1)


def test_kernels_that_differ_in_names_share_a_function() -> None:
    def body(names: str) -> Body:
        b = BodyBuilder()
        x, y, z = names
        b.store(b.load(x, "each", "float32") + b.load(y, "column", "float32"), z, "each")
        return b.body()

    module = Module()
    codes = [
        emit_loop(module, Loop(4, columns, "columns", body(names), "rows"), pitch)
        for names, columns, pitch in [
            ("xyz", 8, {}),
            ("pqr", 8, {}),
            ("xyx", 8, {}),
            ("xyz", 9, {}),
            ("xyz", 8, {"x": 16}),
        ]
    ]
    assert codes[1].buffers == ("p", "q", "r")
    assert codes[0].name == codes[1].name
    assert len({code.name for code in codes}) == len(module.functions) == 4
