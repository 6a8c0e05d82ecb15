"""A pause of Python's search for reference cycles, for work in which it only costs time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause the search for reference cycles: a plan is many small objects that are all kept.

    The search would take a third of the compile time of a large net, and grow faster than the net.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            if not gc.get_freeze_count():
                gc.freeze()  # all objects count as old: enabling would search the new ones at once
                gc.unfreeze()
            gc.enable()
