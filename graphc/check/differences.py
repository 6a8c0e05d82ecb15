"""Central differences, and the test of a derivative against them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from graphc.ir.init import generator
from graphc.ir.op import Array

Index = tuple[int, ...]

SMALL = 1e-7
"""The magnitude below which derivatives are compared absolutely."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One derivative by the rules and by differences, and the error between them."""

    index: Index
    ours: float
    numeric: float
    error: float


def relative_error(a: float, b: float, noise: float = 0.0) -> float:
    """Return |a - b| / max(1e-8, |a| + |b|), less `noise`; absolute if both are below 1e-7.

    NaN counts as infinitely far, so that it never passes.
    """
    gap = abs(a - b) - noise
    if not np.isfinite(gap):
        return float("inf")
    gap = max(0.0, gap)
    if max(abs(a), abs(b)) < SMALL:
        return gap
    return gap / max(1e-8, abs(a) + abs(b))


def compare(
    f: Callable[[], float], x: Array, index: Index, ours: float, h: float, tolerance: float
) -> Entry:
    """Compare a derivative of `f` at one entry of `x`, which is changed in place and restored.

    The step is h * max(1, |x|).  `f` is exact to about 16 rounding errors of its own size, which do
    not count against the derivative.  An entry that disagrees is tried with ever smaller steps,
    because a kink (relu, max, a margin) nearer than the step is not a mistake.
    """
    first = _difference(f, x, index, ours, h)
    if first.error <= tolerance:
        return first
    for shrink in (1 / 32, 1 / 1024):
        entry = _difference(f, x, index, ours, h * shrink)
        if entry.error <= tolerance:
            return entry
    return first


def _difference(f: Callable[[], float], x: Array, index: Index, ours: float, h: float) -> Entry:
    kept = x[index]
    step = h * max(1.0, abs(float(kept)))
    x[index] = kept + step
    right, high = f(), float(x[index])
    x[index] = kept - step
    left, low = f(), float(x[index])
    x[index] = kept
    width = high - low
    noise = 16 * np.finfo(np.float64).eps * max(abs(left), abs(right)) / width
    numeric = (right - left) / width
    return Entry(index, ours, numeric, relative_error(ours, numeric, noise))


def indices(shape: tuple[int, ...], name: str, limit: int, seed: int = 0) -> Iterator[Index]:
    """Yield every index of a small array, `limit` of a larger one, the same for the same name."""
    size = int(np.prod(shape))
    flat = np.arange(size)
    if size > limit:
        rng = generator(seed, f"indices:{name}")
        flat = np.sort(rng.choice(size, limit, replace=False))
    for place in flat:
        yield tuple(int(i) for i in np.unravel_index(int(place), shape))
