"""The kernels of optimizer steps against the ops' reference rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphc.ir.tensor_type import TensorType
from graphc.ops import moments
from graphc.ops import optim as ops
from tests.ops.harness import Bound
from tests.together import together

Array = Any

UPDATES = [
    ops.Momentum(0.9),
    ops.SgdStep(),
    ops.NesterovStep(0.9),
    moments.AdamMean(0.8),
    moments.AdamSquare(0.95),
    moments.AdamStep(0.8, 0.95, 1e-3),
    ops.Average(0.9),
    ops.Cleared(),
]
CASES = [(op, decays) for op in UPDATES for decays in ((False, True) if op.optional else (False,))]


def operands_of(op: ops.UpdateOp, decays: bool, shape: tuple[int, ...], dtype: str) -> list[Array]:
    rng = np.random.default_rng(len(shape))
    arrays: list[Array] = []
    for i, role in enumerate(op.roles if decays else op.roles[: len(op.roles) - op.optional]):
        value = rng.uniform(0.1, 1.0, shape if i < op.arrays else ())
        count = role in ("updates", "averages")
        arrays.append(np.asarray(3) if count else np.asarray(value, dtype))
    return arrays


def types_of(arrays: list[Array]) -> list[TensorType]:
    return [TensorType(array.shape, array.dtype.name) for array in arrays]


@together("op, decays", CASES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4), (65_541,), (0, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kernels_equal_their_reference(
    op: ops.UpdateOp, decays: bool, shape: tuple[int, ...], dtype: str
) -> None:
    types = types_of(operands_of(op, decays, shape, dtype))
    assert op.infer(types) == TensorType(shape, dtype)
    for in_place in (False, True):
        ins = operands_of(op, decays, shape, dtype)
        expected = op.reference(ins)
        bound = Bound(op, types, 1, onto=0 if in_place else None)
        assert np.shares_memory(bound.out, bound.ins[0]) == (in_place and bound.out.size > 0)
        found = bound.run(ins)
        assert found.dtype == expected.dtype == np.dtype(dtype)
        few = 8 * float(np.finfo(dtype).eps)  # the numbers themselves are about 1
        np.testing.assert_allclose(found, expected, rtol=few, atol=few)
        for after, before in zip(bound.ins[in_place:], ins[in_place:], strict=True):
            np.testing.assert_array_equal(after, before)


@given(st.integers(1, 300), st.sampled_from(["float32", "float64"]))
@settings(max_examples=20, deadline=None)
def test_square_sum_kernel(size: int, dtype: str) -> None:
    g = np.random.default_rng(size).standard_normal(size).astype(dtype)
    bound = Bound(ops.SquareSum(), types_of([g]), 1)
    for factor in (1, 2):  # nothing is left from the run before
        found = bound.run([factor * g])
        wanted = np.sum((factor * g.astype("float64")) ** 2)
        np.testing.assert_allclose(found, wanted, rtol=1e-13)


def test_kernels_read_scalars_at_every_run() -> None:
    p, g, rate = np.zeros(3), np.ones(3), np.asarray(1.0)
    bound = Bound(ops.SgdStep(), types_of([p, g, rate]), 1, onto=0)
    for mine, start in zip(bound.ins, (p, g, rate), strict=True):
        mine[...] = start
    for value in (1.0, 0.25):
        bound.ins[2][...] = value
        for call in bound.calls:
            call()
    np.testing.assert_array_equal(bound.ins[0], -1.25)
