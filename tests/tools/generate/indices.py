"""Steps that read and write by indices."""

from __future__ import annotations

import numpy as np

import graphc as gc
from tests.tools.generate.growth import CLASSES, Growth, columns


def embedding(g: Growth, x: gc.Value) -> gc.Value:
    """Rows of a parameter, by labels that are fed or by places that are computed."""
    h = g.matrix(x)
    if g.chance(0.5):
        ids = g.input("k", gc.N, dtype=g.choice("int64", "int32"))
        rows = gc.embedding(ids, CLASSES, columns(h), init=gc.Normal(0.4), dtype=h.dtype)
    else:
        rows = gc.gather(g.parameter(columns(h), columns(h)), gc.argmax(h, 1))
    return gc.tanh(h) + rows


def gather(g: Growth, x: gc.Value) -> gc.Value:
    """Entries of an axis in another order, some of them twice."""
    axis = g.axis(x)
    return gc.gather(x, _places(g, x, axis), axis)


def gather_elements(g: Growth, x: gc.Value) -> gc.Value:
    """From each row the numbers at places of its own."""
    h = g.matrix(x)
    return gc.gather_elements(h, _of_each_row(g, h), axis=1)


def scatter(g: Growth, x: gc.Value) -> gc.Value:
    """Numbers of each row to places of its own; some meet."""
    h = g.matrix(x)
    places = _of_each_row(g, h)
    updates = gc.tanh(gc.gather_elements(h, places, axis=1)) * g.choice(0.5, 2.0)
    how = g.choice("none", "add", "add", "max", "min")
    return g.tame(gc.scatter_elements(h, places, updates, axis=1, reduction=how))


def slices(g: Growth, x: gc.Value) -> gc.Value:
    """Numbers of a parameter, each by two indices, and slices written into another."""
    h = g.matrix(x)
    last = columns(h)
    table = g.parameter(2, last)
    pairs = [[g.r.randrange(2), g.r.randrange(last)] for _ in range(last)]
    row = gc.gather_nd(table, pairs)
    rows = gc.scatter_nd(table, [[g.r.randrange(2)] for _ in range(3)], g.parameter(3, last))
    return gc.tanh(h * row) + gc.sum(gc.tanh(rows), 0)


def rows_of_rows(g: Growth, x: gc.Value) -> gc.Value:
    """Slices of each row by an index of its own."""
    h = gc.reshape(x, (gc.N, columns(x), -1))
    label = gc.reshape(gc.argmax(h, 1)[:, 0], (gc.N, 1, 1))
    return gc.tanh(gc.gather_nd(h, label, batch_dims=1))


def _places(g: Growth, x: gc.Value, axis: int) -> list[int]:
    size = x.shape[axis]
    assert isinstance(size, int)
    return [g.r.randrange(size) for _ in range(g.r.randint(1, size + 1))]


def _of_each_row(g: Growth, h: gc.Value) -> gc.Value:
    """Places (N, k) of columns of h; the fed ones are the same for each row of labels."""
    count = g.r.randint(1, 4)
    shift = g.net.constant(np.array([[g.r.randrange(columns(h)) for _ in range(count)]]))
    best = gc.reshape(gc.argmax(h, 1), (gc.N, 1))
    return gc.minimum(best, shift) if g.chance(0.5) else gc.maximum(best - 1, shift)


STEPS = {
    embedding: 3,
    gather: 2,
    gather_elements: 1,
    scatter: 2,
    slices: 1,
    rows_of_rows: 1,
}
