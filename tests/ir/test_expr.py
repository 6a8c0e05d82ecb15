"""Expressions: equal steps are one, dtypes and broadcasts follow from the operands."""

from __future__ import annotations

import pytest

from graphc.ir.expr import BodyBuilder, Broadcast, Step, Store, call, join, philox, select
from graphc.ir.tensor_type import N


def test_equal_steps_become_one() -> None:
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    assert (x * x + 1).number == (b.load("x", "each", "float32") * x + 1.0).number
    assert [step.op for step in b.steps] == ["load", "mul", "const", "add"]
    assert (x + 1).number != (x + 2).number
    assert b.load("x", "row", "float32").number != x.number


def test_numbers_take_the_dtype_of_the_value_beside_them() -> None:
    b = BodyBuilder()
    whole, real = b.load("n", "one", "int64"), b.load("x", "each", "float64")
    for value, wanted in ((whole + 1, 1), (1 - whole, 1), (real / 2, 2.0), (2 * real, 2.0)):
        constant = next(b.steps[a] for a in value.step.args if b.steps[a].op == "const")
        assert (constant.value, type(constant.value)) == (wanted, type(wanted))
        assert constant.dtype == value.dtype


def test_operators_are_functions() -> None:
    b = BodyBuilder()
    x, y = b.load("x", "each", "float32"), b.load("y", "each", "float32")
    values = [x + y, x - y, x * y, x / y, -x, x < y, x <= y, x > y, x >= y, x.equals(y)]
    functions = [value.step.op for value in values]
    arithmetic = ["add", "sub", "mul", "div", "neg"]
    assert functions == [*arithmetic, "less", "less_equal", "greater", "greater_equal", "equal"]
    assert [value.dtype for value in values] == ["float32"] * 5 + ["bool"] * 5


def test_select_has_the_dtype_of_its_choices() -> None:
    b = BodyBuilder()
    x, n = b.load("x", "each", "float32"), b.load("n", "row", "int64")
    assert select(n > 0, x, 0).dtype == "float32"
    assert select(x > 0, 1, n).dtype == "int64"
    assert select(n > 0, x, 0).broadcast == "each"


def test_cast_to_the_own_dtype_is_no_step() -> None:
    b = BodyBuilder()
    x = b.load("x", "column", "float32")
    assert x.cast("float32") is x
    assert (x.cast("float64").dtype, x.cast("float64").broadcast) == ("float64", "column")


@pytest.mark.parametrize(
    ("broadcasts", "wanted"),
    [
        (("one", "one"), "one"),
        (("row", "one"), "row"),
        (("column", "column"), "column"),
        (("row", "column"), "each"),
        (("each", "row"), "each"),
    ],
)
def test_broadcast_kind_of_a_value_that_depends_on_two(
    broadcasts: tuple[Broadcast, Broadcast], wanted: Broadcast
) -> None:
    assert join(*broadcasts) == wanted


def test_reductions_leave_the_other_index() -> None:
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    assert (x.sum("columns").broadcast, x.sum("rows").broadcast) == ("row", "column")
    assert x.max("columns").step == Step("max", (x.number,), "row", "float32", value="columns")
    mean = x.mean("rows")
    assert b.steps[mean.step.args[1]] == Step("size", (), "one", "float32", value="rows")


def test_leaves() -> None:
    b = BodyBuilder()
    assert (b.index("rows").broadcast, b.index("columns").broadcast) == ("row", "column")
    assert b.product("float32").step == Step("product", (), "each", "float32")
    assert b.dim(7, "float32").step == Step("const", (), "one", "float32", value=7.0)
    assert b.dim(3 * N, "float32").step == Step("size", (), "one", "float32", value=3 * N)
    word = philox(b.load("seed", "one", "uint64"), b.load("draws", "one", "int64"), 9)
    assert (word.dtype, word.broadcast, word.step.value) == ("uint32", "each", 9)
    assert call("maximum", word, 0).dtype == "uint32"


def test_a_body_keeps_only_what_its_stores_need() -> None:
    b = BodyBuilder()
    x = b.load("x", "each", "float32")
    b.load("unused", "each", "float32")
    kept = x + x
    x.sum("rows")
    b.store(kept, "out", "each")
    body = b.body()
    assert body.steps == (x.step, Step("add", (0, 0), "each", "float32"))
    assert body.stores == (Store("out", 1, "each"),)
    assert (body.loads, body.written) == (("x",), ("out",))
