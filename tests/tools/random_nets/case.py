"""A drawn case: the net, what it is fed, and how it is compiled and run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphc as gc

from .calls import Call, Rows
from .drawer import Feed, Shape


@dataclass(frozen=True)
class Case:
    """All that a run depends on.

    `actions` are run in turn, each on so many rows.  `losses` says of each loss how it counts
    rows: "mean", "sum", or "mixed" where they are not apart; `outputs` says whether each has rows.
    `apart`: no row of an output or
    loss depends on another row.  `masks` has the shape and share of each dropout,
    `dtypes` that of each result, `smooth` the shapes of outputs that gradients flow from.
    `products` says what factors are rounded to: bf16, bf16_blocks, int8 or nothing.
    """

    seed: int
    dtype: str
    calls: tuple[Call, ...]
    inputs: Mapping[str, Feed]
    losses: Mapping[str, str]
    outputs: Mapping[str, bool]
    apart: bool
    batch: int
    actions: tuple[tuple[str, int], ...]
    optimizer: gc.optim.Optimizer | None = None
    wrt: tuple[str, ...] | None = None
    masks: Mapping[str, tuple[Shape, float]] = field(default_factory=dict)
    ignored: Mapping[str, int | None] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)
    smooth: Mapping[str, Shape] = field(default_factory=dict)
    products: str = ""

    @property
    def raw(self) -> frozenset[str]:
        """The inputs, which some functions take only as they are."""
        return frozenset(
            n for call in self.calls if call.function == "net.input" for n in call.results
        )

    @property
    def fitted(self) -> frozenset[str]:
        """The names of the statistics of inputs that are standardised."""
        names = [call.kwargs["name"] for call in self.calls if call.function == "gc.standardize"]
        return frozenset(f"{name}.{key}" for name in names for key in ("mean", "scale"))

    def feeds(self, rows: int, turn: int) -> dict[str, Any]:
        """Return an array of numbers for each input; they depend on the turn."""
        rng = np.random.default_rng([self.seed, turn])
        return {name: self._fed(rng, name, feed, rows) for name, feed in self.inputs.items()}

    def _fed(self, rng: np.random.Generator, name: str, feed: Feed, rows: int) -> Any:
        shape = sized(feed.shape, rows)
        if feed.kind == "labels":
            return self._labels(rng, name, feed.count, shape)
        return KINDS[feed.kind](rng, shape, feed.count, self.dtype)

    def _labels(self, rng: np.random.Generator, name: str, count: int, shape: Any) -> Any:
        labels = rng.integers(0, count, shape)
        ignored = self.ignored.get(name)
        if ignored is None:
            return labels
        if ignored >= 0:  # Class 0: the first row has another, so that a mean is of something.
            labels.flat[0] = min(1, count - 1)
            return labels
        gone = rng.random(shape) < 0.3
        gone.flat[0] = False
        return np.where(gone, ignored, labels)


def sized(shape: Shape, rows: int) -> tuple[int, ...]:
    """Return a shape for so many rows."""
    return tuple(dim.times * rows if isinstance(dim, Rows) else dim for dim in shape)


def _weights(rng: np.random.Generator, shape: Any, _: int, dtype: str) -> Any:
    found = np.where(rng.random(shape) < 0.15, 0, rng.uniform(0.2, 2, shape)).astype(dtype)
    found.flat[0] = 1
    return found


def _shares(rng: np.random.Generator, shape: Any, _: int, dtype: str) -> Any:
    found = rng.uniform(0.1, 1, shape)
    return (found / found.sum(axis=1, keepdims=True)).astype(dtype)


KINDS: dict[str, Any] = {
    "normal": lambda rng, shape, _, dtype: rng.normal(size=shape).astype(dtype),
    "ids": lambda rng, shape, count, _: rng.integers(0, count, shape),
    "bools": lambda rng, shape, _, __: rng.random(shape) < 0.5,
    "unit": lambda rng, shape, _, dtype: rng.random(shape).astype(dtype),
    "signs": lambda rng, shape, _, dtype: rng.choice([-1.0, 1.0], shape).astype(dtype),
    "counts": lambda rng, shape, _, dtype: rng.integers(0, 5, shape).astype(dtype),
    "weights": _weights,
    "shares": _shares,
}
