"""A dimension of 0 holds no numbers: what is summed over it is 0, multiplied over it 1."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import graphc as gc
from graphc.base.errors import GraphError
from graphc.ir.op import Array

Case = tuple[tuple[int, ...], Callable[[gc.Value], gc.Value], Callable[[Array], Array]]

CASES: dict[str, Case] = {
    "sum of no rows": ((0, 3), lambda x: gc.sum(x, 0), lambda x: x.sum(0)),
    "sum of no columns": ((3, 0), lambda x: gc.sum(x, 1), lambda x: x.sum(1)),
    "sum of all": ((0, 3), gc.sum, np.sum),
    "product of no columns": ((3, 0), lambda x: gc.prod(x, 1), lambda x: x.prod(1)),
    "product of all": ((0, 3), gc.prod, np.prod),
    "no rows times a matrix": (
        (2, 0, 3),
        lambda x: gc.matmul(x, _ones(x, (3, 2))),
        lambda x: x @ np.ones((3, 2)),
    ),
    "nothing rolled": ((0, 2), lambda x: gc.roll(x, 1, 0), lambda x: x),
    "nothing padded": (
        (0, 3),
        lambda x: gc.pad(x, (0, (1, 1)), mode="reflect"),
        lambda x: np.pad(x, ((0, 0), (1, 1))),
    ),
    "layernorm of no rows": ((0, 3), gc.layernorm, lambda x: x),
    "affine of no images": (
        (0, 2, 3, 3),
        lambda x: gc.affine(x, 5),
        lambda x: np.zeros((0, 5)),
    ),
    "groupnorm of no images": ((0, 4, 3, 3), lambda x: gc.groupnorm(x, 2), lambda x: x),
    "convolution of no images": (
        (0, 2, 3, 3),
        lambda x: gc.conv2d(x, 4, 2, groups=2),
        lambda x: np.zeros((0, 4, 2, 2)),
    ),
    "convolution of images without lines": (
        (2, 3, 0, 5),
        lambda x: gc.conv2d(x, 4, (1, 3), padding=1),
        lambda x: np.zeros((2, 4, 2, 5)),
    ),
    "depthwise convolution of images without lines": (
        (2, 4, 0, 3),
        lambda x: gc.conv2d(x, 4, 1, padding=(1, 0), groups=4),
        lambda x: np.zeros((2, 4, 2, 3)),
    ),
    "product without terms": (
        (2, 0),
        lambda x: gc.matmul(x, _ones(x, (0, 3))),
        lambda x: np.zeros((2, 3)),
    ),
    "product without columns": (
        (2, 3),
        lambda x: gc.matmul(x, gc.broadcast_to(gc.sum(x), (3, 0))),
        lambda x: np.zeros((2, 0)),
    ),
    "columns repeated": ((3, 0), lambda x: gc.repeat(x, 2, 0), lambda x: np.zeros((6, 0))),
    "softmax of no rows": ((0, 3), gc.softmax, lambda x: x),
    "norm of no columns": ((3, 0), lambda x: gc.l2_norm(x, 1), lambda x: np.zeros(3)),
    "no rows flipped": ((0, 2), gc.flip, lambda x: x),
    "halves of no rows": ((0, 4), lambda x: x[:, 2:] * x[:, :2], lambda x: x[:, 2:]),
    "nothing flipped": ((3, 0), lambda x: gc.flip(x, 1), lambda x: x),
}


def _ones(x: gc.Value, shape: tuple[int, ...]) -> gc.Value:
    return gc.broadcast_to(gc.sum(x) + 1.0, shape)


@pytest.mark.parametrize(
    "function", [gc.max, gc.min, gc.argmax, gc.argmin, gc.softmax, gc.log_softmax, gc.logsumexp]
)
def test_nothing_has_no_largest(function: Callable[[gc.Value], gc.Value]) -> None:
    x = gc.Net("empty").input("x", (3, 0))
    with pytest.raises(GraphError, match=r"axis 1 of \(3, 0\) has no entries"):
        function(x)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients(case: str, backend: str) -> None:
    shape, ours, numpys = CASES[case]
    net = gc.Net("empty", dtype="float64")
    x = net.input("x", shape)
    y = net.output("y", ours(x))
    net.output("dx", gc.grad(gc.sum(y), x))
    net.loss("loss", net.parameter("trained", (), 0.0))
    plan = gc.compile(net, batch=1, backend=backend)
    proof = plan.verify()
    assert proof.ok, proof.counterexample
    found = gc.Executor(plan).forward(x=np.zeros(shape), train=True)
    np.testing.assert_array_equal(found["y"], numpys(np.zeros(shape)))
    assert found["dx"].shape == shape
