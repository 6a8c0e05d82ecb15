"""Runs calls so that an interrupt comes before or after them, but not between."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from operator import call

from graphc.backends.backend import Call


def run_all(calls: Iterable[Call]) -> None:
    """Make the calls in order.

    No Python bytecode runs between them, so that an interrupt comes before the first or after the
    last, unless a call is itself a Python function.
    """
    deque(map(call, calls), 0)
