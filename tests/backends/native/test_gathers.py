"""Moves and pools in generated code: as their reference says, for any threads, between guards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from graphc.ir.access import AccessMap, AxisMap
from graphc.ir.expr import BodyBuilder, Expr, select
from graphc.ir.forms import places_of
from graphc.kernels.kernel import Loop
from tests.backends.native.compiled_function import TARGETS
from tests.backends.native.loop_function import LoopFunction, expected
from tests.ops.example import Example
from tests.ops.gathers import BY_OP, GATHERS, gather_loop, operands
from tests.ops.test_contract import close


@pytest.mark.one_in(3)
@pytest.mark.parametrize("examples", BY_OP.values(), ids=BY_OP)
def test_generated_code_equals_the_reference(examples: list[Example]) -> None:
    check_each(examples[-2:])


@pytest.mark.slow
@pytest.mark.parametrize("examples", BY_OP.values(), ids=BY_OP)
def test_all_examples(examples: list[Example]) -> None:
    for start in range(len(TARGETS)):
        check_each(examples, start)


def check_each(examples: list[Example], start: int = 1) -> None:
    """Each for another processor, beginning with one of them."""
    for i, example in enumerate(examples, start):
        function = LoopFunction(gather_loop(example, "rows"), TARGETS[i % len(TARGETS)])
        for n in (1, 5):
            arrays = operands(example, n)
            found = function(arrays, n, threads=(1, 0))["out"]
            wanted = example.concrete(n).reference(example.operands(n))
            same = np.array_equal(found, wanted)
            assert same or close(found, np.asarray(wanted)), f"{example} of {n}"


@pytest.mark.parametrize("partition", ["rows", "columns", "none"])
def test_threads_share_places(partition: str) -> None:
    """More threads than there are chunks; each element is one thread's."""
    example = GATHERS[-1]
    loop = replace(gather_loop(example), partition=partition)
    arrays = operands(example, 4)
    found = [LoopFunction(loop)(arrays, 4, threads=order) for order in ((0,), (2, 0, 1), range(9))]
    assert len({result["out"].tobytes() for result in found}) == 1
    assert close(found[0]["out"], np.asarray(example.concrete(4).reference(example.operands(4))))


@pytest.mark.parametrize("columns", [5, 23])
def test_what_is_fetched_joins_what_lies_there(columns: int) -> None:
    """A result in the place of an operand, short rows and long ones; columns out of bounds, too."""
    shape = (4, 7, 5, columns)
    b = BodyBuilder()
    axis_maps = (
        AxisMap(35 * columns, 4),
        AxisMap(5 * columns, 7, shift=-1),
        AxisMap(columns, 5, scale=2, shift=-3, divisor=2),
        AxisMap(1, columns, shift=1),
    )
    far = b.fetch("x", AccessMap(axis_maps, 0.25), "float32")
    near = b.load("y", "each", "float32")
    hit = b.offset((3, 2)).equals(4)
    b.store(select(hit, near - far, near + far), "z", "each")
    loop = Loop(140, columns, "columns", b.body(), "rows", places_of(shape))
    rng = np.random.default_rng(columns)
    arrays = {name: rng.standard_normal(shape).astype("float32") for name in "xyz"}
    for target in TARGETS:
        found = LoopFunction(loop, target)(arrays, threads=(1, 0), share={"z": "y"})
        np.testing.assert_array_equal(found["z"], expected(loop, arrays)["z"])


def test_rows_of_one_table_by_several_indices() -> None:
    """In one kernel; each index, and each start within a row, reads rows of its own."""
    columns = 19
    b = BodyBuilder()

    def row(index: str, shift: int) -> Expr:
        at = AccessMap((AxisMap(columns, 6), AxisMap(1, columns, shift=shift)), given=True)
        return b.fetch("table", at, "float32", b.load(index, "row", "int64"))

    b.store(row("i", 0) + row("j", 0) * 2.0 + row("j", 1) * 3.0, "out", "each")
    loop = Loop(5, columns, "columns", b.body(), "rows", places_of((5, columns)))
    table = np.arange(6.0 * columns, dtype="float32").reshape(6, columns)
    i, j = np.array([5, 0, 1, 4, 2]), np.array([0, 3, 3, 5, 1])
    arrays = {"table": table, "i": i, "j": j, "out": np.zeros((5, columns), "float32")}
    after = np.pad(table[:, 1:], ((0, 0), (0, 1)))
    wanted = table[i] + 2 * table[j] + 3 * after[j]
    np.testing.assert_array_equal(LoopFunction(loop)(arrays, threads=(1, 0))["out"], wanted)
