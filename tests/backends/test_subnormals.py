"""Subnormal numbers are numbers like others on every backend."""

from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.backends.backend import BACKENDS
from tests.extras import needs

ROWS, COLUMNS = 3, 40


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if name == "c" else name for name in BACKENDS],
)
def test_nothing_is_flushed_to_zero(name: str, dtype: str) -> None:
    needs(name)
    smallest = np.finfo(dtype).smallest_subnormal
    net = gc.Net("small", dtype=dtype)
    x = net.input("x", (gc.N, COLUMNS))
    net.output("half", x * 0.5)
    net.output("product", x @ net.constant(np.eye(COLUMNS, dtype=dtype)))
    net.output("columns", gc.sum(x, axis=1))
    net.output("rows", gc.sum(x, axis=0))
    counts = 2 * np.arange(1, ROWS * COLUMNS + 1).reshape(ROWS, COLUMNS)
    fed = (counts * smallest).astype(dtype)
    found = gc.Executor(gc.compile(net, batch=ROWS, backend=name)).forward(x=fed)
    expected = {
        "half": counts // 2,
        "product": counts,
        "columns": counts.sum(axis=1),
        "rows": counts.sum(axis=0),
    }
    for output, whole in expected.items():
        np.testing.assert_array_equal(found[output], (whole * smallest).astype(dtype))
        assert found[output].all()
