"""Values, gradients, and gradients of gradients are PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.tensor_type import shape_at
from tests.extras import needs
from tests.images.cases import CASES, Case, operands, seen, waves
from tests.images.table import TABLE

ON_NATIVE = ("conv2d 2 groups", "max_pool2d", "batchnorm", "groupnorm")


def results(case: Case, backend: str) -> dict[str, Any]:
    """The value, its gradients, and gradients of the squares of these."""
    net = gc.Net("case", dtype="float64")
    arrays = operands(case)
    x = net.input("in0", (gc.N, *arrays[0].shape[1:]))
    ins = [x, *(net.parameter(f"in{i}", a.shape, a) for i, a in enumerate(arrays[1:], 1))]
    y = net.output("y", case.ours(*ins))
    cotangent = waves(shape_at(y.shape, len(arrays[0])), 0.7)
    bent = net.output("bent", gc.sum(gc.tanh(y) * net.input("c", y.shape)))
    first = [net.output(f"d{i}", gc.grad(bent, value)) for i, value in enumerate(ins)]
    squares = [gc.sum(part * part) for part in first]
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    net.loss("total", total)
    plan = gc.compile(net, batch=4, backend=backend, wrt=[value.name for value in ins])
    ex = gc.Executor(plan)
    found = ex.forward({"in0": arrays[0], "c": cotangent}, train=True)
    found |= {f"dd{name.removeprefix('in')}": v for name, v in ex.backward().items()}
    return found


def assert_same(found: dict[str, Any], wanted: dict[str, tuple[float, float]]) -> None:
    for name, sums in wanted.items():
        np.testing.assert_allclose(seen(found[name]), sums, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", CASES)
def test_on_numpy(name: str) -> None:
    assert_same(results(CASES[name], "numpy"), TABLE[name])


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ON_NATIVE)
def test_on_native(name: str) -> None:
    assert_same(results(CASES[name], "native"), TABLE[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in ON_NATIVE])
def test_all_on_native(name: str) -> None:
    assert_same(results(CASES[name], "native"), TABLE[name])


@pytest.mark.parametrize("name", CASES)
def test_by_torch_itself(name: str) -> None:
    needs("torch")
    from tests.images import by_torch

    found, wanted = results(CASES[name], "numpy"), by_torch.results(name, CASES[name])
    for key, value in wanted.items():
        assert found[key].shape == value.shape, key
        np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-9, err_msg=key)
