"""The passes over its elements that a loop kernel needs, and the steps of each pass.

A reduction is known after a pass over all the elements that it reduces; steps that depend on it
wait for the next pass, which recomputes from memory the values of the elements that it needs.
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
    """The steps that this pass reduces: sums and maxima."""
    stores: tuple[Store, ...]
    """The stores of each element; only the last pass has any."""
    steps: tuple[int, ...]
    """The steps to compute for each element, in order; not the reductions of earlier passes."""


def phases(body: Body) -> list[Phase]:
    """Return the passes in order; an empty list if no reduction or store needs one."""
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
    """Return the numbers of the steps that sum or find the largest."""
    return [number for number, step in enumerate(body.steps) if _reduces(step)]


def needed(body: Body, roots: Iterable[int]) -> tuple[int, ...]:
    """Return `roots` and the steps that they need, in order; reductions count as known."""
    found: set[int] = set()
    todo = list(roots)
    while todo:
        number = todo.pop()
        if number not in found and not _reduces(body.steps[number]):
            found.add(number)
            todo.extend(body.steps[number].args)
    return tuple(sorted(found))


def stores_at(body: Body, *levels: Span) -> tuple[Store, ...]:
    """Return the stores that happen once for each element, row or column, or once in all.

    A value of a larger span than its store, such as the number of the only row, is stored as often
    as it is computed.
    """
    return tuple(s for s in body.stores if join(s.span, body.steps[s.step].span) in levels)


def as_one_row(kernel: Loop) -> Loop:
    """Return the kernel with the spans of its only row: a value of a column is an element's."""
    return _with_spans(kernel, {"column": "each"})


def as_one_column(kernel: Loop) -> Loop:
    """Return the kernel with the spans of its only column: a value of a row is an element's."""
    return _with_spans(kernel, {"row": "each", "column": "one"})


def _with_spans(kernel: Loop, spans: dict[Span, Span]) -> Loop:
    steps = tuple(s._replace(span=spans.get(s.span, s.span)) for s in kernel.body.steps)
    stores = tuple(s._replace(span=spans.get(s.span, s.span)) for s in kernel.body.stores)
    return replace(kernel, body=Body(steps, stores))


def _ready(body: Body) -> list[int]:
    """Return for each step the first pass that can compute it: the reductions on its path."""
    ready: list[int] = []
    for step in body.steps:
        ready.append(max((ready[a] + _reduces(body.steps[a]) for a in step.args), default=0))
    return ready


def _reduces(step: Step) -> bool:
    return step.op in REDUCTIONS
