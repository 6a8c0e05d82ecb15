"""Chooses what is compared for each pass, and by which measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from graphc.base.errors import GraphError
from graphc.base.own_passes import own_passes
from graphc.check.float64 import in_float64
from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.derivative import derivative_mismatch
from graphc.check.validation.draws import Draw, given_of, special
from graphc.check.validation.exchange import bucket_mismatch, exchange_mismatch, held_mismatch
from graphc.check.validation.layers import layer_mismatch
from graphc.check.validation.run import Results, largest, results_of, spread, values_of_arrays
from graphc.check.validation.shards import shard_mismatch, summed_derivative_mismatch
from graphc.check.validation.updates import accumulation_mismatch, update_mismatch
from graphc.ir.graph import Graph, verify
from graphc.ir.op import Layer
from graphc.ops.exchange import Total

if TYPE_CHECKING:
    from passes.pipeline import Pass

Check = Callable[[Graph, Graph, Draw], Mismatch | None]
"""A function that compares what two graphs compute."""

SINGLE = float(2**29)
"""The ratio of the precisions of float64 and float32."""


@dataclass(frozen=True)
class Failure:
    """A comparison that a pass failed, which can be repeated with other graphs."""

    mismatch: Mismatch
    old: Graph
    new: Graph
    draw: Draw
    check: Check

    def shows(self, graph: Graph) -> bool:
        """Return whether the same result is wrong in a graph that is between old and new."""
        try:
            verify(graph)
            found = self.check(self.old, graph, self.draw)
        except Exception:
            return False
        return found is not None and found.what == self.mismatch.what


def judge(step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]) -> Failure | None:
    """Return the first comparison that shows a change beyond what the pass declares, or None.

    specialize, backward, update and accumulate add results, and shard, data_parallel and hold_back
    change what a run computes on; they have separate checks, which know what must be there
    afterwards.
    """
    for old, new, check, chosen in _comparisons(step, before, made, draws):
        for draw in chosen:
            found = check(old, new, draw)
            if found is not None:
                return Failure(found, old, new, draw, check)
    return None


Comparison = tuple[Graph, Graph, Check, Sequence[Draw]]


def _comparisons(
    step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]
) -> Iterator[Comparison]:
    own_passes()
    from passes.accumulate import Accumulate
    from passes.backward import Backward
    from passes.data_parallel import DataParallel
    from passes.hold_back import hold_back
    from passes.shard import Shard
    from passes.specialize import Specialize
    from passes.update import Update

    if isinstance(step, Specialize):
        wide = in_float64(before)
        for new, scale in _in_float64(step, before, wide, made):
            yield wide, new, partial(layer_mismatch, step.train, scale), draws
    elif isinstance(step, Backward):
        yield in_float64(before), in_float64(made), partial(derivative_mismatch, step), draws
        if any(isinstance(node.op, Total) for node in before):
            check = partial(summed_derivative_mismatch, step)
            yield in_float64(before), in_float64(made), check, draws
    elif isinstance(step, Update):
        check = partial(update_mismatch, step.optimizer)
        yield in_float64(before), in_float64(made), check, draws
    elif isinstance(step, Accumulate):
        check = partial(accumulation_mismatch, step.optimizer)
        yield in_float64(before), in_float64(made), check, draws
    elif isinstance(step, Shard):
        yield in_float64(before), in_float64(made), partial(shard_mismatch, step), draws
    elif isinstance(step, DataParallel):
        yield before, made, bucket_mismatch, draws[:1]
        yield in_float64(before), in_float64(made), exchange_mismatch, draws
    elif step is hold_back:
        yield before, made, held_mismatch, draws
    else:
        yield from _general(step, before, made, draws)


def _general(step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]) -> Iterator[Comparison]:
    """Yield comparisons of every output, gradient and next state, by the class of the pass."""
    from passes.pipeline import preserves_of

    kind = preserves_of(step)
    if kind == "bitwise":
        every = [*draws, *(special(draw) for draw in draws[:2])]
        for old, new in _runnable(before, made):
            yield old, new, _bitwise, every
        return
    wide = in_float64(before)
    if kind == "reassociated":
        for wide_made, scale in _in_float64(step, before, wide, made):
            for old, new in _runnable(wide, wide_made):
                yield old, new, partial(_reassociated, scale), draws
        return
    bound = _stated_bound(step)
    for old, new in _runnable(wide, in_float64(made)):
        yield old, new, partial(_approximate, bound), draws


def _runnable(before: Graph, made: Graph) -> list[tuple[Graph, Graph]]:
    """Return both graphs; those with layers as expanded for training and for inference."""
    if not any(isinstance(node.op, Layer) for node in before):
        return [(before, made)]
    from passes.specialize import Specialize

    return [(Specialize(train)(before), Specialize(train)(made)) for train in (True, False)]


def _in_float64(
    step: Pass, before: Graph, wide: Graph, made: Graph
) -> Iterator[tuple[Graph, float]]:
    """Yield the pass's result in float64, and how much coarser than that its constants are.

    First comes its result for the graph in float64, in which its own constants are as exact; a
    pass for float32 alone may refuse that.  For a graph in float32 its result for that follows.
    """
    try:
        again = step(wide)
        verify(again)
    except Exception:
        again = None
    if again is not None:
        yield again, 1.0
    if again is None or any(node.type.dtype == "float32" for node in before):
        yield in_float64(made), SINGLE


def _stated_bound(step: Pass) -> float:
    from passes.pipeline import bound_of, name_of

    bound = bound_of(step)
    if bound is None:
        raise GraphError(
            f"pass {name_of(step)!r} is approximate, but does not say how near",
            hint='@gc.passes.graph_pass(preserves="approximate", bound=1e-3), or declare '
            '"bitwise" or "reassociated"',
        )
    return bound


def _results(graph: Graph, draw: Draw) -> Results:
    """Return the results of the graph; those of the last graph are kept."""

    def run() -> Results:
        return results_of(graph, values_of_arrays(graph, draw.rows, given_of(graph, draw)))

    return draw.once("results", graph, run)


def _bitwise(before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Return a result whose bytes differ, in the dtypes that the graph has."""
    told = "the pass declares bitwise"
    return first_mismatch(_results(before, draw), _results(made, draw), None, draw.rows, told)


def _reassociated(scale: float, before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Return a result that differs by more than rounding in the graph itself may move it."""
    old = _results(before, draw)
    moved = draw.once(
        "spread", before, lambda: spread(before, draw.rows, given_of(before, draw), old)
    )
    bounds = {name: scale * bound for name, bound in moved.items()}
    told = "the pass declares reassociated"
    return first_mismatch(old, _results(made, draw), bounds, draw.rows, told)


def _approximate(bound: float, before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Return a result that differs by more than the stated part of its largest number."""
    old = _results(before, draw)
    bounds = {name: bound * largest(value) for name, value in old.items()}
    told = f"the pass states a bound of {bound:g} of the largest number"
    return first_mismatch(old, _results(made, draw), bounds, draw.rows, told)
