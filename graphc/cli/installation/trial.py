"""Sections share this: their seed and time, and how numbers are compared."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from graphc.backends.backend import BACKENDS, backend
from graphc.base.errors import failure_text

ROUGH = {"float64": 1e-7, "float32": 5e-5, "bfloat16": 2e-2}
"""The errors that results may have, relative to their size and to the mean size of all of them."""

SMALL = 0.03
"""A size that is added to it, as terms of sums cancel."""


class Wrong(Exception):
    """A fault of this installation, in a sentence."""


@dataclass
class Trial:
    """The seed of a section, its time and folder, and what it leaves out."""

    seed: int
    seconds: float
    folder: Path
    left: list[str] = field(default_factory=list)
    """The parts that were left out, and the reasons."""
    started: float = field(default_factory=time.process_time)

    @cached_property
    def rng(self) -> np.random.Generator:
        """The random numbers of the section, the same for a seed."""
        return np.random.default_rng(self.seed)

    def numbers(self, least: int) -> Iterator[int]:
        """Yield the numbers of cases: at least so many, and more while there is time."""
        for number in count():
            if number >= least and time.process_time() - self.started > self.seconds:
                return
            yield number

    @contextmanager
    def case(self, what: str) -> Iterator[None]:
        """Say in errors what case was checked."""
        try:
            yield
        except Exception as error:
            text = str(error) if isinstance(error, Wrong) else failure_text(error)
            raise Wrong(f"{text}\n  in the case: {what}") from error

    def backends(self) -> list[str]:
        """Return the backends that are here; report the others as left out."""
        why = {name: backend(name).missing() for name in BACKENDS}
        self.left += [f"left out: {text}" for text in why.values() if text]
        return [name for name, text in why.items() if not text]


def near(what: str, expected: Any, found: Any, rough: float) -> None:
    """Raise Wrong unless numbers are near what they should be, and of its shape."""
    right, other = np.asarray(expected), np.asarray(found)
    if right.shape != other.shape:
        raise Wrong(f"{what}: its shape is {other.shape}, it must be {right.shape}")
    right, other = right.astype("float64"), other.astype("float64")
    size = np.abs(right[np.isfinite(right)])
    bound = rough * (np.abs(right) + (size.mean() if size.size else 0) + SMALL)
    with np.errstate(all="ignore"):
        fits = (np.abs(right - other) <= bound) | (right == other)
    fits |= np.isnan(right) & np.isnan(other)
    if not fits.all():
        at = tuple(map(int, np.argwhere(~fits)[0]))
        raise Wrong(f"{what}{list(at) or ''} is {other[at]:.9g}, it must be {right[at]:.9g}")


def same(what: str, expected: Any, found: Any) -> None:
    """Raise Wrong unless arrays have the same bytes."""
    right, other = np.asarray(expected), np.asarray(found)
    if (right.dtype, right.shape) != (other.dtype, other.shape):
        raise Wrong(f"{what} is {other.dtype}{other.shape}, it must be {right.dtype}{right.shape}")
    if right.tobytes() != other.tobytes():
        near(what, right, other, 0.0)
        raise Wrong(f"{what} has other bytes than it must have")


def all_same(what: str, expected: Any, found: Any) -> None:
    """Raise Wrong unless two mappings have the same arrays by name."""
    if set(expected) != set(found):
        raise Wrong(f"{what}: its names are {sorted(found)}, they must be {sorted(expected)}")
    for name, array in expected.items():
        same(f"{what}: {name}", array, found[name])


def some(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield the items in lists of a size."""
    left = list(items)
    for start in range(0, len(left), size):
        yield left[start : start + size]
