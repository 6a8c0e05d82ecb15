"""Types that cannot be: larger than any memory, or of more dimensions than NumPy has."""

from __future__ import annotations

import pytest

import graphc as gc
from graphc.ir.tensor_type import LARGEST, N, TensorType, shape_text


@pytest.mark.parametrize("shape", [(2**60,), (N, 2**30, 2**30), (0, 2**60), (2**20,) * 3])
def test_a_value_larger_than_any_memory(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="larger than any memory"):
        TensorType(shape, "float32")


def test_a_net_says_so_at_the_line() -> None:
    net = gc.Net("n")
    with pytest.raises(gc.GraphError, match="larger than any memory"):
        net.input("x", (gc.N, 2**60))
    x = net.input("x", (gc.N, 2**40))
    with pytest.raises(gc.GraphError, match="larger than any memory"):
        gc.concat([x] * 64, 1)


def test_a_plan_larger_than_any_memory() -> None:
    net = gc.Net("n")
    net.output("y", gc.relu(net.input("x", (gc.N, 2**30))))
    with pytest.raises(gc.OutOfMemoryError, match="there is not enough memory"):
        gc.Executor(gc.compile(net, batch=2**40, backend="numpy"))


def test_scratch_larger_than_any_memory() -> None:
    net = gc.Net("n")
    x = net.input("x", (gc.N, 1, 4, 4))
    far = ((2**40, 2**40), (0, 0))
    net.output("y", gc.conv2d(x, 1, 3, padding=far, name="far"))
    plan = gc.compile(net, batch=2, backend="numpy")
    assert plan.memory.scratch > LARGEST
    with pytest.raises(gc.OutOfMemoryError, match="not enough memory for this plan"):
        gc.Executor(plan)


def test_many_dimensions() -> None:
    assert TensorType((1,) * 32, "int8").rank == 32
    with pytest.raises(ValueError, match=r"\(1, 1, 1, 1, \.\.\. 33 dimensions\) has more than 32"):
        TensorType((1,) * 33, "int8")
    assert len(shape_text((7,) * 10**6)) < 50
