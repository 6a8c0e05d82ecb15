"""Runs of native code in parts, as many as there may be threads, on any machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from graphc.backends.native import backend, pool
from graphc.backends.native.pool import FOREVER, Choice
from graphc.base import usable_cores
from graphc.kernels import duration


@contextmanager
def shared_runs(cores: int, short: bool = True) -> Iterator[pool.Pool]:
    """Share every run of what is bound here, as on a machine of so many cores.

    With `short`, also runs and epochs that are too short to share.  On a machine of fewer cores,
    threads take turns.  What was bound before chooses as always.
    """
    workers = pool.Pool(cores)
    choose = Choice.review

    def review(choice: Choice) -> None:
        return _share(choice) if choice._pool is workers else choose(choice)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pool, "_pool", workers)
        patch.setattr(usable_cores, "cores", lambda: cores)
        if short:
            patch.setattr(backend, "SHARED", 0)
            patch.setattr(duration, "SHARED", 0)
        patch.setattr(Choice, "review", review)
        yield workers
    workers.close()


def _share(choice: Choice) -> None:
    """Share the next run, whatever it costs, and come back before the one after."""
    choice._pool.start(choice._most)
    choice._set("deadline", FOREVER // 2)
    choice._set("threads", choice._most)
    choice._set("left", 0)
