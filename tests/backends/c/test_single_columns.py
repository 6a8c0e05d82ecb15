"""Loops over a single column in C: what is stored once a row may read elements."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest

import graphc as gc
from graphc.backends.c.loops import LoopWriter
from graphc.backends.c.scalars import Code, Functions
from graphc.backends.c.target import PROLOGUE
from graphc.ir.expr import Axis, BodyBuilder, Broadcast
from graphc.kernels.kernel import Loop
from tests.backends.c.test_functions import library
from tests.extras import needs


def test_a_value_of_a_row_reads_the_only_element() -> None:
    """The mean is over one entry, so that the loss of an element is one of a row."""
    needs("cc")
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


@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_elements_are_read_before_they_are_updated_in_place(axis: Axis, tmp_path: Path) -> None:
    """A loop over one entry stores a new total in the place of the old, and what it follows."""
    b = BodyBuilder()
    total, x = b.load("total", "each", "float32"), b.load("x", "each", "float32")
    other: Broadcast = "row" if axis == "columns" else "column"
    new = total + x * x
    b.store(new, "total", "each")
    b.store(new + (x + x).sum(axis), "next", other)
    functions = Functions(fused=False)
    code = Code(functions)
    names = {name: name for name in ("total", "x", "next")}
    loop = Loop(1, 1, axis, b.body(), "none")
    LoopWriter(code, loop, names, dict.fromkeys(names, "1")).write()
    head = "void run(ptrdiff_t n, float *total, const float *x, float *next)"
    text = [PROLOGUE, *functions.texts.values(), f"{head};", head, "{", "(void)n;", *code.lines]
    arrays = [np.array([number], np.float32) for number in (3.0, 2.0, 0.0)]
    run = library(tmp_path, "\n".join([*text, "}", ""])).run
    run(ctypes.c_ssize_t(1), *(ctypes.c_void_p(array.ctypes.data) for array in arrays))
    assert [float(array[0]) for array in arrays] == [7, 2, 11]
