"""Layers as lines `name = formula`, of which a mistake replaces some."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np


class Formulas:
    """A layer as lines `name = formula` of this package, from the top; a mistake replaces some."""

    def __init__(self, text: str) -> None:
        self.lines = _parsed(text)

    def results(self, given: Mapping[str, Any], mistake: str = "") -> dict[str, Any]:
        """Return all values; the lines of the mistake are separated by semicolons."""
        found = dict(given)
        for name, formula in (self.lines | _parsed(mistake.replace("; ", "\n"))).items():
            found[name] = eval(formula, _FUNCTIONS, found)
        return found


@lru_cache(maxsize=1024)
def _parsed(text: str) -> dict[str, Any]:
    """Return the compiled formulas by the name that each defines."""
    lines = (line.partition(" = ") for line in text.strip().splitlines())
    return {name: compile(formula, name, "eval") for name, _, formula in lines}


def table(text: str) -> dict[str, str]:
    """Return mistakes, which are written as `lines | what there is to say`, by what is said."""
    rows = (line.partition(" | ") for line in text.strip().splitlines())
    return {said: lines for lines, _, said in rows}


_FUNCTIONS = {
    "tanh": np.tanh,
    "sqrt": np.sqrt,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "maximum": np.maximum,
    "block": lambda a, k: np.split(a, 4, axis=1)[k],
    "join": lambda *gates: np.concatenate(gates, axis=1),
}
"""The functions that formulas call."""
