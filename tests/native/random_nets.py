"""Random nets of what kernels share memory by: slices, joins, reshaping, weights used twice."""

from __future__ import annotations

import random
from collections.abc import Callable

import graphc as gc
from graphc import N
from tests.native.nets import NORMAL, finish, start

WIDEST = 120


def random_net(seed: int, dtype: str = "float64") -> gc.Net:
    """A net of three to ten steps on matrices, and some losses of its own on parameters."""
    return _Growth(random.Random(seed), dtype).net


class _Growth:
    """Each step reads some of the last values, and adds one."""

    def __init__(self, r: random.Random, dtype: str) -> None:
        self.r = r
        self.net, x = start(dtype, 16)
        self.pool = [x, gc.affine(x, 16)]
        self.parameters = 0
        for _ in range(r.randint(3, 10)):
            h = r.choice(self.pool[-3:]) if len(self.pool) > 3 else self.pool[-1]
            value = r.choice(_STEPS)(self, h)
            self.pool.append(value[:, 3:40] if width(value) > WIDEST else value)
        if r.random() < 0.3:
            self.net.output("inner", r.choice(self.pool))
        finish(self.net, gc.tanh(self.pool[-1]))

    def parameter(self, *shape: int) -> gc.Value:
        self.parameters += 1
        return self.net.parameter(f"p{self.parameters}", shape, init=NORMAL)

    def loss(self, value: gc.Value) -> None:
        self.net.loss(f"loss{len(self.pool)}", value * 0.1)

    def affine_relu(self, h: gc.Value) -> gc.Value:
        return gc.relu(gc.affine(h, self.r.choice((4, 16, 32, 34))))

    def gate(self, h: gc.Value) -> gc.Value:
        """Two slices, which may overlap, of about half the columns."""
        half = max(1, width(h) // 2)
        a, b = (self.r.randrange(width(h) - half + 1) for _ in range(2))
        return gc.sigmoid(h[:, a : a + half]) * h[:, b : b + half]

    def residual(self, h: gc.Value) -> gc.Value:
        others = [value for value in self.pool if value.shape == h.shape]
        return h * 0.5 + gc.tanh(self.r.choice(others))

    def join(self, h: gc.Value) -> gc.Value:
        return gc.concat([h, self.r.choice(self.pool)][:: self.r.choice((1, -1))], axis=1)

    def batchnorm(self, h: gc.Value) -> gc.Value:
        return gc.batchnorm(h)

    def dropout(self, h: gc.Value) -> gc.Value:
        return gc.dropout(h, keep_prob=0.7)

    def other_rows(self, h: gc.Value) -> gc.Value:
        """Twice the rows for a while."""
        if width(h) % 2:
            return gc.tanh(h)
        half = width(h) // 2
        rows = gc.reshape(h, (2 * N, half))
        if self.r.random() < 0.5:
            rows = gc.affine(gc.softmax(rows), half)
        else:
            rows = gc.tanh(rows) - gc.mean(rows, 1, keepdims=True)
        return gc.reshape(rows, (N, 2 * half))

    def scaled(self, h: gc.Value) -> gc.Value:
        columns = width(h)
        p = self.parameter(*self.r.choice(((columns,), (1, columns), (1, 1), ())))
        return gc.tanh(h * p + p)

    def square_weight(self, h: gc.Value) -> gc.Value:
        """A weight that a loss depends on, too."""
        p = self.parameter(width(h), width(h)) * 0.5
        q = gc.matmul(p, p) if self.r.random() < 0.5 else p + gc.transpose(p, (1, 0))
        self.loss(gc.mean(q * q))
        return gc.matmul(h, p) + h

    def centred(self, h: gc.Value) -> gc.Value:
        return h - gc.mean(h, 0, keepdims=True)

    def weighted_softmax(self, h: gc.Value) -> gc.Value:
        return gc.softmax(h) * gc.sum(h, 1, keepdims=True)

    def product_of_slice(self, h: gc.Value) -> gc.Value:
        if width(h) < 6:
            return -h
        return gc.matmul(h[:, 1:5], self.parameter(4, width(h))) + h

    def output(self, h: gc.Value) -> gc.Value:
        value = gc.exp(gc.tanh(h)) * gc.stop_gradient(h)
        self.net.output(f"out{len(self.pool)}", value)
        return value

    def peak(self, h: gc.Value) -> gc.Value:
        value = gc.reshape(gc.reshape(gc.affine(h, 6), (N, 6, 1)) * 2.0, (N, 6))
        self.loss(gc.mean(gc.max(value, 1) ** 2))
        return value


def width(value: gc.Value) -> int:
    """The columns of a matrix."""
    columns = value.shape[1]
    assert isinstance(columns, int)
    return columns


_STEPS: tuple[Callable[[_Growth, gc.Value], gc.Value], ...] = (
    _Growth.affine_relu,
    _Growth.gate,
    _Growth.residual,
    _Growth.join,
    _Growth.batchnorm,
    _Growth.dropout,
    _Growth.other_rows,
    _Growth.scaled,
    _Growth.square_weight,
    _Growth.centred,
    _Growth.weighted_softmax,
    _Growth.product_of_slice,
    _Growth.output,
    _Growth.peak,
)
