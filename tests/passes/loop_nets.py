"""Nets with loops, for the tests of passes on them."""

from __future__ import annotations

import graphc as gc

N = gc.N


def recurrent(
    steps: int = 6,
    *,
    lengths: bool = False,
    reverse: bool = False,
    dropout: bool = False,
    of_lengths: str = "int32",
) -> gc.Net:
    """A net of one loop: an affine map of the input, a product of the state, one of the result."""
    net = gc.Net("net", dtype="float64")
    x, h0 = net.input("x", (N, steps, 3)), net.input("h0", (N, 4))
    of = net.input("lengths", (N,), dtype=of_lengths) if lengths else None
    u, v = net.parameter("u", (4, 4)), net.parameter("v", (4, 2))

    def step(x: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        h = gc.tanh(gc.affine(x, 4, name="in") + h @ u)
        h = gc.dropout(h, keep_prob=0.75) if dropout else h
        return gc.matmul(h, v, name="out"), h

    ys, last = gc.scan(step, x, h0, lengths=of, reverse=reverse, name="loop")
    net.output("ys", ys)
    net.loss("loss", gc.mean(ys * ys) + gc.mean(last))
    return net
