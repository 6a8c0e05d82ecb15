"""Steps that change shapes, take parts, join, and reduce."""

from __future__ import annotations

from typing import Any

import graphc as gc
from tests.tools.generate.growth import Growth, columns, features


def reshape(g: Growth, x: gc.Value) -> gc.Value:
    size = features(x)
    parts = [k for k in (1, 2, 3) if size % k == 0]
    k = g.choice(*parts)
    shapes = ((-1,), (k, size // k), (size // k, k), (k, 1, size // k))
    shape = g.choice(*shapes)
    return gc.reshape(gc.reshape(x, (gc.N, size)) if g.chance(0.3) else x, (gc.N, *shape))


def transpose(g: Growth, x: gc.Value) -> gc.Value:
    axes = list(range(1, x.type.rank))
    g.r.shuffle(axes)
    return gc.transpose(x, (0, *axes))


def turned(g: Growth, x: gc.Value) -> gc.Value:
    """The batch as the last axis for a while."""
    h = gc.transpose(g.matrix(x))
    h = g.choice(gc.tanh, gc.sigmoid, gc.relu)(h * g.parameter(columns(g.matrix(x)), 1))
    return gc.transpose(h, (1, 0))


def concat(g: Growth, x: gc.Value) -> gc.Value:
    axis = g.choice(-1, g.axis(x))
    axis = axis % x.type.rank

    def rest(v: gc.Value) -> tuple[object, ...]:
        return (*v.shape[:axis], *v.shape[axis + 1 :])

    others = [v for v in g.pool if v.type.rank == x.type.rank and rest(v) == rest(x)]
    parts = [x, *(g.choice(*others) for _ in range(g.choice(0, 1, 1, 2)))]
    g.r.shuffle(parts)
    return gc.concat(parts, axis=axis)


def cut(g: Growth, x: gc.Value) -> gc.Value:
    width = columns(x)
    start = g.r.randrange(width)
    stop = g.r.randint(start + 1, width)
    return x[..., start : stop : g.choice(1, 1, 2, 3)]


def turned_around(g: Growth, x: gc.Value) -> gc.Value:
    axis = g.axis(x)
    if g.chance(0.5):
        return gc.flip(x, axis)
    start = g.r.randrange(columns(x))
    return x[..., start :: g.choice(-1, -2)]


def moved(g: Growth, x: gc.Value) -> gc.Value:
    return gc.roll(x, g.r.randint(-3, 3), g.axis(x))


def padded(g: Growth, x: gc.Value) -> gc.Value:
    """Entries of an axis again around it."""
    pairs = [(0, 0)] * x.type.rank
    axis = g.axis(x)
    pairs[axis] = g.r.randrange(3), g.r.randrange(3)
    mode = g.choice("edge", "reflect", "wrap") if x.shape[axis] != 1 else "edge"
    return gc.pad(x, pairs, mode=mode)


def resized(g: Growth, x: gc.Value) -> gc.Value:
    axis = g.axis(x)
    mode = g.choice("nearest", "linear", "cubic")
    places = g.choice("half_pixel", "align_corners", "asymmetric")
    return gc.resize(x, [g.r.randint(1, 8)], axes=[axis], mode=mode, places=places)


def repeated(g: Growth, x: gc.Value) -> gc.Value:
    axis, times = g.axis(x), g.choice(1, 2, 3)
    if g.chance(0.5):
        return gc.repeat(x, times, axis)
    return gc.tile(x, [times if i == axis else 1 for i in range(x.type.rank)])


def stacked(g: Growth, x: gc.Value) -> gc.Value:
    return gc.stack([x, gc.tanh(g.like(x))], g.choice(1, -1))


def halves(g: Growth, x: gc.Value) -> gc.Value:
    """Parts in another order; of one column its tanh."""
    if columns(x) < 2:
        return gc.tanh(x)
    first = g.r.randint(1, columns(x) - 1)
    a, b = gc.split(x, [first, columns(x) - first])
    return gc.concat([b, gc.tanh(a)])


def triangle(g: Growth, x: gc.Value) -> gc.Value:
    h = gc.unsqueeze(x, 1)
    if g.chance(0.5):
        h = gc.tile(h, (1, 2, *[1] * (x.type.rank - 1)))
    return g.choice(gc.tril, gc.triu)(h, g.choice(0, 1, -1))


def running(g: Growth, x: gc.Value) -> gc.Value:
    options = {"exclusive": g.chance(0.3), "reverse": g.chance(0.3)}
    if g.chance(0.5):
        return gc.tanh(gc.cumprod(gc.tanh(x) + 0.5, g.axis(x), **options))
    axis = 0 if g.chance(0.2) else g.axis(x)
    return gc.tanh(gc.cumsum(x, axis, **options) * 0.3)


def products(g: Growth, x: gc.Value) -> gc.Value:
    return x + gc.prod(gc.tanh(x) + 0.3, g.axis(x), keepdims=True)


def sorted_(g: Growth, x: gc.Value) -> gc.Value:
    axis = g.axis(x)
    if g.chance(0.5):
        return gc.sort(x, axis, descending=g.chance(0.5))
    size = x.shape[axis]
    assert isinstance(size, int)
    values, places = gc.topk(x, g.r.randint(1, size), axis, largest=g.chance(0.7))
    if g.chance(0.3):
        g.output("order", places)
    return values


def index(g: Growth, x: gc.Value) -> gc.Value:
    """One index of an axis, which goes where there are others left."""
    place = g.choice(0, -1)
    return x[:, place] if x.type.rank > 2 else x[:, place : columns(x)][:, :1]


def gate(g: Growth, x: gc.Value) -> gc.Value:
    """Two slices, which may overlap, of about half the columns."""
    h = g.matrix(x)
    half = max(1, columns(h) // 2)
    a, b = (g.r.randrange(columns(h) - half + 1) for _ in range(2))
    return gc.sigmoid(h[:, a : a + half]) * h[:, b : b + half]


def spread(g: Growth, x: gc.Value) -> gc.Value:
    """What is left after a reduction that keeps its axes."""
    axes = _axes(g, x)
    reduced = _reduction(g)(x, axes, keepdims=True)
    return gc.tanh(x - reduced)


def reduced(g: Growth, x: gc.Value) -> gc.Value:
    """The rows' own numbers after a reduction that drops its axes."""
    value = _reduction(g)(x, g.axis(x))
    back = value if value.type.rank > 1 else gc.reshape(value, (gc.N, 1))
    return gc.tanh(back)


def over_all(g: Growth, x: gc.Value) -> gc.Value:
    """Scaled by one number of the whole batch."""
    value = g.choice(gc.mean, gc.max)(x, None)
    if g.chance(0.3):
        g.output("number", value)
    return x * gc.tanh(value)


def centred(g: Growth, x: gc.Value) -> gc.Value:
    return x - gc.mean(x, 0, keepdims=True)


def weighted(g: Growth, x: gc.Value) -> gc.Value:
    return gc.softmax(x) * gc.sum(gc.tanh(x), -1, keepdims=True)


def broadcast_to(g: Growth, x: gc.Value) -> gc.Value:
    mean = gc.mean(x, _axes(g, x), keepdims=True)
    return gc.broadcast_to(mean, x.shape) * 0.5 + x


def other_dtype(g: Growth, x: gc.Value) -> gc.Value:
    """Through the other float dtype and back."""
    other = "float32" if x.dtype == "float64" else "float64"
    return gc.cast(gc.tanh(gc.cast(x, other)), x.dtype)


def stopped(g: Growth, x: gc.Value) -> gc.Value:
    return x * gc.stop_gradient(gc.tanh(g.like(x)))


def _axes(g: Growth, x: gc.Value) -> int | tuple[int, ...]:
    axes = range(x.type.rank)
    several = tuple(axis for axis in axes if g.chance(0.4))
    return g.choice(*axes, several or g.axis(x))


def _reduction(g: Growth):  # type: ignore[no-untyped-def]
    return g.choice(gc.sum, gc.mean, gc.max, gc.min, _squares, gc.l1_norm, gc.l2_norm, gc.logsumexp)


def _squares(x: gc.Value, *axes: Any, **options: Any) -> gc.Value:
    return gc.sum_squares(gc.tanh(x), *axes, **options)


STEPS = {
    reshape: 3,
    transpose: 2,
    turned: 1,
    concat: 4,
    cut: 3,
    turned_around: 1,
    moved: 1,
    repeated: 1,
    resized: 1,
    padded: 1,
    stacked: 1,
    halves: 1,
    triangle: 1,
    running: 2,
    products: 1,
    sorted_: 2,
    index: 2,
    gate: 2,
    spread: 3,
    reduced: 2,
    over_all: 1,
    centred: 2,
    weighted: 1,
    broadcast_to: 1,
    other_dtype: 1,
    stopped: 2,
}
