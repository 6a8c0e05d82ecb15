"""The type of a pass, and the loop that runs them: verify, time, record, name the pass in errors.

A pass is a function `Graph -> Graph`, or a frozen dataclass with `__call__` if it has
options.  It returns the same object if it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, cast

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph
from graphc.ir.verify import verify

Pass = Callable[[Graph], Graph]
Preserves = Literal["bitwise", "reassociated", "approximate"]
"""Whether results keep every bit, are the same mathematics with other rounding, or are close."""


@dataclass(frozen=True)
class FunctionPass:
    """A pass without options: a function, and what it preserves."""

    run: Pass
    preserves: Preserves
    bound: float | None = None
    """For an approximate pass: the largest error of a result, as a part of its largest number."""

    @property
    def name(self) -> str:
        """The function's name."""
        return self.run.__name__

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph that the function makes."""
        return self.run(graph)


def graph_pass(preserves: Preserves, bound: float | None = None) -> Callable[[Pass], FunctionPass]:
    """Return a decorator that declares what a function from graph to graph preserves.

    An approximate pass states a `bound`: no number of a result moves by more than that part of
    the result's largest number.
    """
    return lambda run: FunctionPass(run, preserves, bound)


def name_of(step: Pass) -> str:
    """Return the pass's `name`, or else the name of the function or class."""
    name = getattr(step, "name", None) or getattr(step, "__name__", None)
    return str(name or type(step).__name__)


def preserves_of(step: Pass) -> Preserves:
    """Return what the pass declares to preserve; a plain function is taken to be approximate."""
    return cast(Preserves, getattr(step, "preserves", "approximate"))


def bound_of(step: Pass) -> float | None:
    """Return the bound that an approximate pass declares, or None if it declares none."""
    bound = getattr(step, "bound", None)
    return None if bound is None else float(bound)


@dataclass(frozen=True)
class PassRecord:
    """The graph that one pass made, and the seconds that it took."""

    name: str
    graph: Graph
    seconds: float


def run_passes(
    graph: Graph,
    passes: Iterable[Pass],
    after: Callable[[Pass, Graph, Graph], object] | None = None,
    *,
    verified: bool = False,
) -> tuple[Graph, tuple[PassRecord, ...]]:
    """Run the passes in order; call `after(step, before, made)` for each that changed the graph.

    The whole graph is verified first, unless it is `verified` because passes made it, and the nodes
    that a pass changed right after it.  An exception keeps its type and gets the pass's name as a
    note.
    """
    if not verified:
        verify(graph)
    records: list[PassRecord] = []
    settled: list[Pass] = []  # passes that changed nothing in the current graph
    for step in passes:
        name = name_of(step)
        start = perf_counter()
        try:
            made = graph if step in settled else _run_one(step, name, graph)
        except Exception as error:
            error.add_note(f"in pass {name!r}")
            raise
        records.append(PassRecord(name, made, perf_counter() - start))
        if after is not None and made is not graph:
            after(step, graph, made)
        settled = [*settled, step] if made is graph else []
        graph = made
    return graph, tuple(records)


def _run_one(step: Pass, name: str, graph: Graph) -> Graph:
    made = step(graph)
    if not isinstance(made, Graph):
        raise GraphError(
            f"pass {name!r} gave {type(made).__name__}, not a Graph",
            hint="a pass returns a Graph, the one it was given if nothing changes",
        )
    if made is not graph:
        verify(made, before=graph)
    return made
