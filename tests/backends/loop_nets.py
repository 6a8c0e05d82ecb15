"""Small nets with loops of every kind: with lengths, reversed, nested, at once, with positions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

import graphc as gc
from graphc.ir.graph import Node

STEPS, WIDTH, FEATURES = 5, 4, 3


def lstm(dtype: str, lengths: bool = False, reverse: bool = False, drops: bool = False) -> gc.Net:
    """A net with an LSTM, a loss of its states, and the last ones as outputs."""
    net = gc.Net("lstm", dtype=dtype)
    x = net.input("x", (gc.N, STEPS, FEATURES))
    initial = tuple(net.input(name, (gc.N, WIDTH)) for name in ("h0", "c0"))
    of_rows = net.input("lengths", (gc.N,), dtype="int32") if lengths else None
    u = net.parameter("u", (WIDTH, 4 * WIDTH))

    def step(x: gc.Value, h: gc.Value, c: gc.Value) -> tuple[Any, Any]:
        gates = gc.affine(x, 4 * WIDTH, name="gates") + h @ u
        i, f, o, k = (gates[:, j * WIDTH : (j + 1) * WIDTH] for j in range(4))
        c = gc.sigmoid(f) * c + gc.sigmoid(i) * gc.tanh(k)
        h = gc.sigmoid(o) * gc.tanh(c)
        if drops:
            h = gc.dropout(h, keep_prob=0.8)
        return h, (h, c)

    ys, (h, c) = gc.scan(step, x, initial, lengths=of_rows, reverse=reverse, name="lstm")
    return _with_loss(net, ys, h, c)


def nested(dtype: str) -> gc.Net:
    """A loop with a loop in each step."""
    net = gc.Net("nested", dtype=dtype)
    x = net.input("x", (gc.N, 3, STEPS, WIDTH))

    def inner(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(gc.affine(x, WIDTH, name="inside") + h)
        return h, h

    def step(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        ys, h = gc.scan(inner, x, gc.tanh(h), reverse=True, name="inner")
        return gc.sum(ys, axis=1), h

    ys, last = gc.scan(step, x, net.input("h0", (gc.N, WIDTH)), name="outer")
    return _with_loss(net, ys, last)


def at_once(dtype: str, lengths: bool = False) -> gc.Net:
    """A loop that hands on nothing."""
    net = gc.Net("at_once", dtype=dtype)
    x = net.input("x", (gc.N, STEPS, FEATURES))
    of_rows = net.input("lengths", (gc.N,), dtype="int32") if lengths else None

    def step(x: gc.Value) -> tuple[Any, Any]:
        h = gc.relu(gc.affine(x, WIDTH, name="first"))
        return gc.softmax(gc.affine(h, WIDTH, name="second")), ()

    ys, _ = gc.scan(step, x, lengths=of_rows, name="each")
    return _with_loss(net, ys)


def nested_at_once(dtype: str) -> gc.Net:
    """A loop with a loop in each step that hands on nothing."""
    net = gc.Net("nested_at_once", dtype=dtype)
    x, h0 = net.input("x", (gc.N, 3, STEPS, WIDTH)), net.input("h0", (gc.N, WIDTH))

    def step(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        def inner(x: gc.Value) -> tuple[Any, Any]:
            h = gc.relu(gc.affine(x, WIDTH, name="first"))
            return gc.softmax(gc.affine(h, WIDTH, name="second")), ()

        ys, _ = gc.scan(inner, gc.tanh(x + gc.reshape(h, (gc.N, 1, WIDTH))), name="inner")
        h = gc.tanh(h + gc.sum(ys, axis=1))
        return h, h

    ys, last = gc.scan(step, x, h0, name="outer")
    return _with_loss(net, ys, last)


def counted(dtype: str) -> gc.Net:
    """A loop without inputs, with constants and a mask of its own in each step."""
    net = gc.Net("counted", dtype=dtype)
    h0 = net.input("h0", (gc.N, WIDTH))
    ramp = net.constant(np.linspace(-1, 1, WIDTH).astype(dtype))

    def step(h: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(gc.affine(h, WIDTH, name="again") * 0.5 + ramp)
        return gc.dropout(h, keep_prob=0.7), h

    ys, last = gc.scan(step, (), h0, steps=STEPS, name="counted")
    return _with_loss(net, ys, last)


def normed(dtype: str) -> gc.Net:
    """A loop whose steps need all rows: threads cannot run it by themselves."""
    net = gc.Net("normed", dtype=dtype)
    x = net.input("x", (gc.N, STEPS, WIDTH))

    def step(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(gc.affine(x + h - gc.mean(h, axis=0), WIDTH, name="all"))
        return h, h

    ys, last = gc.scan(step, x, net.input("h0", (gc.N, WIDTH)), name="normed")
    return _with_loss(net, ys, last)


def inside_alone(dtype: str) -> gc.Net:
    """A loop whose step is nothing but another loop, which needs all rows."""
    net = gc.Net("inside_alone", dtype=dtype)
    x = net.input("x", (gc.N, 3, STEPS, WIDTH))

    def inner(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(x + h - gc.mean(h, axis=0))
        return h, h

    def step(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        return gc.scan(inner, x, h, name="inner")

    ys, last = gc.scan(step, x, net.input("h0", (gc.N, WIDTH)), name="outer")
    return _with_loss(net, ys, last)


def called(dtype: str) -> gc.Net:
    """A loop with a reference rule between products in its steps, and in a loop inside."""
    net = gc.Net("called", dtype=dtype)
    x, h0 = net.input("x", (gc.N, 3, STEPS, WIDTH)), net.input("h0", (gc.N, WIDTH))
    mix = net.constant(np.linspace(-1, 1, WIDTH * WIDTH).reshape(WIDTH, WIDTH).astype(dtype))

    def step(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        def inner(x: gc.Value) -> tuple[Any, Any]:
            return gc.cumsum(gc.affine(x, WIDTH, name="first"), axis=1, name="sums"), ()

        ys, _ = gc.scan(inner, x, name="inner")
        h = gc.tanh(gc.cumsum(gc.affine(h, WIDTH), axis=1) @ mix + gc.sum(ys, axis=1))
        return h, h

    ys, last = gc.scan(step, x, h0, name="outer")
    return _with_loss(net, ys, last)


def _with_loss(net: gc.Net, ys: gc.Value, *last: gc.Value) -> gc.Net:
    net.output("ys", ys)
    for number, value in enumerate(last):
        net.output(f"last{number}", value)
    squares = [gc.mean(value * value) for value in (ys, *last)]
    net.loss("loss", gc.mean(gc.affine(ys, 2, axis=-1, name="head")) + sum(squares))
    return net


LOOPS: Mapping[str, Callable[[str], gc.Net]] = {
    "lstm": lstm,
    "with lengths": lambda dtype: lstm(dtype, lengths=True),
    "reversed, with lengths": lambda dtype: lstm(dtype, lengths=True, reverse=True),
    "with dropout": lambda dtype: lstm(dtype, drops=True),
    "nested": nested,
    "nested, at once": nested_at_once,
    "at once": at_once,
    "at once, with lengths": lambda dtype: at_once(dtype, lengths=True),
    "without inputs": counted,
    "over all rows": normed,
    "nothing but a loop": inside_alone,
}


def loop_feeds(graph: Iterable[Node], n: int, seed: int = 0) -> dict[str, Any]:
    """Random feeds for `n` rows; the longest row is shorter than the sequences."""
    rng, feeds = np.random.default_rng(seed), dict[str, Any]()
    for node in graph:
        if node.op.is_input:
            shape = (n, *(dim for dim in node.type.shape[1:] if isinstance(dim, int)))
            feeds[node.name] = rng.normal(size=shape).astype(node.type.dtype)
            if node.name == "lengths":
                feeds[node.name] = rng.integers(0, STEPS, n).astype(np.int32)
    return feeds
