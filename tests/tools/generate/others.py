"""Steps of whole numbers, of parameters by themselves, and of derivatives inside the net."""

from __future__ import annotations

import graphc as gc
from tests.tools.generate.growth import CLASSES, Growth, columns, scalar


def argmax(g: Growth, x: gc.Value) -> gc.Value:
    """The place of the largest of each row, as a one-hot row beside it."""
    h = g.matrix(x)
    best = gc.argmax(h, g.choice(1, -1))
    if g.chance(0.4):
        g.output("argmax", best)
    hot = gc.one_hot(best, columns(h), dtype=h.dtype)
    return gc.concat([gc.tanh(h), hot], axis=1) if g.chance(0.5) else hot * 0.5 + h


def argmax_of_columns(g: Growth, x: gc.Value) -> gc.Value:
    find = g.choice(gc.argmax, gc.argmin)
    g.output("places", find(x, g.choice(*range(x.type.rank))))
    return gc.tanh(x)


def pick(g: Growth, x: gc.Value) -> gc.Value:
    """One of each row's first numbers, by labels that are fed."""
    h = g.matrix(x)
    if columns(h) < CLASSES:
        h = gc.affine(h, CLASSES)
    chosen = gc.pick(h, _labels(g))
    return gc.tanh(h) - gc.reshape(gc.tanh(chosen), (gc.N, 1))


def one_hot(g: Growth, x: gc.Value) -> gc.Value:
    h = g.matrix(x)
    hot = gc.one_hot(_labels(g), CLASSES, dtype=h.dtype)
    return gc.concat([h, hot], axis=1)


def whole_numbers(g: Growth, x: gc.Value) -> gc.Value:
    """Arithmetic of integers, which no gradient flows through."""
    k = _labels(g)
    ways: tuple[gc.Value, ...] = (
        *(k + 1, k * 2 - 1, -k, gc.maximum(k, 1), gc.minimum(k, k * 2), gc.abs(-k)),
        *(k % 2, k // 2, gc.trunc_div(-k, 2), k & 1, k | 2),
    )
    k = g.choice(*ways)
    g.output("whole", k)
    h = g.matrix(x)
    return gc.tanh(h) + gc.reshape(gc.cast(k, h.dtype), (gc.N, 1)) * 0.25


def _labels(g: Growth) -> gc.Value:
    return g.input("k", gc.N, dtype=g.choice("int64", "int64", "int32"))


def square_weight(g: Growth, x: gc.Value) -> gc.Value:
    """A weight that a loss depends on, too, perhaps as both factors of a product."""
    h = g.matrix(x)
    p = g.parameter(columns(h), columns(h))
    p = p * 0.5 if g.chance(0.5) else p
    q = gc.matmul(p, p) if g.chance(0.7) else p + gc.transpose(p, (1, 0))
    g.loss(gc.tanh(q))
    return gc.tanh(gc.matmul(h, p)) + h


def stacked_weights(g: Growth, x: gc.Value) -> gc.Value:
    """Parameters that are stacks of matrices, as factors of each other; one in another order."""
    many, rows, inner, last = g.choice(1, 2, 4), g.width(), g.width(), columns(x)
    q = g.parameter(many, inner, last)
    if g.chance(0.5):
        p = g.parameter(many, rows, inner)
    else:
        p, q = gc.transpose(g.parameter(inner, many, rows), (1, 2, 0)), gc.tanh(q)
    product = gc.matmul(p, q)
    if g.chance(0.5):
        g.loss(gc.tanh(product))
    return gc.tanh(x * gc.tanh(gc.mean(product, (0, 1))))


def rows_by_shape(g: Growth, x: gc.Value) -> gc.Value:
    """A parameter repeated for each row: it depends on the batch by its shape alone."""
    p = g.parameter(columns(x)) if g.chance(0.7) else g.parameter()
    repeated = gc.broadcast_to(p, (gc.N, columns(x)))
    if g.chance(0.7):
        value = gc.tanh(repeated)
        g.loss(gc.mean(value * value) if g.chance(0.3) else gc.sum(value) * 0.1)
    if g.chance(0.5):
        g.output("repeated", repeated)
    return gc.tanh(g.matrix(x)[:, : columns(x)] + repeated)


def reshaped_weight(g: Growth, x: gc.Value) -> gc.Value:
    h = g.matrix(x)
    p = g.parameter(2, columns(h))
    weight = gc.reshape(p, (columns(h), 2)) + gc.transpose(p)
    return gc.tanh(gc.matmul(h, weight)) + gc.sum(gc.tanh(p), 1)


def static(g: Growth, x: gc.Value) -> gc.Value:
    """Values of parameters alone, joined, cut and summed."""
    last = columns(x)
    p, q = g.parameter(1, last), g.parameter(last, 1)
    long = gc.concat([p, gc.tanh(p)], axis=1)[:, 1 : last + 1]
    row = long + gc.transpose(q, (1, 0)) + gc.sum(q, 0)
    return gc.tanh(x * row) if x.type.rank == 2 else gc.tanh(x * gc.reshape(row, (last,)))


def slope(g: Growth, x: gc.Value) -> gc.Value:
    """The derivative of a smooth function of x by x: second derivatives when trained."""
    h = g.matrix(x)
    inner = gc.tanh(gc.affine(h, 2)) if g.chance(0.5) else gc.sigmoid(h) * gc.softmax(h)
    found = gc.grad(gc.sum(inner * inner), h)
    assert isinstance(found, gc.Value)
    if g.chance(0.5):
        g.loss((gc.sum(found * found, 1) - 1.0) * 0.2)
    return gc.tanh(found)


def slope_of_all(g: Growth, x: gc.Value) -> gc.Value:
    """The derivative of any part of the net by its first value, or by the part itself."""
    bounded = gc.tanh(x)
    try:
        found = gc.grad(scalar(bounded), g.pool[0])
    except gc.GraphError:  # it does not depend on that
        found = gc.grad(scalar(bounded), x)
    assert isinstance(found, gc.Value)
    return gc.tanh(found)


def statistics(g: Growth, x: gc.Value) -> gc.Value:
    """Running statistics of a batchnorm before, read as values and perhaps as an output."""
    from graphc.ops.source import State

    nodes = g.net.builder.nodes
    names = [n.name for n in nodes.values() if isinstance(n.op, State) and n.type.rank == 1]
    if not names:
        x = gc.batchnorm(x)
        names = [f"{x.name}.running_mean", f"{x.name}.running_var"]
    running = g.net[g.choice(*names)]
    if g.chance(0.4):
        g.output("running", running)
    return gc.tanh(x) * gc.mean(gc.tanh(running))


STEPS = {
    statistics: 1,
    argmax: 3,
    argmax_of_columns: 1,
    pick: 2,
    one_hot: 1,
    whole_numbers: 1,
    square_weight: 1,
    stacked_weights: 1,
    rows_by_shape: 1,
    reshaped_weight: 1,
    static: 1,
    slope: 1,
    slope_of_all: 1,
}
