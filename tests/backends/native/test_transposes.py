"""Values with their axes in another order, as generated code."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.tensor_type import shape_at
from graphc.kernels.interpret import run
from graphc.kernels.kernel import Loop

SHAPES = ((gc.N, 16, 24), (gc.N, 3, 7, 9), (2, 3, gc.N, 17), (gc.N, 1, 33, 2), (gc.N, 20, 1, 1))


@pytest.mark.one_in(5)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_order(shape: tuple[int, ...], dtype: str) -> None:
    """Whole squares and parts of them, rows in one piece, axes of one element; nothing is left to
    NumPy.  Interpreted kernels give the same."""
    net = gc.Net("transposed")
    x = net.input("x", shape, dtype=dtype)
    orders = list(permutations(range(len(shape))))[1:]
    for i, axes in enumerate(orders):
        net.output(str(i), gc.transpose(x, axes, name=f"transposed{i}"))
    plan = gc.compile(net, batch=19, backend="native", threads=2)
    assert plan.verify().ok
    instrs = [i for i in plan.programs["infer"].instrs if i.kind != "barrier"]
    assert {instr.kind for instr in instrs} == {"kernel"}
    ex = gc.Executor(plan)
    rng = np.random.default_rng(0)
    for n in (19, 1, 8):
        fed = (100 * rng.normal(size=shape_at(shape, n))).astype(dtype)
        found = ex.forward(x=fed)
        for i, axes in enumerate(orders):
            assert np.array_equal(found[str(i)], fed.transpose(axes)), axes
    for instr in instrs:
        assert isinstance(instr.body, Loop)
        axes = orders[int(instr.node.removeprefix("transposed"))]
        arrays = {"x": fed, instr.node: np.empty(fed.transpose(axes).shape, dtype)}
        run(instr.body, arrays, 8)
        assert np.array_equal(arrays[instr.node], fed.transpose(axes))


@pytest.mark.parametrize("dtype", ["int16", "uint16"])
def test_numbers_of_two_bytes(dtype: str) -> None:
    """A whole square of each, and what is left of it."""
    net = gc.Net("transposed")
    x = net.input("x", (gc.N, 11, 9), dtype=dtype)
    net.output("y", gc.transpose(x, (0, 2, 1)))
    fed = np.arange(3 * 11 * 9).reshape(3, 11, 9).astype(dtype) * 331
    found = gc.Executor(gc.compile(net, batch=3, backend="native")).forward(x=fed)["y"]
    assert np.array_equal(found, fed.transpose(0, 2, 1))
