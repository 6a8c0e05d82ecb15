"""The formulas as calls: what graphc computes of arguments, and what plain NumPy does."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from types import CodeType, SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from graphc.cli.installation import plain
from graphc.cli.installation.formulas import FORMULAS


class Argument(NamedTuple):
    """The kind of an argument: the shape of a row, the range of its numbers, if it has rows."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    rows: bool = True
    dtype: str = ""


ARGUMENTS: Mapping[str, Argument] = {
    **dict.fromkeys(("x", "y", "z"), Argument((4,))),
    **dict.fromkeys(("p", "q"), Argument((4,), 0.3, 3.0)),
    "u": Argument((4,), -0.9, 0.9),
    "t": Argument((4,), 0.1, 0.9),
    "wide": Argument((19,)),
    **dict.fromkeys(("s", "s2"), Argument((6, 3))),
    "a": Argument((5, 4)),
    "b": Argument((4, 3)),
    "m": Argument((4, 7, 6)),
    "line": Argument((4, 9)),
    "w": Argument((4, 3), rows=False),
    "c": Argument((3,), rows=False),
    "table": Argument((5, 3), rows=False),
    "k": Argument((6, 2, 3, 2), -0.5, 0.5, rows=False),
    "kt": Argument((4, 3, 3, 2), -0.5, 0.5, rows=False),
    "k1": Argument((4, 1, 3), rows=False),
    "c6": Argument((6,), rows=False),
    "i": Argument((), 0, 4, dtype="int64"),
    "j": Argument((3,), 0, 4, dtype="int64"),
    "n": Argument((), 1, 7, dtype="int64"),
    "long": Argument((33, 3)),
    "l": Argument((), 1, 34, dtype="int64"),
}
"""The arguments of calls by name.  Floats with rows are the sum of an input and a parameter."""


class Call(NamedTuple):
    """A formula: both sides, and the names of its arguments and of parameters that it declares."""

    left: CodeType
    right: CodeType
    arguments: tuple[str, ...]
    declared: tuple[str, ...]


def own_loop(
    s: gc.Value, u: gc.Value, n: gc.Value | None, factor: float, **options: Any
) -> gc.Value:
    """Return the states h = tanh(factor * h + x) + t / 10 of a loop of the user's own."""

    def step(x: gc.Value, h: gc.Value, t: gc.Value) -> tuple[Any, Any]:
        h = gc.tanh(h * factor + x)
        return h + t * 0.1, (h, t + 1)

    made: gc.Value = gc.scan(step, s, (u[:, :3], u[:, 3:] * 0), lengths=n, **options)[0]
    return made


def slope_of(y: gc.Value, x: gc.Value) -> gc.Value:
    """Return the gradient of the sum of y, which bundles differentiate again."""
    made: gc.Value = gc.grad(gc.sum(y), x)  # type: ignore[assignment]
    return made


NAMES: Mapping[str, Any] = {
    **{"gc": gc, "np": np, "plain": plain, "own_loop": own_loop, "slope_of": slope_of},
    **{"alike": SimpleNamespace(**{**vars(np), **vars(plain)})},
    **vars(plain),
}
"""The names in formulas besides arguments; `alike` has what is called as in graphc."""
WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
"""The parameters that WEIGHTS in a formula are, each with the prefix before it."""


@cache
def calls() -> Mapping[str, Call]:
    """Return the calls of all formulas by their left sides."""
    return parsed(sides_of(FORMULAS))


def sides_of(text: str) -> Iterator[tuple[str, str]]:
    """Yield both sides of the formulas in a text."""
    for line in re.sub(r"(\w*)WEIGHTS", _weights, text.replace("\n    ", " ")).splitlines():
        if " == " in line:
            left, right = line.split(" == ", 1)
            yield left, right
        elif " ~ " in line:
            call, right = line.split(" ~ ", 1)
            y, x = call.rsplit(" by ", 1)
            yield f"slope_of({y}, {x})", f"grown(lambda {x}: {right}, {x})"
        else:
            yield from ((one, one.replace("gc.", "alike.")) for one in line.split("; "))


def _weights(found: re.Match[str]) -> str:
    return ", ".join(found[1] + name for name in WEIGHTS)


def parsed(formulas: Iterable[tuple[str, str]]) -> dict[str, Call]:
    """Return the calls of formulas by their left sides."""
    found = {}
    for left, right in formulas:
        sides = [compile(side, side, "eval") for side in (left, right)]
        names = dict.fromkeys(name for side in sides for name in _names(side))
        arguments = tuple(name for name in names if name in ARGUMENTS)
        own = (n for n in dict.fromkeys(_names(sides[1])) if n not in {*ARGUMENTS, *NAMES})
        declared = tuple(name for name in own if name.split("__")[-1] in DECLARED)
        found[left] = Call(sides[0], sides[1], arguments, declared)
    return found


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names that an expression looks up, also inside its lambdas."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


DECLARED = ("gamma", "beta", "slope", "weight", "bias", *WEIGHTS, "weight_hr")
"""The parameters that functions declare by themselves."""
