"""Loops whose step is plain data: functions of what is carried, each with its numbers.

Besides them, "product" is that with the weight, perhaps turned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import graphc as gc

Line = tuple[Any, ...]
"""The name of a function, and its numbers."""


def _where(h: gc.Value, x: gc.Value, number: float, other: float) -> gc.Value:
    return gc.where(gc.greater(x, number), h, h * other)


LINES: dict[str, Callable[..., Any]] = {
    "mul": lambda h, x, number: h * number,
    "add": lambda h, x, number: h + number,
    "mix": lambda h, x, number: h * number + x * (1 - number),
    "clip": lambda h, x, number: gc.clip(h, -abs(number) - 0.1, abs(number) + 0.2),
    "leaky": lambda h, x, number: gc.leaky_relu(h, number),
    "elu": lambda h, x, number: gc.elu(h + x, abs(number) + 0.1),
    "power": lambda h, x, number: gc.power(gc.abs(h) + 0.5, number),
    "where": _where,
    "div": lambda h, x, number: x / (h * h + abs(number) + 0.3),
    "inverse": lambda h, x, number: h + gc.sign(1 / (x * 0.0 + number)),
    "mean": lambda h, x, number: h - gc.mean(h, 1, True) * number,
    "softmax": lambda h, x, number: gc.softmax(h * number, 1),
    "cumsum": lambda h, x, reverse: gc.cumsum(h, 1, reverse=bool(reverse)),
    "roll": lambda h, x, number: gc.roll(h, int(number), 1) + x,
    "function": lambda h, x, name: getattr(gc, name)(h),
}


def scan(
    x: gc.Value,
    lines: tuple[Line, ...],
    weight: gc.Value | None = None,
    lengths: gc.Value | None = None,
    reverse: bool = False,
    name: str | None = None,
) -> Any:
    """Return the values of all steps and the last one of a loop over x (N, T, C)."""

    def product(h: gc.Value, turned: object) -> gc.Value:
        assert weight is not None
        return h @ (gc.transpose(weight) if turned else weight)

    def step(xt: gc.Value, h: gc.Value) -> tuple[gc.Value, gc.Value]:
        new = h if weight is None else h @ weight
        new = new + xt
        for line, *numbers in lines:
            new = product(new, *numbers) if line == "product" else LINES[line](new, xt, *numbers)
        new = gc.tanh(new)
        return new, new

    return gc.scan(step, x, x[:, 0] * 0.0, lengths=lengths, reverse=reverse, name=name)
