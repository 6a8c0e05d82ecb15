"""Nets with loops for the tests of verifier and validation."""

from __future__ import annotations

from typing import Any

import graphc as gc


def several(dtype: str = "float64") -> gc.Net:
    """Two carried values, lengths of the rows, a weight that all steps share, and all results."""
    net = gc.Net("several", dtype=dtype)
    x, h0 = net.input("x", (gc.N, 5, 3)), net.input("h0", (gc.N, 4))
    lengths = net.input("lengths", (gc.N,), dtype="int64")
    u = net.parameter("u", (4, 4))

    def step(x: gc.Value, h: gc.Value, c: gc.Value) -> tuple[Any, Any]:
        gate = gc.sigmoid(gc.affine(x, 4, name="gate") + h @ u)
        c = gate * c + (1 - gate) * gc.tanh(gc.affine(h, 4, name="new"))
        h = gc.tanh(c) * gate
        return h, (h, c)

    states, (last, cell) = gc.scan(step, x, (h0, gc.tanh(h0)), lengths=lengths, name="loop")
    net.output("steps", states)
    net.loss("loss", gc.mean(states * states) + gc.mean(last * cell))
    return net


def mixed(dtype: str = "float64") -> gc.Net:
    """A step whose rows are mixed, so that threads wait for each other within it."""
    net = gc.Net("mixed", dtype=dtype)
    x, h0 = net.input("x", (gc.N, 4, 3)), net.input("h0", (gc.N, 3))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(gc.affine(x + h, 3))
        h = h - gc.mean(h, 0, keepdims=True)
        return h, h

    steps, last = gc.scan(step, x, h0, reverse=True)
    net.output("last", last)
    net.loss("loss", gc.mean(steps * steps))
    return net


def nested(dtype: str = "float64") -> gc.Net:
    """A loop in the step of a loop, with a value from outside, dropout and layernorm."""
    net = gc.Net("nested", dtype=dtype)
    x = net.input("x", (gc.N, 3, 4, 2))
    h0 = gc.affine(net.input("z", (gc.N, 3)), 2)

    def inner(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.dropout(gc.tanh(gc.affine(x, 2) + h), keep_prob=0.7)
        return h, h

    def outer(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        states, last = gc.scan(inner, x, h)
        h = gc.layernorm(last + gc.affine(h, 2)) + h0
        return gc.sum(states, 1), h

    steps, last = gc.scan(outer, x, h0)
    net.output("last", last)
    net.loss("loss", gc.mean(steps * steps) + gc.mean(last**2))
    return net


def derived(dtype: str = "float64") -> gc.Net:
    """Derivatives in the steps of two loops, one within the other, and a stop_gradient there."""
    net = gc.Net("derived", dtype=dtype)
    x, h0 = net.input("x", (gc.N, 2, 2, 2)), net.input("h0", (gc.N, 2))

    def inner(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        y = gc.dropout(gc.tanh(gc.affine(x, 2) * gc.stop_gradient(h)), keep_prob=0.8)
        return y, gc.tanh(h - 0.5 * gc.grad(gc.sum(y * y + y), x))

    def outer(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        states, last = gc.scan(inner, x, h)
        return states, last - 0.5 * gc.grad(gc.sum(last * last), h)

    steps, last = gc.scan(outer, x, h0)
    net.output("last", last)
    net.loss("loss", gc.mean(steps * steps) + gc.mean(last**2))
    return net


def reversing(rows: int) -> gc.Net:
    """A loop whose next value is a function of the one before in reverse, of so many rows."""
    net = gc.Net("reversing", dtype="float64")

    def step(x: gc.Value, h: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(h[:, ::-1]) + x
        return h, h

    _, last = gc.scan(step, net.input("x", (gc.N, 3, rows, 2)), net.input("h", (gc.N, rows, 2)))
    net.output("last", last)
    return net
