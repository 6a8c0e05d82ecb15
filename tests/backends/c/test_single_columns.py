"""Loops over a single column in C: what is stored once a row may read elements."""

from __future__ import annotations

import numpy as np

import graphc as gc
from tests.files.c_model import compiler


def test_a_value_of_a_row_reads_the_only_element() -> None:
    """The mean is over one entry, so that the loss of an element is one of a row."""
    compiler()
    net = gc.Net("single")
    x, target = net.input("x", (gc.N, 4)), net.input("target", (gc.N, 4, 1))
    mean = gc.mean(gc.reshape(gc.affine(x, 4), (gc.N, 4, 1, 1)), axis=3)
    net.loss("loss", gc.sigmoid_loss(mean, target, pos_weight=2.5))
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((3, 4)), "target": rng.random((3, 4, 1))}
    found = []
    for backend in ("numpy", "c"):
        ex = gc.Executor(gc.compile(net, batch=3, backend=backend), seed=0)
        ex.forward(**{name: array.astype(np.float32) for name, array in feeds.items()}, train=True)
        found.append(ex.backward())
    for name, gradient in found[0].items():
        np.testing.assert_allclose(gradient, found[1][name], rtol=1e-6)
