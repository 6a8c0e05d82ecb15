"""Steps that work on elements: functions, arithmetic with broadcasting, choices."""

from __future__ import annotations

from collections.abc import Callable

import graphc as gc
from graphc.ops.functions import Sign
from tests.tools.generate.growth import Growth, columns

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
        gc.sin,
        gc.cos,
        gc.atan,
        gc.asinh,
        lambda v: gc.tan(gc.tanh(v)),
        lambda v: gc.asin(gc.tanh(v) * 0.9),
        lambda v: gc.acos(gc.tanh(v) * 0.9),
        lambda v: gc.sinh(gc.tanh(v)),
        lambda v: gc.cosh(gc.tanh(v)),
        lambda v: gc.acosh(gc.abs(v) + 1.5),
        lambda v: gc.atanh(gc.tanh(v) * 0.7),
        lambda v: gc.log1p(gc.abs(v)),
        lambda v: gc.expm1(gc.tanh(v)),
        lambda v: gc.reciprocal(g.positive(v)),
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
        lambda v: gc.celu(v, g.choice(1.0, 0.5)),
        lambda v: gc.thresholded_relu(v, g.choice(0.0, 0.5)),
        lambda v: gc.shrink(v, 0.5, g.choice(0.0, 0.5)),
        gc.relu6,
        gc.hard_tanh,
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


def power_of(g: Growth, x: gc.Value) -> gc.Value:
    """A power whose exponent is a value."""
    return gc.power(g.positive(gc.tanh(x)), gc.tanh(g.like(x)) * g.choice(1.0, 2.0))


def rounded(g: Growth, x: gc.Value) -> gc.Value:
    """What is left of a number beside a whole one."""
    k = g.choice(0.7, -0.6)
    ops: tuple[Unary, ...] = (
        lambda v: v - gc.floor(v),
        lambda v: gc.tanh(gc.ceil(v * 3.0)) + v,
        lambda v: v * gc.round(v * 2.0) * 0.2,
        lambda v: gc.mod(v, k),
        lambda v: gc.fmod(v, k),
        lambda v: gc.fmod(v, g.positive(gc.tanh(g.like(v)))),
    )
    return g.tame(g.choice(*ops)(x))


def logic(g: Growth, x: gc.Value) -> gc.Value:
    """Comparisons that are joined."""
    a, b = (g.choice(*COMPARISONS)(x, _other(g, x)) for _ in range(2))
    both = g.choice(gc.logical_and, gc.logical_or, gc.logical_xor)(a, b)
    return gc.where(~both if g.chance(0.3) else both, x, gc.tanh(x) * 0.5)


def hits(g: Growth, x: gc.Value) -> gc.Value:
    """A comparison as a number."""
    condition = g.choice(*COMPARISONS)(x, _other(g, x))
    return gc.cast(condition, x.dtype) * 0.5 + gc.tanh(x)


def _other(g: Growth, x: gc.Value) -> gc.Value | float:
    return g.choice(0.1, -0.3, g.like(x), x)


STEPS = {
    unary: 18,
    activation: 15,
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
    power_of: 1,
    rounded: 5,
    logic: 4,
    hits: 2,
}
