"""NaN that products of int8 would lose: which ops make them of finite numbers."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Op
from graphc.ir.tensor_type import shape_at
from passes.lost_nan import PARTIAL
from tests.ops.example import Example
from tests.ops.examples import EXAMPLES

NUMBERS = [0.0, -0.0, -1.0, -3.0, 1.0, 2.0, 0.5, 200.0, -200.0]
OF_STATISTICS = ("normalize", "normalize_dx", "normalize_dgamma")
"""The root of a variance, which is not negative."""


def makes_others(example: Example) -> bool:
    """Whether the op makes a number that is not finite of some that are."""
    rng, found = np.random.default_rng(0), []
    for _ in range(6):
        ins = [rng.choice(NUMBERS, shape_at(t.shape, 3)).astype(t.dtype) for t in example.types]
        with np.errstate(all="ignore"):
            found.append(np.asarray(example.concrete(3).reference(ins)))
    return any(y.dtype.kind == "f" and not np.isfinite(y).all() for y in found)


def is_computed(example: Example) -> bool:
    """Whether it computes floats of floats, and is no layer, which is lowered before."""
    floats = all(t.dtype in ("float32", "float64") for t in example.types)
    layer = type(example.op).reference is Op.reference
    return bool(floats and example.types and not layer and example.op.name not in OF_STATISTICS)


def test_every_op_that_makes_nan_or_infinity_is_known() -> None:
    assert {type(e.op) for e in EXAMPLES if is_computed(e) and makes_others(e)} == {*PARTIAL}


BETWEEN = {
    "sqrt": gc.sqrt,
    "acos": lambda h: gc.acos(1 - 2 * h),
    "log1p": lambda h: gc.log1p(2 * h),
    "mod": lambda h: gc.mod(h, gc.relu(h)),
}
"""Functions that are finite of positive numbers alone."""


@pytest.mark.parametrize("name", BETWEEN)
def test_a_row_outside_the_domain_of_a_function_is_nan(name: str) -> None:
    net = gc.Net("net")
    h = gc.affine(net.input("x", (gc.N, 1)), weight=net.constant(np.ones((1, 3), "float32")))
    net.output("y", gc.affine(BETWEEN[name](h), 2))
    ex = gc.Executor(gc.compile(net, batch=4, backend="numpy"), seed=0)
    small = gc.quantize(ex, np.linspace(0.1, 0.9, 9)[:, None])
    found = small.predict(np.array([[0.5], [-4.0], [0.2]]))
    assert np.isnan(found[1]).all()
    assert np.isfinite(found[[0, 2]]).all()
