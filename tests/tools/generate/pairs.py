"""Random nets in which values have the batch dimension twice."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import graphc as gc
from graphc.ir.tensor_type import N

WIDTHS = (1, 2, 3, 5, 17)
MOST_STEPS = 6


class Pairs:
    """A net in the making: two inputs x and y of rows, and a value s of their pairs."""

    def __init__(self, seed: int, dtype: str = "float64") -> None:
        self.r, self.net = random.Random(seed), gc.Net("pairs", dtype=dtype)
        self.width = self.r.choice(WIDTHS)
        x, y = (self.net.input(name, (N, self.width)) for name in ("x", "y"))
        self.kind = self.net.input("kind", (N,), dtype="int64")
        self.x = gc.affine(x, self.width, name="e")
        self.y = gc.tanh(y) if self.r.random() < 0.5 else y
        s = self.base()
        for _ in range(self.r.randint(1, MOST_STEPS)):
            s = self.r.choice(STEPS)(self, s)
        self.net.output("pairs", s)
        self.net.loss("loss", self.r.choice(LOSSES)(self, s))

    def feeds(self, rows: int) -> dict[str, NDArray[np.generic]]:
        """Arrays for a batch."""
        rng = np.random.default_rng(rows)
        x, y = (rng.normal(size=(rows, self.width)).astype(self.net.dtype) for _ in range(2))
        return {"x": x, "y": y, "kind": rng.integers(0, 3, rows)}

    def sides(self) -> tuple[gc.Value, gc.Value]:
        """Two values of rows."""
        return self.r.choice(((self.x, self.y), (self.x, self.x), (self.y, self.x)))

    def base(self) -> gc.Value:
        """Pairs of rows, near 1 in size."""
        (a, b), way = self.sides(), self.r.randrange(5)
        if way == 0:
            return gc.tanh(gc.matmul(a, gc.transpose(b)) * 0.4)
        if way < 3:
            column, row = gc.reshape(gc.mean(a, 1), (N, 1)), gc.reshape(gc.mean(b, 1), (1, N))
            return column - row if way == 1 else column * row
        apart = gc.unsqueeze(a, 1) - gc.unsqueeze(b, 0)
        return gc.exp(-gc.mean(apart * apart, 2)) if way == 3 else gc.mean(gc.tanh(apart), -1)

    def mask(self, s: gc.Value) -> gc.Value:
        """Bools of pairs."""
        kind = self.kind
        same = gc.equal(gc.reshape(kind, (N, 1)), gc.reshape(kind, (1, N)))
        return self.r.choice((same, gc.eye_like(s), gc.logical_not(gc.eye_like(s)), s > 0.1))

    def axis(self) -> int:
        """Either axis of pairs."""
        return self.r.choice((0, 1))


def _stack(g: Pairs, s: gc.Value) -> gc.Value:
    axis = g.r.choice((0, 1, 2))
    return gc.mean(gc.stack([s, gc.tanh(s)], axis), axis)


def _reduced(g: Pairs, s: gc.Value) -> gc.Value:
    function = g.r.choice((gc.max, gc.min, gc.mean, gc.logsumexp))
    return s - 0.5 * function(s, g.axis(), keepdims=True)


Step = Callable[[Pairs, gc.Value], gc.Value]
STEPS: tuple[Step, ...] = (
    lambda g, s: gc.transpose(s),
    lambda g, s: gc.softmax(s, axis=g.axis()),
    lambda g, s: gc.log_softmax(s, axis=g.axis()) * 0.2,
    lambda g, s: gc.where(g.mask(s), s, g.r.choice((0.0, 0.5))),
    lambda g, s: gc.tanh(gc.matmul(s, g.base())),
    lambda g, s: gc.tanh(gc.matmul(gc.transpose(s), g.base())),
    lambda g, s: gc.tanh(gc.matmul(s, gc.transpose(g.base()))),
    lambda g, s: gc.tanh(gc.matmul(gc.matmul(s, g.x), gc.transpose(g.y))),
    _reduced,
    _reduced,
    _stack,
    lambda g, s: gc.tanh(s),
    lambda g, s: s * gc.mean(g.x, 1, keepdims=True) + gc.reshape(gc.mean(g.y, 1), (1, N)),
    lambda g, s: g.r.choice((gc.tril, gc.triu))(s, g.r.choice((-1, 0, 1))),
    lambda g, s: s / (gc.sum(s * s, g.r.choice((0, 1, (0, 1))), keepdims=True) + 1.0),
    lambda g, s: gc.reshape(gc.relu(gc.reshape(s, (N * N, 1)) + 0.1), (N, N)),
    lambda g, s: s + gc.reshape(gc.diagonal(s), g.r.choice(((N, 1), (1, N)))),
    lambda g, s: gc.maximum(s, gc.transpose(s)),
    lambda g, s: s * gc.mean(s),
    lambda g, s: gc.dropout(s, keep_prob=0.7),
    lambda g, s: gc.tanh(s + gc.random_normal(s)),
    lambda g, s: gc.cast(gc.cast(s, "float32"), s.dtype) * 1.5,
)
LOSSES: tuple[Step, ...] = (
    lambda g, s: gc.mean(s * s) + gc.mean(g.x),
    lambda g, s: gc.softmax_loss(s + gc.mean(g.x), gc.cast(gc.eye_like(s), s.dtype)),
    lambda g, s: gc.mean(gc.matmul(s, g.x) * g.y),
    lambda g, s: gc.mean(gc.relu(gc.max(s, 1) - gc.min(s, 0)) * gc.mean(g.x, 1)),
    lambda g, s: gc.mse_loss(gc.diagonal(s), gc.sum(g.x, 1)),
    lambda g, s: gc.mean(gc.tanh(gc.matmul(gc.transpose(g.x), gc.matmul(s, g.y)))),
    lambda g, s: gc.mean(gc.logsumexp(s, 1) - gc.diagonal(s)) + gc.mean(g.x),
)
