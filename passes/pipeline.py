"""Passes, their order, and the loop that runs them: verify, time, record, name them in errors.

A pass is a function `Graph -> Graph`, or a frozen dataclass with `__call__` if it has
options.  It returns the same object if it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Literal, cast

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, verify

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
class PassList:
    """Passes in order; a string is a slot for the pass of that name, made with its options."""

    entries: tuple[Pass | str, ...]
    required: frozenset[str] = frozenset()
    """The names of passes that a plan needs."""

    def __iter__(self) -> Iterator[Pass | str]:
        return iter(self.entries)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in order; a pass that runs twice is listed twice."""
        return tuple(map(_entry_name, self.entries))

    def without(self, *names: str) -> PassList:
        """Return the list without passes of these names; raise GraphError for a required one."""
        for name in names:
            self._check_known(name)
            if name in self.required:
                optional = dict.fromkeys(n for n in self.names if n not in self.required)
                raise GraphError(
                    f"pass {name!r} is required",
                    hint=f"these can be left out: {', '.join(optional)}",
                )
        kept = tuple(entry for entry in self.entries if _entry_name(entry) not in names)
        return PassList(kept, self.required)

    def after(self, name: str, step: Pass) -> PassList:
        """Return the list with a user's pass right after the first of that name."""
        return self._insert(self._position(name) + 1, step)

    def before(self, name: str, step: Pass) -> PassList:
        """Return the list with a user's pass right before the first of that name."""
        return self._insert(self._position(name), step)

    def fill(self, slots: Mapping[str, Pass | None]) -> tuple[Pass, ...]:
        """Return the passes, with each slot filled; a slot not given, or None, is left out."""
        filled = (slots.get(entry) if isinstance(entry, str) else entry for entry in self.entries)
        return tuple(step for step in filled if step is not None)

    def _insert(self, position: int, step: Pass) -> PassList:
        if not callable(step):
            raise GraphError(
                f"{step!r} is not a pass",
                hint="a pass is a function that takes and returns a Graph",
            )
        entries = (*self.entries[:position], step, *self.entries[position:])
        return PassList(entries, self.required)

    def _position(self, name: str) -> int:
        self._check_known(name)
        return self.names.index(name)

    def _check_known(self, name: str) -> None:
        if name not in self.names:
            known = ", ".join(dict.fromkeys(self.names))
            raise GraphError(f"there is no pass {name!r}", hint=f"the passes are {known}")


def _entry_name(entry: Pass | str) -> str:
    return entry if isinstance(entry, str) else name_of(entry)


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


def pinned(graph: Graph) -> frozenset[str]:
    """Return the nodes that must stay as they are until Backward, which differentiates by them.

    Before Backward, `graph.gradients` maps such a node to itself.  If the node were merged with
    another, its gradient would be the sum of both; if readers read another, it would have none.
    """
    return frozenset(name for name, node in graph.gradients.items() if name == node)
