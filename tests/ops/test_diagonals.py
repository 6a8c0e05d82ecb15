"""Diagonals of matrices, and ops that refuse values with the batch in two axes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from tests.error_text import error_text

CASES: dict[str, tuple[Callable[[gc.Value], gc.Value], Callable[[Array], Any]]] = {
    "eye": (gc.eye_like, lambda s: np.eye(len(s), dtype=bool)),
    "diagonal": (gc.diagonal, np.diag),
    "diagonal of bools": (lambda s: gc.diagonal(s > 0), lambda s: np.diag(s > 0)),
    "diagonal of numbers": (
        lambda s: gc.diagonal(gc.cast(s * 9.0, "int64")),
        lambda s: np.diag((s * 9).astype(np.int64)),
    ),
    "lower": (lambda s: gc.tril(s, 1), lambda s: np.tril(s, 1)),
    "upper": (lambda s: gc.triu(s, -1), lambda s: np.triu(s, -1)),
    "upper beyond": (lambda s: gc.triu(s, 9), lambda s: np.triu(s, 9)),
    "stacked": (
        lambda s: gc.diagonal(gc.stack([s, -s], 0)),
        lambda s: np.stack([np.diag(s), -np.diag(s)]),
    ),
}


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_diagonals_of_pairs_are_those_of_numpy(backend: str) -> None:
    net = gc.Net("net", dtype="float64")
    x, y = net.input("x", (gc.N, 3)), net.input("y", (gc.N, 3))
    s = gc.matmul(x, gc.transpose(y))
    for name, (made, _) in CASES.items():
        net.output(name, made(s))
    ex, rng = gc.Executor(gc.compile(net, batch=40, backend=backend)), np.random.default_rng(0)
    for n in (40, 1, 17):
        a, b = rng.normal(size=(n, 3)), rng.normal(size=(n, 3))
        found, s_ = ex.forward(x=a, y=b), a @ b.T
        for name, (_, wanted) in CASES.items():
            np.testing.assert_allclose(found[name], wanted(s_), rtol=1e-12, err_msg=name)


def test_diagonals_of_fixed_sizes() -> None:
    net = gc.Net("net", dtype="float64")
    x = net.input("x", (gc.N, 4, 4))
    net.output("own", gc.diagonal(x))
    net.output("eye", gc.eye_like(x[:, :3]))
    a = np.random.default_rng(0).normal(size=(5, 4, 4))
    found = gc.Executor(gc.compile(net, batch=5)).forward(x=a)
    assert np.array_equal(found["own"], np.diagonal(a, axis1=1, axis2=2))
    assert np.array_equal(found["eye"], np.broadcast_to(np.eye(3, 4, dtype=bool), (5, 3, 4)))
    assert gc.grad_check(_with_loss(), {"x": a[:, 0]}).ok


def _with_loss() -> gc.Net:
    net = gc.Net("net", dtype="float64")
    x = gc.affine(net.input("x", (gc.N, 4)), 9)
    net.loss("loss", gc.mean(gc.diagonal(gc.reshape(x, (gc.N, 3, 3))) ** 2))
    return net


def pairs() -> gc.Value:
    x = gc.Net("net").input("x", (gc.N, 4))
    return gc.matmul(x, gc.transpose(x))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda s: gc.batchnorm(s), "takes floats of shape .N, features, ...."),
        (lambda s: gc.layernorm(s), "takes floats of shape .N, ..., features."),
        (lambda s: gc.affine(s, 3), "the features may not depend on the batch"),
        (lambda s: gc.cumsum(s, 0), "cumsum takes the batch on one axis, not float32.N, N."),
        (lambda s: gc.topk(s, 2), "axis 1 of .N, N. is the batch's"),
        (lambda s: gc.pad(s, (1, 1)), "batch"),
        (lambda s: gc.flip(s, 1), "the batch dimension cannot be cut"),
        (lambda s: s[:3], "the batch dimension cannot be cut"),
        (lambda s: gc.max_pool(gc.reshape(s, (gc.N, gc.N, 1, 1)), 1), "batch"),
        (lambda s: gc.conv2d(gc.reshape(s, (gc.N, gc.N, 1, 1)), 2, 1), "takes floats of shape"),
        (lambda s: gc.softmax_loss(s, gc.softmax(s), label_smoothing=0.1), "label_smoothing takes"),
        (lambda s: gc.diagonal(gc.concat([s, s], 1)), "diagonal takes square matrices"),
        (lambda s: gc.eye_like(gc.mean(s, 1, keepdims=True)), "fixed sizes, or"),
        (lambda s: gc.tril(gc.mean(s, 1, keepdims=True)), "fixed sizes, or"),
        (lambda s: gc.matmul(gc.unsqueeze(s, 2), gc.unsqueeze(s, 1)), "batch dimension 3 times"),
    ],
)
def test_what_takes_no_pairs_says_so(call: Callable[[gc.Value], object], message: str) -> None:
    with pytest.raises(gc.GraphError) as caught:
        call(pairs())
    assert re.search(message, error_text(caught.value))


@dataclass(frozen=True)
class Halved(gc.Op):
    """A user's op."""

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        return ins[0]

    def reference(self, ins: Sequence[Array]) -> Array:
        return ins[0] / 2


class HalvedPairs(Halved):
    takes_pairs = True


def test_an_op_of_your_own_says_whether_it_takes_pairs() -> None:
    with pytest.raises(gc.GraphError, match=r"halved takes the batch on one axis, not float32.N, "):
        gc.apply(Halved(), pairs())
    assert gc.apply(HalvedPairs(), pairs()).shape == (gc.N, gc.N)
