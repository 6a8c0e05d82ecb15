"""Judge passes: one by itself, or all that compiling runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphc.graph import Graph, verify
from graphc.net import Net
from graphc.validation.compare import Mismatch
from graphc.validation.draws import Draw, draws_for
from graphc.validation.error import validation_error
from graphc.validation.judge import judge

if TYPE_CHECKING:
    from passes.pipeline import Pass

BATCHES = (1, 7)


def validate_pass(
    step: Pass,
    graph: Graph | Net,
    *,
    batches: Iterable[int] = BATCHES,
    seed: int = 0,
    feeds: Mapping[str, Any] | None = None,
) -> Graph:
    """Run a pass on a graph and judge the result, which is returned.

    Raises ValidationError where the pass changed a result beyond what it declares, and
    GraphError where its graph is not sound.
    """
    from passes.pipeline import name_of

    before = graph.graph() if isinstance(graph, Net) else graph
    made = step(before)
    verify(made)
    found = mismatch_of(step, before, made, draws_for(before, batches, seed=seed, given=feeds))
    if found is not None:
        raise validation_error(name_of(step), found, culprit=made.nodes.get(found.node))
    return made


def mismatch_of(
    step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]
) -> Mismatch | None:
    """The first result that the pass changed; an op that cannot run counts as one."""
    if made is before:
        return None
    return judge(step, before, made, draws)
