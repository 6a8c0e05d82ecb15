"""Runs of native programs with zero-copy feeds: a user's arrays are read where they lie.

Arrays that native code cannot read as they are, or that are wrong, are left to the check that
converts or refuses them, and are copied into the workspace.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.backends.backend import Take
from graphc.ir.tensor_type import TensorType
from graphc.runtime.bound import BOUND_BATCHES, Binder, Bound

KNOWN_FEEDS = 64
"""The number of sets of inputs of a program that may be fed without a copy."""


class Direct:
    """A native program for zero-copy feeds of certain names."""

    __slots__ = ("_bind", "_bounds", "_copied", "_take")

    def __init__(self, take: Take, copied: tuple[str, ...], bind: Callable[[int], Bound]) -> None:
        self._take, self._copied, self._bind = take, copied, bind
        self._bounds: dict[int, Bound] = {}

    def ready(self, feeds: Mapping[str, Any]) -> Bound | None:
        """Return the program, set to read these arrays in its next run; None for unusual ones."""
        n = self._take(feeds)
        if n is None:
            return None
        bound = self._bounds.get(n)
        if bound is None:
            bound = self._bound(n)
        for name in self._copied:
            np.copyto(bound.feeds[name], feeds[name])
        return bound

    def _bound(self, n: int) -> Bound:
        if len(self._bounds) >= BOUND_BATCHES:
            self._bounds.clear()
        self._bounds[n] = bound = self._bind(n)
        return bound


class Directs(dict[tuple[str, ...], Direct]):
    """The native programs for zero-copy feeds that one program has, by the names of the feeds."""

    def add(
        self,
        binder: Binder,
        bound: Bound,
        types: Mapping[str, TensorType],
        missing: frozenset[str],
    ) -> None:
        """Let later runs read feeds of these names without a copy, if that is possible.

        The types are those declared, also of inputs that the program does not read: they have
        rows, too.
        """
        names = tuple(types)
        if names in self or len(self) >= KNOWN_FEEDS:
            return
        if (found := bound.runner.take(types)) is None:
            return
        program = bound.program
        self[names] = Direct(*found, lambda n: binder.layout(program, n, missing))
