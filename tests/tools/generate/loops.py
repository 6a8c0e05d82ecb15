"""Steps that are loops: random layers at each step of a sequence, with values handed on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import graphc as gc
from tests.tools.generate.growth import RECENT, Growth, features

MOST_INSIDE = 3
"""Steps of the generator in one step of a loop."""
NESTED = 2
"""The most loops within each other."""
WITHOUT = (
    *("affine_batchnorm", "batchnorm", "batchnorm_of_image", "statistics", "conv_block"),
    *("attention", "heads", "recurrent"),
)
"""Steps that do not stand inside: they have running statistics, or very many nodes."""


class Inside(Growth):
    """What grows in the step of a loop: its values are neither outputs nor losses of the net."""

    def __init__(self, outer: Growth, values: Sequence[gc.Value]) -> None:
        self.r, self.widths, self.net = outer.r, outer.widths, outer.net
        self.shareable, self.losses = outer.shareable, 0
        self.pool = list(values)
        self.depth = depth_of(outer) + 1

    def trained(self, x: gc.Value) -> bool:
        """True, so that it takes nothing more: `loss` decides."""
        return True

    def loss(self, value: gc.Value) -> None:
        """None here."""

    def output(self, name: str, value: gc.Value) -> None:
        """One more output if it is a value of the net."""
        if value.builder is self.net.builder:
            super().output(name, value)


def depth_of(g: Growth) -> int:
    """The loops around what grows."""
    return g.depth if isinstance(g, Inside) else 0


def loop(g: Growth, x: gc.Value) -> gc.Value:
    """A loop: with one or two inputs or none, and with no carried value or some."""
    if depth_of(g) >= NESTED or x.type.rank < 2:
        return gc.tanh(x)
    inputs, steps = _inputs(g, x)
    count = g.choice(0, 1, 1, 2, 3) if inputs else g.choice(1, 2)
    initial = [_initial(g) for _ in range(count)]

    def step(*given: gc.Value) -> tuple[Any, Any]:
        before = given[len(inputs) :]
        outside = g.r.sample(g.pool[-RECENT:], 1) if g.chance(0.5) else []
        inner = Inside(g, [*(_with_columns(value) for value in given), *outside])
        _grow(inner)
        nexts = [_next(inner, old) for old in before]
        outputs = [_of_rows(inner, inner.recent()) for _ in range(g.choice(1, 1, 2))]
        return tuple(outputs), tuple(nexts)

    outputs, lasts = gc.scan(
        step,
        inputs,
        initial,
        lengths=_lengths(g) if g.chance(0.35) else None,
        reverse=g.chance(0.35),
        steps=None if inputs else steps,
    )
    found = [*outputs, *lasts]
    g.r.shuffle(found)
    for value in found[1:]:
        if g.chance(0.7):
            g.add(_with_columns(value))
    return _with_columns(found[0])


def _grow(inner: Inside) -> None:
    from tests.tools.generate.steps import grow

    nested = () if inner.depth < NESTED else ("loop",)
    grow(inner, inner.r.randint(1, MOST_INSIDE), (*WITHOUT, *nested))


def _inputs(g: Growth, x: gc.Value) -> tuple[list[gc.Value], int]:
    """The sequences, and the number of steps."""
    first = _sequence(g, x)
    steps = first.shape[1]
    assert isinstance(steps, int)
    if g.chance(0.12):
        return [], g.choice(1, 2, 3)
    if g.chance(0.3):
        return [
            first,
            gc.reshape(gc.affine(gc.flatten(g.recent()), steps * 2), (gc.N, steps, 2))
            if g.chance(0.7)
            else gc.tanh(first),
        ], steps
    return [first], steps


def _sequence(g: Growth, x: gc.Value) -> gc.Value:
    """The value as (N, steps, ...), of few steps."""
    if x.type.rank > 2 and isinstance(x.shape[1], int) and x.shape[1] <= 5:
        return x
    size = features(x)
    if size <= 5 and g.chance(0.3):
        return gc.reshape(x, (gc.N, size))
    steps = g.choice(*(k for k in (1, 2, 3, 4, 5) if size % k == 0))
    return gc.reshape(x, (gc.N, steps, size // steps))


def _initial(g: Growth) -> gc.Value:
    """A value before the first step: of the rows, or the same for all of them."""
    width = g.width()
    if g.chance(0.3):
        return gc.broadcast_to(g.parameter(width), (gc.N, width))
    if g.chance(0.2):
        return gc.affine(gc.flatten(g.recent()), width)
    flat = gc.flatten(g.recent())
    return flat[:, : min(width, features(flat))]


def _next(inner: Inside, old: gc.Value) -> gc.Value:
    """The next value of a carried one, of its type and near 1 in size."""
    if inner.chance(0.1):
        return old
    found = gc.flatten(inner.recent())
    size = features(old)
    if features(found) != size or inner.chance(0.5):
        found = gc.affine(found, size)
    new = gc.reshape(inner.tame(found), old.shape)
    new = gc.cast(new, old.dtype) if new.dtype != old.dtype else new
    if inner.chance(0.4):
        gate = gc.sigmoid(new)
        return gate * new + (1 - gate) * old
    return gc.tanh(new + old * 0.5) if inner.chance(0.5) else new


def _of_rows(inner: Inside, value: gc.Value) -> gc.Value:
    """The value itself: all of them have the rows of the batch first."""
    return value


def _lengths(g: Growth) -> gc.Value:
    """The steps of each row: some have none, some more than there are."""
    fed = g.input("k", gc.N, dtype=g.choice("int64", "int32"))
    return g.choice(fed, fed + 1, fed * 2)


def _with_columns(value: gc.Value) -> gc.Value:
    return gc.reshape(value, (gc.N, 1)) if value.type.rank == 1 else value


STEPS = {loop: 3}
