"""A small net of most kinds of layers, and batches for it."""

from __future__ import annotations

from typing import Any

import numpy as np

import graphc as gc


def net(dtype: str = "float32") -> gc.Net:
    """Affine, convolution, batchnorm, dropout, gelu, tanh, sigmoid and softmax, on 6 x 6 images."""
    net = gc.Net("small", dtype=dtype)
    x = net.input("x", (gc.N, 1, 6, 6))
    y = net.input("y", (gc.N,), dtype="int64")
    h = gc.relu(gc.batchnorm(gc.conv2d(x, 3, kernel=3)))
    h = gc.dropout(gc.affine(h, 17), keep_prob=0.8)
    h = gc.tanh(gc.gelu(h)) * gc.sigmoid(h) + gc.sqrt(gc.abs(h) + 0.25) ** 0.7
    scores = net.output("scores", gc.affine(h, 5))
    net.loss("loss", gc.softmax_loss(scores, y))
    return net


def batch(rows: int, seed: int) -> dict[str, Any]:
    """A batch of random images."""
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(rows, 1, 6, 6)), "y": rng.integers(0, 5, rows)}
