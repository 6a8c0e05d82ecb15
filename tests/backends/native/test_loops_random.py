"""Random bodies of whole numbers, where native code and the interpreter must agree exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.expr import Axis, Body, BodyBuilder, Broadcast, Expr, call, select
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.kernel import Loop, Partition
from tests.backends.native.loop_function import LoopFunction, arrays_for, expected

KINDS: tuple[Broadcast, ...] = ("each", "row", "column", "one")
COLUMNS: tuple[Dim, ...] = (1, 2, 10, 16, 37, 64, 65, 100, 200, Batch(), Batch(3))
ROWS: tuple[Dim, ...] = (1, 2, 17, 40, Batch(), Batch(2))


@dataclass(frozen=True)
class Made:
    """A kernel, the rows of its batch, and the order in which threads run."""

    kernel: Loop
    n: int
    order: tuple[int, ...]


@st.composite
def bodies(draw: st.DrawFn, axis: Axis) -> tuple[Body, bool]:
    """A body, and whether it reduces."""
    b = BodyBuilder()
    values = [b.load(f"x {broadcast}", broadcast, "int64") for broadcast in KINDS]
    values += [b.index("rows"), b.index("columns"), b.size("rows", "int64")]
    for _ in range(draw(st.integers(1, 12))):
        values.append(_step(draw, values, axis))
    chosen = draw(st.lists(st.sampled_from(values[-6:]), min_size=1, max_size=4, unique_by=id))
    for i, value in enumerate(chosen):
        broadcast = draw(st.sampled_from([s for s in KINDS if s in ("each", value.broadcast)]))
        b.store(value, f"out {i}", broadcast)
    body = b.body()
    return body, any(step.op in ("sum", "max") for step in body.steps)


def _step(draw: st.DrawFn, values: list[Expr], axis: Axis) -> Expr:
    a, b, c = (draw(st.sampled_from(values)) for _ in range(3))
    match draw(st.sampled_from(("add", "sub", "mul", "maximum", "select", "sum", "max", "mixed"))):
        case "select":
            return select(a < b, b, c)
        case "sum":
            return a.sum(axis)
        case "max":
            return a.max(axis)
        case "mixed":
            return a + values[0] * 3
        case function:
            return call(function, a, b)


@st.composite
def kernels(draw: st.DrawFn) -> Made:
    axis: Axis = draw(st.sampled_from(("rows", "columns")))
    body, reduces = draw(bodies(axis))
    free: Partition = "rows" if axis == "columns" else "columns"
    splits: tuple[Partition, ...] = ("none", free) if reduces else ("none", "rows", "columns")
    rows, columns = draw(st.sampled_from(ROWS)), draw(st.sampled_from(COLUMNS))
    order = draw(st.permutations(range(draw(st.integers(1, 4)))))
    kernel = Loop(rows, columns, axis, body, draw(st.sampled_from(splits)))
    return Made(kernel, draw(st.integers(1, 70)), tuple(order))


@settings(max_examples=25, deadline=None)
@given(kernels(), st.integers(0, 1000))
def test_native_equals_the_interpreter(made: Made, seed: int) -> None:
    arrays = arrays_for(made.kernel, made.n, seed)
    got = LoopFunction(made.kernel)(arrays, made.n, made.order)
    for name, want in expected(made.kernel, arrays, made.n).items():
        np.testing.assert_array_equal(got[name], want, err_msg=name)
