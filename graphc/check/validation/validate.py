"""Judges passes: one by itself, or each that a compilation runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphc.base.errors import GraphError
from graphc.base.own_passes import own_passes
from graphc.check.float64 import in_float64
from graphc.check.validation.draws import Draw, batches_for, draws_for
from graphc.check.validation.explain import explained, explained_update
from graphc.check.validation.judge import judge
from graphc.check.validation.updates import apply_mismatch
from graphc.declare.net import Net
from graphc.declare.optim import Optimizer
from graphc.ir.graph import Graph, Node, verify

if TYPE_CHECKING:
    from passes.pipeline import Pass

FOLDER = "graphc-failures"
"""The folder where tests are written, in the current folder."""


def validate_pass(
    step: Pass,
    graph: Graph | Net,
    *,
    batches: Iterable[int] = (1, 7),
    seed: int = 0,
    feeds: Mapping[str, Any] | None = None,
    folder: str | Path | None = None,
) -> Graph:
    """Run a pass on a graph, judge the result, and return it.

    `feeds` are used instead of random inputs, for one batch size.  If `folder` is given, the
    smallest graph that still fails is written there, as a test.

    Raise ValidationError if the pass changed a result beyond what it declares, and
    GraphError if its graph is not sound.
    """
    before = graph.graph() if isinstance(graph, Net) else graph
    made = step(before)
    verify(made, before=before)
    if made is not before:
        draws = draws_for(before, batches, seed=seed, given=feeds)
        _check(step, before, made, draws, Path(folder) if folder is not None else None)
    return made


def _check(
    step: Pass, before: Graph, made: Graph, draws: Sequence[Draw], folder: Path | None
) -> None:
    try:
        failure = judge(step, before, made, draws)
    except GraphError as error:
        from passes.pipeline import name_of

        error.add_note(f"when pass {name_of(step)!r} was validated")
        raise
    if failure is not None:
        raise explained(step, before, made, failure, folder)


class Watch:
    """Judges each pass of a compilation when it has run."""

    def __init__(self, declared: Graph, capacity: int, folder: str | Path = FOLDER) -> None:
        self.declared, self.capacity, self.folder = declared, capacity, Path(folder)
        self.judged: list[str] = []
        """The passes that were judged, in order."""

    @cached_property
    def draws(self) -> tuple[Draw, ...]:
        """The random numbers for one row, for a prime number of rows, and for the capacity."""
        return draws_for(self.declared, batches_for(self.capacity))

    def __call__(self, step: Pass, before: Graph, made: Graph) -> None:
        """Judge a pass; raise ValidationError if it fails."""
        from passes.pipeline import name_of

        _check(step, before, made, self.draws, self.folder)
        self.judged.append(name_of(step))

    def apply(self, parameters: Sequence[Node], optimizer: Optimizer, made: Graph) -> None:
        """Judge the graph of an update alone; raise ValidationError if it is wrong."""
        _check_apply(parameters, optimizer, made, self.draws[0], self.folder)
        self.judged.append("apply_update")


def validate_apply(
    parameters: Iterable[Node],
    optimizer: Optimizer,
    *,
    seed: int = 0,
    folder: str | Path | None = None,
) -> Graph:
    """Return the graph that updates these parameters, judged by the optimizer's rule.

    Raise ValidationError if a next state differs from the rule's.
    """
    own_passes()
    from passes.apply_update import apply_graph

    nodes = list(parameters)
    made = apply_graph(nodes, optimizer)
    where = Path(folder) if folder is not None else None
    _check_apply(nodes, optimizer, made, Draw(1, seed), where)
    return made


def _check_apply(
    parameters: Sequence[Node], optimizer: Optimizer, made: Graph, draw: Draw, folder: Path | None
) -> None:
    found = apply_mismatch(parameters, optimizer, in_float64(made), draw)
    if found is not None:
        raise explained_update(parameters, optimizer, in_float64(made), found, draw, folder)
