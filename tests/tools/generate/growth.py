"""A net in the making: what has been declared so far, and what may be chosen from it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

import graphc as gc
from graphc.ir.tensor_type import Batch
from graphc.ops.source import Parameter

WIDTHS = (1, 2, 3, 5, 7)
CLASSES = 3
LARGEST = 240
"""Numbers of a row that a value may have."""
RECENT = 4
NORMAL = gc.Normal(0.4)

T = TypeVar("T")


class Growth:
    """A net and its pool of values of shape (N, features, ...); each step reads some, adds one.

    Values stay near 1 in size: what may grow is tamed, so that rounding stays rounding.
    """

    def __init__(self, r: random.Random, dtype: str, widths: tuple[int, ...]) -> None:
        self.r, self.widths = r, widths
        self.net = gc.Net("random", dtype=dtype)
        self.pool: list[gc.Value] = []
        self.shareable: list[tuple[gc.Value, gc.Value]] = []
        """Weights with their biases."""
        self.losses = 0
        for i in range(r.randint(1, 3)):
            self.add(self._input(f"x{i}"))

    def _input(self, name: str) -> gc.Value:
        shape: tuple[int, ...] = (self.width(),)
        if self.chance(0.15):
            shape = (*shape, self.r.choice((1, 2, 3)))
        x = self.net.input(name, (gc.N, *shape))
        return gc.standardize(x) if self.chance(0.1) else x

    def add(self, value: gc.Value) -> None:
        """Put a value in the pool, cut where it has become too wide."""
        while features(value) > LARGEST:
            value = gc.flatten(value)[:, : LARGEST // 2]
        self.pool.append(value)

    # ------------------------------------------------------------------ choices

    def chance(self, probability: float) -> bool:
        """True as often as that."""
        return self.r.random() < probability

    def choice(self, *options: T) -> T:
        """One of these."""
        return self.r.choice(options)

    def width(self) -> int:
        """Of a layer."""
        return self.r.choice(self.widths)

    def recent(self) -> gc.Value:
        """One of the last values of the pool."""
        return self.r.choice(self.pool[-RECENT:])

    def matrix(self, x: gc.Value) -> gc.Value:
        """The value with two axes."""
        return x if x.type.rank == 2 else gc.flatten(x)

    def axis(self, x: gc.Value) -> int:
        """An axis other than the batch's."""
        return self.r.randrange(1, x.type.rank)

    def like(self, x: gc.Value) -> gc.Value:
        """A value of the pool of the same shape; perhaps x itself."""
        return self.r.choice([v for v in self.pool if v.shape == x.shape] or [x])

    def trained(self, x: gc.Value) -> bool:
        """Whether it depends on a parameter."""
        graph = self.net.graph()
        return any(isinstance(graph[name].op, Parameter) for name in graph.upstream([x.name]))

    # ------------------------------------------------------------------ declarations

    def parameter(self, *shape: int) -> gc.Value:
        """A new parameter of normal numbers."""
        name = self.net.builder.unique("p")
        return self.net.parameter(name, shape, init=NORMAL)

    def input(self, name: str, *shape: int | Batch, dtype: str | None = None) -> gc.Value:
        """One more input, under a name that begins so."""
        return self.net.input(self.net.builder.unique(name), shape, dtype=dtype)

    def loss(self, value: gc.Value) -> None:
        """One more loss of a value of any shape, if there is something to train in it."""
        if not self.trained(value):
            return
        self.losses += 1
        self.net.loss(f"loss{self.losses}", scalar(value) * 0.1)

    def output(self, name: str, value: gc.Value) -> None:
        """One more output, under a name that begins so."""
        public = f"{name}{len(self.net.builder.outputs)}"
        self.net.output(public, value)

    # ------------------------------------------------------------------ sizes of numbers

    def tame(self, x: gc.Value) -> gc.Value:
        """What may have grown, held near 1."""
        ways: Sequence[Callable[[gc.Value], gc.Value]] = (
            gc.tanh,
            gc.sigmoid,
            gc.softmax,
            lambda v: gc.clip(v, -1.25, 1.5),
            lambda v: v * 0.2,
        )
        return self.r.choice(ways)(x)

    def positive(self, x: gc.Value) -> gc.Value:
        """What may be a divisor, a radicand, or the operand of a logarithm."""
        ways: Sequence[Callable[[gc.Value], gc.Value]] = (
            lambda v: gc.abs(v) + 0.5,
            lambda v: v * v + 0.5,
            lambda v: gc.sigmoid(v) + 0.25,
            lambda v: gc.maximum(v, 0.75),
            lambda v: gc.exp(gc.tanh(v)),
        )
        return self.r.choice(ways)(x)


def features(x: gc.Value) -> int:
    """The numbers of a row."""
    size = 1
    for dim in x.shape[1:]:
        assert isinstance(dim, int)
        size *= dim
    return size


def columns(x: gc.Value) -> int:
    """The length of the last axis."""
    last = x.shape[-1]
    assert isinstance(last, int)
    return last


def scalar(x: gc.Value) -> gc.Value:
    """A mean that is bounded below: of squares, unless x is a number already."""
    return gc.mean(x * x) if x.shape else x
