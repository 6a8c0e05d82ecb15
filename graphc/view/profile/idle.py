"""A wait for threads of this process that have nothing to do but still spin."""

from __future__ import annotations

from time import process_time, sleep

PAUSE = 0.005
LONGEST = 0.3


def await_idle() -> None:
    """Return once the process takes next to no time of any core, or after 0.3 s.

    OpenBLAS's threads look for work for some hundredths of a second after a product before they
    sleep; anything timed meanwhile has to share the cores with them.
    """
    for _ in range(round(LONGEST / PAUSE)):
        before = process_time()
        sleep(PAUSE)
        if process_time() - before < PAUSE / 10:
            return
