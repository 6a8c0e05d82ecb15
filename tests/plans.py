"""Plans that the tests of a file share: plans are immutable."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import graphc as gc

VARIABLES = ("GRAPHC_BACKEND", "GRAPHC_THREADS", "OMP_NUM_THREADS")
"""What `gc.compile` reads besides its arguments."""


def compiled(declare: Callable[..., gc.Net], *given: Hashable, **options: Any) -> gc.Plan:
    """The plan of the net that `declare` makes of what is given, compiled once for each choice."""
    chosen = tuple(options.items())
    try:
        hash(chosen)
    except TypeError:
        return gc.compile(declare(*given), **options)
    return _compiled(declare, given, chosen, tuple(map(os.environ.get, VARIABLES)))


@lru_cache(maxsize=32, typed=True)
def _compiled(
    declare: Callable[..., gc.Net], given: tuple[Any, ...], options: Any, variables: Any
) -> gc.Plan:
    return gc.compile(declare(*given), **dict(options))
