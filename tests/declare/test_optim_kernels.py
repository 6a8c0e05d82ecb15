"""The kernels of optimizer steps against the ops' reference rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.backends.numpy import KERNELS
from graphc.ir.op import Op
from graphc.ir.tensor_type import TensorType
from graphc.ops import optim as ops

Array = Any

UPDATES = [
    ops.Momentum(0.9),
    ops.Momentum(0.9, 0.1),
    ops.SgdStep(),
    ops.SgdStep(0.1),
    ops.NesterovStep(0.9),
    ops.NesterovStep(0.9, 0.1),
    ops.AdamMean(0.8),
    ops.AdamMean(0.8, 0.1),
    ops.AdamSquare(0.95),
    ops.AdamSquare(0.95, 0.1),
    ops.AdamStep(0.8, 0.95, 1e-3),
    ops.AdamStep(0.8, 0.95, 1e-3, 0.1),
    ops.Average(0.9),
    ops.Cleared(),
]


def operands_of(op: ops.UpdateOp, shape: tuple[int, ...], dtype: str) -> list[Array]:
    rng = np.random.default_rng(len(shape))
    arrays: list[Array] = []
    for i, role in enumerate(op.roles[: op.operands]):
        value = rng.uniform(0.1, 1.0, shape if i < op.arrays else ())
        count = role in ("updates", "averages")
        arrays.append(np.asarray(3) if count else np.asarray(value, dtype))
    return arrays


class Scratch:
    """The part of an Emitter that gives out scratch arrays."""

    def __init__(self, out: TensorType) -> None:
        self.out = out
        self.arrays: list[Array] = []

    def type(self, name: str) -> TensorType:
        return self.out

    def scratch(self, type: TensorType) -> str:
        self.arrays.append(np.full(type.shape, np.nan, type.dtype))
        return ""

    def call(self, *ignored: object) -> None:
        pass


def kernel_result(op: Op, ins: list[Array], in_place: bool) -> Array:
    out = ins[0] if in_place else np.full_like(ins[0], np.nan)
    needed = Scratch(TensorType(out.shape, out.dtype.name))
    op.lower(needed, ["" for _ in ins], "")  # type: ignore[arg-type]
    for call in KERNELS[op.name](op, ins, out, needed.arrays):
        call()
    return out


@pytest.mark.parametrize("op", UPDATES, ids=repr)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (2 * ops.CHUNK + 5,), (0, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_equal_their_reference(
    op: ops.UpdateOp, shape: tuple[int, ...], dtype: str
) -> None:
    types = [TensorType(a.shape, a.dtype.name) for a in operands_of(op, shape, dtype)]
    assert op.infer(types) == TensorType(shape, dtype)
    for in_place in (False, True):
        ins = operands_of(op, shape, dtype)
        expected = op.reference(ins)
        untouched = [array.copy() for array in ins[1:]]
        found = kernel_result(op, ins, in_place)
        assert found.dtype == expected.dtype == np.dtype(dtype)
        few = 8 * float(np.finfo(dtype).eps)  # the numbers themselves are about 1
        np.testing.assert_allclose(found, expected, rtol=few, atol=few)
        for after, before in zip(ins[1:], untouched, strict=True):
            np.testing.assert_array_equal(after, before)


@given(st.integers(1, 300), st.sampled_from(["float32", "float64"]))
@settings(max_examples=20, deadline=None)
def test_square_sum_kernel(size: int, dtype: str) -> None:
    g = np.random.default_rng(size).standard_normal(size).astype(dtype)
    out, scratch = np.zeros(()), [np.empty(()), np.empty(min(size, 128))]
    for call in KERNELS["square_sum"](ops.SquareSum(), [g], out, scratch):
        call()
    np.testing.assert_allclose(out, np.sum(g.astype("float64") ** 2), rtol=1e-13)


def test_kernels_read_scalars_at_every_run() -> None:
    p, g, rate = np.zeros(3), np.ones(3), np.asarray(1.0)
    calls = KERNELS["sgd_step"](ops.SgdStep(), [p, g, rate], p, [np.empty(3)])
    for value in (1.0, 0.25):
        rate[...] = value
        for call in calls:
            call()
    np.testing.assert_array_equal(p, -1.25)
