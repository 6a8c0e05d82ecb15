"""The passes over its elements that a loop kernel needs, and what each pass computes.

A reduction is known after a pass over all the elements that it reduces; what depends on it
waits for the next pass, which computes again from memory what it needs of the elements.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from graphc.kernels.body import Body, Span, Step, Store
from graphc.kernels.expr import join
from graphc.kernels.kernel import Loop

REDUCTIONS = ("sum", "max")


@dataclass(frozen=True)
class Phase:
    """One pass over the elements."""

    reductions: tuple[int, ...]
    """The steps that it sums, or finds the largest of."""
    stores: tuple[Store, ...]
    """What it writes of each element; only the last pass writes."""
    steps: tuple[int, ...]
    """What it must know of an element, in order; not the reductions of earlier passes."""


def phases(body: Body) -> list[Phase]:
    """The passes, in order; none where no store needs one."""
    ready = _ready(body)
    stores = stores_at(body, "each")
    levels = [ready[number] for number in reductions(body)]
    levels += [ready[s.step] + _reduces(body.steps[s.step]) for s in stores]
    found = []
    for level in range(max(levels, default=-1) + 1):
        reduced = tuple(r for r in reductions(body) if ready[r] == level)
        written = stores if level == max(levels) else ()
        roots = [body.steps[r].args[0] for r in reduced] + [s.step for s in written]
        found.append(Phase(reduced, written, needed(body, roots)))
    return found


def reductions(body: Body) -> list[int]:
    """The steps that sum, or find the largest."""
    return [number for number, step in enumerate(body.steps) if _reduces(step)]


def needed(body: Body, roots: Iterable[int]) -> tuple[int, ...]:
    """The steps that these need, in order; reductions count as known."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        number = todo.pop()
        if number not in found and not _reduces(body.steps[number]):
            found.add(number)
            todo.extend(body.steps[number].args)
    return tuple(sorted(found))


def stores_at(body: Body, *levels: Span) -> tuple[Store, ...]:
    """The stores that happen once for each element, row, column, or once in all.

    A value of a larger span than its place, such as the number of the only row, is stored where
    it is computed.
    """
    return tuple(s for s in body.stores if join(s.span, body.steps[s.step].span) in levels)


def as_one_row(kernel: Loop) -> Loop:
    """The kernel with the spans of its only row: what depends on the column is an element."""
    return _with_spans(kernel, {"column": "each"})


def as_one_column(kernel: Loop) -> Loop:
    """The kernel with the spans of its only column: what depends on the row is an element."""
    return _with_spans(kernel, {"row": "each", "column": "one"})


def _with_spans(kernel: Loop, spans: dict[Span, Span]) -> Loop:
    steps = tuple(s._replace(span=spans.get(s.span, s.span)) for s in kernel.body.steps)
    stores = tuple(s._replace(span=spans.get(s.span, s.span)) for s in kernel.body.stores)
    return replace(kernel, body=Body(steps, stores))


def _ready(body: Body) -> list[int]:
    """For each step the first pass that can compute it: the reductions on its longest path."""
    ready: list[int] = []
    for step in body.steps:
        ready.append(max((ready[a] + _reduces(body.steps[a]) for a in step.args), default=0))
    return ready


def _reduces(step: Step) -> bool:
    return step.op in REDUCTIONS
