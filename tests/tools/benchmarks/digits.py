"""The digits network of the README."""

from __future__ import annotations

import graphc as gc


def digits() -> gc.Net:
    """Two hidden layers with batchnorm, relu and dropout; softmax over ten classes."""
    net = gc.Net("digits")
    x = net.input("x", (gc.N, 64))
    y = net.input("y", (gc.N,), dtype="int64")
    h = x
    for width in (100, 50):
        h = gc.dropout(gc.relu(gc.batchnorm(gc.affine(h, width))), keep_prob=0.8)
    scores = gc.affine(h, 10, name="scores")
    net.output("scores", scores)
    net.loss("loss", gc.softmax_loss(scores, y))
    return net
