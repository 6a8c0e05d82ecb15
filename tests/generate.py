"""Random valid nets, and arrays to run them with."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

import graphc as gc
from graphc.graph import Graph
from graphc.ops.source import Input, Parameter, State
from graphc.reference import initial_state
from graphc.tensor_type import shape_at

WIDTHS = (1, 2, 3, 5, 7)
CLASSES = 3


def nets(dtype: str = "float64") -> st.SearchStrategy[gc.Net]:
    """A strategy of nets, reproduced and made smaller by hypothesis."""
    return st.randoms(use_true_random=False).map(lambda r: random_net(r, dtype))


def random_net(r: random.Random, dtype: str = "float64") -> gc.Net:
    """A net with one to three inputs, up to a dozen layers and ops, one or two losses."""
    return _Generator(r, dtype).net


class _Generator:
    """Grows a net from a pool of values; each step reads some and adds one."""

    def __init__(self, r: random.Random, dtype: str) -> None:
        self.r = r
        self.net = gc.Net("random", dtype=dtype)
        self.pool: list[gc.Value] = []
        self.weights: list[tuple[gc.Value, gc.Value]] = []
        for i in range(r.randint(1, 3)):
            self.pool.append(self.net.input(f"x{i}", (gc.N, r.choice(WIDTHS))))
        for _ in range(r.randint(1, 12)):
            self.pool.append(r.choice(_STEPS)(self, r.choice(self.pool[-4:])))
        self._finish()

    def _finish(self) -> None:
        last = gc.flatten(self.pool[-1])
        scores = gc.affine(last, CLASSES)
        self.net.output("scores", scores)
        y = self.net.input("y", (gc.N,), dtype="int64")
        loss = self.r.choice((gc.softmax_loss, gc.svm_loss))
        self.net.loss("loss", loss(scores, y))
        if self.r.random() < 0.5:
            inner = gc.mean(self.r.choice(self.pool) ** 2)
            self.net.loss("penalty", inner * gc.mean(scores**2))
        if self.r.random() < 0.5:
            self.net.output("inner", self.r.choice(self.pool))

    def affine(self, x: gc.Value) -> gc.Value:
        axis = -1 if self.r.random() < 0.3 else None
        out = gc.affine(x, self.r.choice(WIDTHS), axis=axis, bias=self.r.random() < 0.8)
        node = out.node
        if len(node.inputs) == 3 and axis is None:
            builder = self.net.builder
            self.weights.append((builder.value(node.inputs[1]), builder.value(node.inputs[2])))
        return out

    def shared(self, x: gc.Value) -> gc.Value:
        flat = gc.flatten(x)
        fitting = [(w, b) for w, b in self.weights if w.shape[0] == flat.shape[1]]
        if not fitting:
            return self.affine(x)
        weight, bias = self.r.choice(fitting)
        return gc.affine(flat, weight=weight, bias=bias)

    def affine_relu(self, x: gc.Value) -> gc.Value:
        return gc.relu(self.affine(x))

    def affine_batchnorm(self, x: gc.Value) -> gc.Value:
        return gc.batchnorm(self.affine(x))

    def residual(self, x: gc.Value) -> gc.Value:
        return x + gc.relu(gc.affine(x, x.shape[-1], axis=-1))

    def dropout(self, x: gc.Value) -> gc.Value:
        return gc.dropout(x, keep_prob=self.r.choice((0.5, 0.8, 1.0)))

    def unary(self, x: gc.Value) -> gc.Value:
        ops: tuple[Callable[[gc.Value], gc.Value], ...] = (
            gc.relu,
            gc.tanh,
            gc.sigmoid,
            gc.abs,
            lambda v: gc.exp(gc.tanh(v)),
            lambda v: -v,
            lambda v: gc.neg(gc.neg(v)),
            lambda v: gc.softmax(v),
            lambda v: gc.clip(v, -1.0, 1.0),
        )
        return self.r.choice(ops)(x)

    def number(self, x: gc.Value) -> gc.Value:
        number = self.r.choice((0.0, 0.5, 1.0, -1.0, 2.0))
        ops: tuple[Callable[[gc.Value, float], gc.Value], ...] = (
            lambda v, k: v + k,
            lambda v, k: v - k,
            lambda v, k: v * k,
            lambda v, k: v / (k or 1.0),
            lambda v, k: k - v,
            lambda v, k: gc.maximum(v, k),
            lambda v, k: v * gc.exp(self.net.constant(k)),
        )
        return self.r.choice(ops)(x, number)

    def twice(self, x: gc.Value) -> gc.Value:
        """The same expression two times over."""
        return gc.tanh(x * 0.5) + gc.tanh(x * 0.5)

    def pair(self, x: gc.Value) -> gc.Value:
        others = [v for v in self.pool if v.shape == x.shape]
        other = self.r.choice(others)
        op = self.r.choice((gc.add, gc.sub, gc.mul, gc.maximum, gc.minimum))
        return gc.tanh(op(x, other))

    def spread(self, x: gc.Value) -> gc.Value:
        axis = self.r.randrange(1, len(x.shape))
        reduce = self.r.choice((gc.sum, gc.mean, gc.max))
        return gc.tanh(x - reduce(x, axis, keepdims=True))

    def shape(self, x: gc.Value) -> gc.Value:
        if len(x.shape) == 2:
            return gc.reshape(x, (gc.N, 1, x.shape[1]))
        moved = gc.transpose(x, (0, 2, 1)) if len(x.shape) == 3 else x
        return gc.reshape(moved, (gc.N, -1)) if self.r.random() < 0.5 else moved

    def join(self, x: gc.Value) -> gc.Value:
        others = [v for v in self.pool if v.shape[:-1] == x.shape[:-1]]
        return gc.concat([x, self.r.choice(others)], axis=-1)

    def cut(self, x: gc.Value) -> gc.Value:
        width = x.shape[-1]
        assert isinstance(width, int)
        return x[..., self.r.randrange(width) :]


_STEPS: tuple[Callable[[_Generator, gc.Value], gc.Value], ...] = (
    _Generator.affine,
    _Generator.shared,
    _Generator.affine_relu,
    _Generator.affine_relu,
    _Generator.affine_batchnorm,
    _Generator.residual,
    _Generator.dropout,
    _Generator.unary,
    _Generator.number,
    _Generator.twice,
    _Generator.pair,
    _Generator.spread,
    _Generator.shape,
    _Generator.join,
    _Generator.cut,
)


def random_feeds(graph: Graph, n: int, seed: int = 0) -> dict[str, Any]:
    """An array for each input of the graph: normal numbers, or labels below CLASSES."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Any] = {}
    for node in graph:
        if isinstance(node.op, Input):
            shape = shape_at(node.type.shape, n)
            if node.type.is_float:
                feeds[node.name] = rng.standard_normal(shape).astype(node.type.dtype)
            else:
                feeds[node.name] = rng.integers(0, CLASSES, shape)
    return feeds


def random_state(graph: Graph, seed: int = 0) -> dict[str, Any]:
    """Initial values, with noise so that no bias is 0 and no running mean like another."""
    rng = np.random.default_rng(seed)
    state = dict(initial_state(graph, seed))
    for node in graph:
        if isinstance(node.op, (Parameter, State)) and node.type.is_float:
            noise = 0.1 * rng.random(state[node.name].shape)
            state[node.name] = (state[node.name] + noise).astype(node.type.dtype)
    state.update({name: np.int64(3) for name in ("draws", "updates") if name in state})
    return state
