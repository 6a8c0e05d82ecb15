"""The work that reading a file may take: counted before it is done, refused beyond a budget.

A few bytes can ask for any amount of work: derivatives of derivatives, loops in loops, a product
of large constants.  So all code that makes nodes, computes elements or makes arrays spends from
the budget of the file that is being read, and reading ends when the budget is exceeded.  Nothing
is counted while users declare and compile their own nets.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from graphc.base.errors import GraphError, ModelFileError

NODES = 16_000
"""The nodes that may be made for any file, besides those of its graph."""
ELEMENTS = 1 << 25
"""The numbers that may be computed for any file."""
ELEMENTS_EACH = 16
"""The further numbers that may be computed for each byte of the file."""
BYTES = 32 << 20
"""The bytes of arrays that may be made for any file."""
BYTES_EACH = 16
"""The further bytes of arrays that may be made for each byte of the file."""

VARIABLE = "GRAPHC_WORK"


class _Budget:
    """The work that is left for a file, by kind."""

    def __init__(self, file: str, limits: dict[str, float]) -> None:
        self.file, self.limits, self.left = file, limits, dict(limits)
        self.error: ModelFileError | None = None

    def spend(self, kind: str, count: int) -> None:
        """Subtract from what is left of a kind; raise ModelFileError if that is too little."""
        self.left[kind] -= count
        if self.left[kind] < 0:
            self.error = ModelFileError(
                f"reading {self.file} takes too much work: more than {self.limits[kind]:,.0f} "
                f"{kind}",
                hint=f"if that is intended, allow ten times as much: work=10, or {VARIABLE}=10",
            )
            raise self.error


_current: ContextVar[_Budget | None] = ContextVar("work", default=None)


@contextmanager
def work_budget(file: str, *, nbytes: int, nodes: int, work: float | None = None) -> Iterator[None]:
    """Count the work in the context for a file of `nbytes` bytes, whose graph makes `nodes` nodes.

    `work` allows that many times as much; None means GRAPHC_WORK, or 1.  Within another budget this
    changes nothing.  Raise ModelFileError if the work exceeds the budget, even if code inside
    caught it and raised another.
    """
    if _current.get() is not None:
        yield
        return
    times = _times() if work is None else _checked(work, "work")
    limits = {
        "nodes": times * (NODES + nodes),
        "elements": times * (ELEMENTS + ELEMENTS_EACH * nbytes),
        "bytes": times * (BYTES + BYTES_EACH * nbytes),
    }
    budget = _Budget(file, limits)
    token = _current.set(budget)
    try:
        yield
    except Exception as error:
        if budget.error is not None and budget.error is not error:
            raise budget.error from None
        raise
    finally:
        _current.reset(token)


def _spend(kind: str, count: int) -> None:
    budget = _current.get()
    if budget is not None:
        budget.spend(kind, count)


def spend_nodes(count: int = 1) -> None:
    """Count nodes that are about to be made, or steps that take as long as one."""
    _spend("nodes", count)


def spend_elements(count: int) -> None:
    """Count numbers that are about to be computed."""
    _spend("elements", count)


def spend_bytes(count: int) -> None:
    """Count bytes of arrays that are about to be made."""
    _spend("bytes", count)


def spend_array(count: int) -> None:
    """Count an array of `count` numbers that is about to be computed."""
    spend_elements(count)
    spend_bytes(8 * count)


def bytes_left() -> int | None:
    """Return the bytes that may still be made, or None if nothing is counted."""
    budget = _current.get()
    left = math.inf if budget is None else budget.left["bytes"]
    return None if left == math.inf else int(left)


def _times() -> float:
    text = os.environ.get(VARIABLE, "1")
    try:
        return _checked(float(text), VARIABLE)
    except ValueError:
        return _checked(text, VARIABLE)


def _checked(work: object, name: str) -> float:
    if isinstance(work, (int, float)) and not isinstance(work, bool) and work > 0:
        return float(work)
    raise GraphError(
        f"{name} is {work!r}, it must be a number above 0",
        hint=f"{name}=10 allows ten times the work",
    )
