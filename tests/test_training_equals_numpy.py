"""Fifty steps of training against the same network written out in plain NumPy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import graphc as gc
from graphc.kernels.philox import keep_words, stream_of, threshold

LR, MOMENTUM, KEEP, EPS, DECAY = 0.05, 0.9, 0.7, 1e-5, 0.9
SEED, STEPS, CLASSES = 11, 50, 5
Array = np.ndarray[Any, Any]


def network(loss: str) -> gc.Net:
    net = gc.Net("seed layers", dtype="float64")
    x = net.input("x", (gc.N, 3, 4))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.affine(x, 10, name="first")
    h = gc.dropout(gc.relu(gc.batchnorm(h, name="bn")), keep_prob=KEEP, name="drop")
    scores = gc.affine(h, CLASSES, name="second")
    net.output("scores", scores)
    net.loss("loss", {"softmax": gc.softmax_loss, "svm": gc.svm_loss}[loss](scores, y))
    return net


@dataclass
class PlainNetwork:
    """The same network, forward and backward by hand."""

    parameters: dict[str, Array]
    loss: str
    running_mean: Array = field(default_factory=lambda: np.zeros(10))
    running_var: Array = field(default_factory=lambda: np.ones(10))
    velocity: dict[str, Array] = field(default_factory=dict)
    draws: int = 0

    def mask(self, rows: int) -> Array:
        words = keep_words(SEED, stream_of("drop"), self.draws, rows, 10)
        return (words.astype(np.uint64) < threshold(KEEP)) / KEEP

    def step(self, x: Array, y: Array) -> float:
        p, n = self.parameters, len(x)
        flat = x.reshape(n, -1)
        a = flat @ p["first.weight"] + p["first.bias"]
        mean, var = a.mean(axis=0), a.var(axis=0)
        self.running_mean = DECAY * self.running_mean + (1 - DECAY) * mean
        self.running_var = DECAY * self.running_var + (1 - DECAY) * var
        xhat = (a - mean) / np.sqrt(var + EPS)
        b = p["bn.gamma"] * xhat + p["bn.beta"]
        mask = self.mask(n)
        self.draws += 1
        h = np.maximum(b, 0) * mask
        scores = h @ p["second.weight"] + p["second.bias"]
        loss, dscores = {"softmax": softmax, "svm": svm}[self.loss](scores, y)

        dh = dscores @ p["second.weight"].T
        db = dh * mask * (b > 0)
        dxhat = db * p["bn.gamma"]
        da = (dxhat - dxhat.mean(axis=0) - xhat * (dxhat * xhat).mean(axis=0)) / np.sqrt(var + EPS)
        self.update(
            {
                "first.weight": flat.T @ da,
                "first.bias": da.sum(axis=0),
                "bn.gamma": (db * xhat).sum(axis=0),
                "bn.beta": db.sum(axis=0),
                "second.weight": h.T @ dscores,
                "second.bias": dscores.sum(axis=0),
            }
        )
        return loss

    def update(self, gradients: dict[str, Array]) -> None:
        for name, gradient in gradients.items():
            self.velocity[name] = MOMENTUM * self.velocity.get(name, 0.0) + gradient
            self.parameters[name] = self.parameters[name] - LR * self.velocity[name]


def softmax(scores: Array, y: Array) -> tuple[float, Array]:
    rows = np.arange(len(y))
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    probs = e / e.sum(axis=1, keepdims=True)
    loss = -np.log(probs[rows, y]).mean()
    probs[rows, y] -= 1
    return float(loss), probs / len(y)


def svm(scores: Array, y: Array) -> tuple[float, Array]:
    rows = np.arange(len(y))
    margins = np.maximum(0, scores - scores[rows, y][:, None] + 1)
    margins[rows, y] = 0
    d = (margins > 0).astype(float)
    d[rows, y] = -d.sum(axis=1)
    return float(margins.sum() / len(y)), d / len(y)


@pytest.mark.parametrize("loss", ["softmax", "svm"])
def test_fifty_steps_equal_the_plain_loop(loss: str) -> None:
    plan = gc.compile(network(loss), batch=32, optimizer=gc.SGD(lr=LR, momentum=MOMENTUM))
    ex = gc.Executor(plan, seed=SEED)
    plain = PlainNetwork({k: v.copy() for k, v in ex.parameters.items()}, loss)
    rng = np.random.default_rng(0)
    for step in range(STEPS):
        n = (32, 7, 1)[step % 3]
        x, y = rng.standard_normal((n, 3, 4)), rng.integers(0, CLASSES, n)
        assert abs(ex.step(x=x, y=y) - plain.step(x, y)) <= 1e-10
    for name, value in plain.parameters.items():
        np.testing.assert_allclose(ex.parameters[name], value, rtol=0, atol=1e-10, err_msg=name)
        velocity = ex.state[f"{name}.velocity"]
        np.testing.assert_allclose(velocity, plain.velocity[name], rtol=0, atol=1e-10)
    for name in ("running_mean", "running_var"):
        want = getattr(plain, name)
        np.testing.assert_allclose(ex.state[f"bn.{name}"], want, rtol=0, atol=1e-10)
    assert int(ex.state["draws"]) == int(ex.state["updates"]) == STEPS
