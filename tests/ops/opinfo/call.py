"""A call of one of PyTorch's functions on arrays, as both sides make it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphc.ir.op import Array

Results = dict[str, Array]
"""The results y0, y1, ...; the gradients d0, d1, ... of the sum of all y times weights, by each
array; and those of the sum of these times weights, dd0, dd1, ... by each array and dd_y0, ...
by the first weights."""


@dataclass(frozen=True)
class Operand:
    """Stands in a call's arguments for the array of that number."""

    number: int


@dataclass(frozen=True, eq=False)
class Call:
    """Arguments with `Operand`s in them, the arrays, and which of those are differentiated by.

    What graphc's layers make themselves are `parameters`: numbers of arrays by name.  Their
    operands stand last in `args`, and graphc's function does without them.
    """

    label: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    arrays: tuple[Array, ...]
    wrt: tuple[int, ...]
    parameters: Mapping[str, int] | None = None

    def filled(self, values: Mapping[int, Any]) -> tuple[Any, Any]:
        """The arguments with a value in the place of each operand."""
        return mapped(lambda leaf: _value(leaf, values), (self.args, dict(self.kwargs)))

    def weights(self, what: str, shape: Any) -> Array:
        """Random numbers, the same for both sides."""
        rng = np.random.default_rng([self._seed, zlib.crc32(what.encode())])
        return np.asarray(rng.standard_normal(tuple(shape)))

    @cached_property
    def _seed(self) -> int:
        return zlib.crc32(self.label.encode())


def _value(leaf: Any, values: Mapping[int, Any]) -> Any:
    return values[leaf.number] if isinstance(leaf, Operand) else leaf


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Lists, tuples and dictionaries with the function applied to what is in them."""
    if isinstance(tree, (list, tuple)):
        parts = [mapped(function, part) for part in tree]
        return parts if isinstance(tree, list) else tuple(parts)
    if isinstance(tree, dict):
        return {key: mapped(function, part) for key, part in tree.items()}
    return function(tree)


def difference(found: Results, wanted: Results) -> str | None:
    """The first result that is another; None where all are the same, up to rounding."""
    if sum(key.startswith("y") for key in found) != sum(key.startswith("y") for key in wanted):
        return "another number of results"
    for key, value in wanted.items():
        mine = found[key]
        if mine.shape != value.shape or mine.dtype != value.dtype:
            return f"{key} is {mine.dtype}{list(mine.shape)}, not {value.dtype}{list(value.shape)}"
        if not np.allclose(mine, value, rtol=1e-9, atol=1e-9 * _size(value), equal_nan=True):
            return f"{key} is another"
    return None


def _size(value: Array) -> float:
    """What rounding is measured by."""
    finite = np.abs(value[np.isfinite(value)].astype(float))
    return max(1.0, float(finite.max(initial=0.0)))
