"""The gradients of the course's layers at the course's sizes, by the course's differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from graphc.ir.op import Array, Layer
from graphc.ops.linalg import AffineLayer
from graphc.ops.losses.classes import SoftmaxLoss, SvmLoss
from graphc.runtime import reference

SEEDS = range(6)
H = 1e-5


def differences(f: Callable[[Array], Array], x: Array, dout: Array) -> Array:
    """(f(x + h) - f(x - h)) . dout / 2h for each entry."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += H
        down[index] -= H
        found[index] = ((f(up) - f(down)) * dout).sum() / (2 * H)
    return found


def relative_error(a: Array, b: Array) -> float:
    return float(np.max(np.abs(a - b) / np.maximum(1e-8, np.abs(a) + np.abs(b))))


def loss_error(op: Layer, seed: int) -> float:
    rng = np.random.RandomState(seed)
    scores, labels = 0.001 * rng.randn(50, 10), rng.randint(10, size=50)
    (ours,) = reference.backward(op, [scores, labels], np.array(1.0), ("scores",))
    numeric = differences(lambda s: value(op, [s, labels]), scores, np.array(1.0))
    return relative_error(ours, numeric)


def value(op: Layer, ins: list[Array]) -> Array:
    return op.reference_in(ins, train=True)


def test_svm_loss() -> None:
    assert max(loss_error(SvmLoss(), seed) for seed in SEEDS) <= 5e-9


def test_softmax_loss() -> None:
    assert max(loss_error(SoftmaxLoss(), seed) for seed in SEEDS) <= 2e-8


def affine_case(draw: Callable[..., Array]) -> tuple[list[Array], Array]:
    return [draw(10, 2, 3), draw(6, 5), draw(5)], draw(10, 5)


def affine_gradients(ins: list[Array], dout: Array) -> list[tuple[Array, Array]]:
    """Ours and the differences', for x, weight and bias."""
    ours = reference.backward(AffineLayer(), ins, dout, ("x", "weight", "bias"))
    pairs = []
    for i, found in enumerate(ours):

        def moved(x: Array, i: int = i) -> Array:
            return value(AffineLayer(), [*ins[:i], x, *ins[i + 1 :]])

        pairs.append((found, differences(moved, ins[i], dout)))
    return pairs


def test_affine() -> None:
    for seed in SEEDS:
        ins, dout = affine_case(np.random.RandomState(seed).randn)
        for (found, numeric), operand in zip(affine_gradients(ins, dout), ins, strict=True):
            assert found.shape == operand.shape
            assert relative_error(found, numeric) <= 5e-8


def test_affine_of_whole_numbers_is_exact() -> None:
    for seed in SEEDS:
        rng = np.random.RandomState(seed)

        def draw(*shape: int, rng: np.random.RandomState = rng) -> Array:
            return rng.randint(-9, 10, shape).astype(float)

        (x, w, b), dout = affine_case(draw)
        rows = x.reshape(10, 6).astype(int)
        assert np.array_equal(value(AffineLayer(), [x, w, b]), rows @ w.astype(int) + b.astype(int))
        dx, dw, db = reference.backward(AffineLayer(), [x, w, b], dout, ("x", "weight", "bias"))
        upper = dout.astype(int)
        assert np.array_equal(dx, (upper @ w.T.astype(int)).reshape(10, 2, 3))
        assert np.array_equal(dw, rows.T @ upper)
        assert np.array_equal(db, upper.sum(axis=0))
