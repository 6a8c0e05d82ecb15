"""Steps that work on elements: functions, arithmetic with broadcasting, choices."""

from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.ops.functions import Sign
from tests.generate.growth import Growth, columns

Unary = Callable[[gc.Value], gc.Value]
Binary = Callable[[gc.Value, gc.Value | float], gc.Value]

COMPARISONS: tuple[Binary, ...] = (
    gc.less,
    gc.less_equal,
    gc.greater,
    gc.greater_equal,
    gc.equal,
    gc.not_equal,
)


def unary(g: Growth, x: gc.Value) -> gc.Value:
    ops: tuple[Unary, ...] = (
        gc.relu,
        gc.tanh,
        gc.sigmoid,
        gc.abs,
        lambda v: gc.exp(gc.tanh(v)),
        lambda v: gc.log(g.positive(v)),
        lambda v: gc.sqrt(g.positive(v)),
        lambda v: -v,
        lambda v: gc.neg(gc.neg(v)),
        lambda v: gc.clip(v, -1.0, 1.0),
        lambda v: gc.clip(v, None, 0.7),
        lambda v: v * gc.apply(Sign(), v),
    )
    return g.choice(*ops)(x)


def activation(g: Growth, x: gc.Value) -> gc.Value:
    ops: tuple[Unary, ...] = (
        lambda v: gc.leaky_relu(v, g.choice(0.01, 0.3)),
        lambda v: gc.elu(v, g.choice(1.0, 0.5)),
        gc.selu,
        gc.gelu,
        lambda v: gc.gelu(v, "tanh"),
        gc.silu,
        gc.mish,
        gc.softplus,
        gc.softsign,
        gc.hard_sigmoid,
        gc.hard_swish,
        gc.erf,
    )
    return g.choice(*ops)(x)


def softmax(g: Growth, x: gc.Value) -> gc.Value:
    axis = g.choice(-1, -1, *range(x.type.rank))
    return gc.softmax(x, axis) if g.chance(0.6) else gc.log_softmax(gc.tanh(x), axis)


def power(g: Growth, x: gc.Value) -> gc.Value:
    if g.chance(0.5):
        return gc.power(gc.tanh(x), g.choice(0, 1, 2, 3, 4))
    return gc.power(g.positive(gc.tanh(x)), g.choice(0.5, -0.5, 1.5, -1, -2, 2.5))


def number(g: Growth, x: gc.Value) -> gc.Value:
    k = g.choice(0.0, 0.5, 1.0, -1.0, 2.0)
    ops: tuple[Binary, ...] = (
        lambda v, k: v + k,
        lambda v, k: v - k,
        lambda v, k: v * k,
        lambda v, k: v / (k or 1.0),
        lambda v, k: k - v,
        gc.maximum,
        gc.minimum,
    )
    return g.choice(*ops)(x, k)


def folded(g: Growth, x: gc.Value) -> gc.Value:
    """Arithmetic of constants, some of it without effect."""
    k = g.net.constant(g.choice(0.0, 0.5, 1.0))
    ops: tuple[Unary, ...] = (
        lambda v: v * gc.exp(k),
        lambda v: v * (k - k + 1.0),
        lambda v: gc.neg(gc.neg(v)) + gc.tanh(k),
        lambda v: (v * 1.0) / 1.0 - 0.0,
        lambda v: gc.power(v, 1),
    )
    return g.choice(*ops)(x)


def twice(g: Growth, x: gc.Value) -> gc.Value:
    """The same expression two times over."""
    k = g.choice(0.5, -2.0)
    return gc.tanh(x * k) + gc.tanh(x * k)


def pair(g: Growth, x: gc.Value) -> gc.Value:
    """Two values of one shape."""
    op = g.choice(gc.add, gc.sub, gc.mul, gc.maximum, gc.minimum)
    return g.tame(op(x, g.like(x)))


def quotient(g: Growth, x: gc.Value) -> gc.Value:
    return gc.tanh(x) / g.positive(gc.tanh(g.like(x)))


def broadcast(g: Growth, x: gc.Value) -> gc.Value:
    """With a parameter, a feed or a part that has fewer axes, or axes of size 1."""
    last, rank = columns(x), x.type.rank
    others: tuple[Callable[[], gc.Value], ...] = (
        lambda: g.parameter(last),
        lambda: g.parameter(*[1] * (rank - 1), last),
        lambda: g.parameter(*[1] * rank),
        lambda: g.parameter(),
        lambda: g.input("t"),
        lambda: g.input("column", gc.N, *[1] * (rank - 1)),
        lambda: g.input("line", 1, last),
        lambda: x[..., :1],
        lambda: gc.mean(x, 0, keepdims=True),
    )
    other = g.choice(*others)()
    op = g.choice(gc.add, gc.sub, gc.mul, gc.maximum, gc.minimum)
    out = op(x, other) if g.chance(0.5) else op(other, x)
    return gc.tanh(out + other) if g.chance(0.3) else g.tame(out)


def outer(g: Growth, x: gc.Value) -> gc.Value:
    """A column by a row that depends on no batch."""
    wide = g.width()
    return gc.tanh(g.matrix(x)[:, :1] * g.parameter(wide) + g.parameter(1, wide))


def where(g: Growth, x: gc.Value) -> gc.Value:
    condition = g.choice(*COMPARISONS)(x, _other(g, x))
    if g.chance(0.3):
        g.output("condition", condition)
    a: gc.Value | float = g.choice(x, g.like(x))
    return gc.where(condition, a, g.choice(x * 0.5, 0.0, -x))


def hits(g: Growth, x: gc.Value) -> gc.Value:
    """A comparison as a number."""
    condition = g.choice(*COMPARISONS)(x, _other(g, x))
    return gc.cast(condition, x.dtype) * 0.5 + gc.tanh(x)


def _other(g: Growth, x: gc.Value) -> gc.Value | float:
    return g.choice(0.1, -0.3, g.like(x), x)


STEPS = {
    unary: 8,
    activation: 6,
    softmax: 3,
    power: 3,
    number: 5,
    folded: 3,
    twice: 3,
    pair: 5,
    quotient: 2,
    broadcast: 5,
    outer: 1,
    where: 3,
    hits: 2,
}
