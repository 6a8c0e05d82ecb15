"""Moves and pools as kernels that fetch elements, interpreted; and what has no such kernel."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest

import graphc as gc
from graphc.ir.access import AxisMap, dense_maps
from graphc.ir.forms import MOST
from graphc.ir.op import Op
from graphc.ir.tensor_type import N, TensorType
from graphc.kernels.interpret import run
from graphc.kernels.text import kernel_text
from graphc.ops.gather import Gather
from graphc.ops.pad import Pad
from graphc.ops.pool import MaxPool, SumPool
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Slice, SliceGrad
from tests.ops.example import Example
from tests.ops.gathers import BY_OP, gather_loop, operands
from tests.ops.test_contract import close


@pytest.mark.parametrize("examples", BY_OP.values(), ids=BY_OP)
def test_fetched_elements_equal_the_reference(examples: list[Example]) -> None:
    for example in examples:
        for n in (1, 4):
            arrays = operands(example, n)
            run(gather_loop(example), arrays, n)
            wanted = example.concrete(n).reference(example.operands(n))
            same = np.array_equal(arrays["out"], wanted)
            assert same or close(arrays["out"], np.asarray(wanted)), str(example)


def small_moves() -> Iterator[Example]:
    """Every part, padding and place of values whose dimensions are 1, 2 and 3 long."""
    for sizes in product((1, 2, 3), repeat=2):
        x = TensorType((N, *sizes), "float32")
        broadcasts = [
            [(a, b, step) for a in range(d) for b in range(a + 1, d + 1) for step in (1, 2)]
            + [(a, b, -1) for a in range(d) for b in range(-1, a)]
            for d in sizes
        ]
        for spans_of_all in product(*broadcasts):
            cuts = tuple((axis, *broadcast) for axis, broadcast in enumerate(spans_of_all, 1))
            yield Example(Slice(cuts), (x,))
            yield Example(SliceGrad(x.shape, cuts), (Slice(cuts).infer([x]),))
        for pads in product(((0, 0), (1, 0), (0, 2)), repeat=2):
            yield Example(Pad(((0, 0), *pads)), (x,))


@pytest.mark.slow
def test_small_moves_equal_the_reference() -> None:
    """A dimension of length 1 may be read from another place than its first."""
    count = 0
    for example in small_moves():
        op, result = example.op, example.op.infer(example.types)
        if op.gather(example.types, result) is None:
            continue
        arrays = operands(example, 2)
        run(gather_loop(example), arrays, 2)
        wanted = example.concrete(2).reference(example.operands(2))
        assert np.array_equal(arrays["out"], wanted), str(example)
        count += 1
    assert count > 1000


def test_rows_by_indices_as_text() -> None:
    """What is held within bounds is the index, not the row."""
    x, indices = TensorType((5, 2, 3), "float32"), TensorType((N, 4), "int32")
    assert kernel_text(gather_loop(Example(Gather(), (x, indices)))) == (
        "loop 4*N x 6  float32 partition=none\n"
        "  out = in0[minimum(maximum(int64(in1[i]), 0), 4), p1]\n"
    )


def test_which_rows_by_indices_stay_a_call() -> None:
    """Another axis than the first, and a table with the batch."""

    def reads(axis: int, *shape: object) -> bool:
        x = TensorType(shape, "float32")  # type: ignore[arg-type]
        ins = [x, TensorType((4,), "int64")]
        return Gather(axis).gather(ins, Gather(axis).infer(ins)) is not None

    assert reads(0, 5, 3) and reads(-2, 5, 3) and reads(0, 5)
    assert not reads(1, 5, 3) and not reads(0, 5, N)


def reads(op: Op, *shape: object) -> bool:
    x = TensorType(shape, "float32")  # type: ignore[arg-type]
    return op.gather([x], op.infer([x])) is not None


def test_what_stays_a_call() -> None:
    """The batch elsewhere than in front, rows that are torn apart, which are copied by squares,
    cuts of the batch, and windows that are much text."""
    assert reads(Transpose((0, 2, 1, 3)), N, 3, 4, 5)
    assert not reads(Transpose((0, 2, 1)), N, 3, 4)
    assert not reads(Transpose((1, 0, 2)), N, 3, 4)
    assert reads(Slice(((1, 1, 3, 1),)), N, 4, 2)
    assert not reads(Slice(((0, 0, N, 1),)), N, 4)
    side = int(MOST**0.5)
    assert reads(SumPool((side, side), (1, 1), (1, 1)), N, 9, 9, 2)
    assert not reads(MaxPool((side + 1, side), (1, 1), (1, 1)), N, 9, 9, 2)


@pytest.mark.parametrize(
    ("axis_map", "count", "inside"),
    [
        (AxisMap(1, 5), 5, True),
        (AxisMap(1, 5), 6, False),
        (AxisMap(1, 5, shift=-1), 5, False),
        (AxisMap(1, 5, scale=2, shift=1), 2, True),
        (AxisMap(1, 5, scale=2, shift=1), 3, False),
        (AxisMap(1, 5, divisor=2), 5, False),
        (AxisMap(1, 5, divisor=2, floor=True), 10, True),
        (AxisMap(1, 5, divisor=2, floor=True), 11, False),
        (AxisMap(1, 5, scale=-1, shift=4), 5, True),
        (AxisMap(1, 5, scale=-1, shift=4), 6, False),
        (AxisMap(1, 5, scale=-1, shift=5), 5, False),
        (AxisMap(1, N), N, True),
        (AxisMap(1, N), 2 * N, False),
    ],
)
def test_a_walk_knows_whether_it_stays_inside(axis_map: AxisMap, count: int, inside: bool) -> None:
    assert axis_map.is_inside(count) is inside
    if isinstance(axis_map.size, int):
        at = [(i * axis_map.scale + axis_map.shift) / axis_map.divisor for i in range(count)]
        at = [float(int(x)) if axis_map.floor else x for x in at]
        assert all(x.is_integer() and 0 <= x < axis_map.size for x in at) is inside


def test_dimensions_that_are_one_in_memory_are_walked_as_one() -> None:
    found = Transpose((0, 2, 3, 1, 4)).gather([TensorType((N, 3, 4, 5, 6), "float32")],
                      TensorType((N, 4, 5, 3, 6), "float32"))  # fmt: skip
    assert found is not None
    assert found.shape == (N, 20, 3, 6)
    assert [axis_map.pitch for axis_map in dense_maps((N, 4, 5))] == [20, 5, 1]


def test_a_sum_of_all_is_not_among_places() -> None:
    """Of a single number, too, which is as large as what is fetched."""
    net = gc.Net("one")
    w = net.parameter("w", (1, 1, 1))
    moved = gc.transpose(w, (2, 1, 0), name="moved")
    net.output("norm", gc.sum(moved * moved, name="norm"))
    ex = gc.Executor(gc.compile(net, batch=1, backend="native"), seed=0)
    assert float(ex.forward()["norm"]) == float(ex.parameters["w"][0, 0, 0] ** 2)


def test_one_element_that_a_kernel_makes_itself_is_not_fetched() -> None:
    net = gc.Net("net")
    p = net.parameter("p", (1,), init=0.5)
    net.loss("loss", gc.sum(p[0]))
    kept = gc.passes.without("fold_constants")
    ex = gc.Executor(gc.compile(net, batch=1, optimizer=gc.SGD(0.25), passes=kept))
    ex.step()
    np.testing.assert_array_equal(ex.parameters["p"], [0.25])
