"""What is compared for which pass, and by which measure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from graphc.checks.float64 import in_float64
from graphc.errors import GraphError
from graphc.graph import Graph, verify
from graphc.op import Layer
from graphc.own_passes import own_passes
from graphc.validation.compare import Mismatch, first_mismatch
from graphc.validation.derivative import derivative_mismatch
from graphc.validation.draws import Draw, given_of, special
from graphc.validation.layers import layer_mismatch
from graphc.validation.run import Results, largest, results_of, spread, values_of_arrays
from graphc.validation.updates import accumulation_mismatch, update_mismatch

if TYPE_CHECKING:
    from passes.pipeline import Pass

SINGLE = float(2**29)
"""How much coarser float32 is than float64."""


def judge(step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]) -> Mismatch | None:
    """The first result that the pass changed beyond what it declares; None where there is none.

    specialize, backward, update and accumulate add what was not there before; they have judges
    of their own, who know what must be there now.
    """
    own_passes()
    from passes.accumulate import Accumulate
    from passes.backward import Backward
    from passes.specialize import Specialize
    from passes.update import Update

    if isinstance(step, Specialize):
        wide, train = in_float64(before), step.train
        return _first(
            layer_mismatch(train, wide, new, scale, draw)
            for new, scale in _in_float64(step, before, wide, made)
            for draw in draws
        )
    if isinstance(step, Backward):
        return _first(derivative_mismatch(step, before, made, draw) for draw in draws)
    if isinstance(step, Update):
        return _first(update_mismatch(step.optimizer, before, made, draw) for draw in draws)
    if isinstance(step, Accumulate):
        return _first(accumulation_mismatch(before, made, draw) for draw in draws)
    return _general(step, before, made, draws)


def _general(step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]) -> Mismatch | None:
    """Every output, gradient and next state is compared, by the class of the pass."""
    from passes.pipeline import preserves_of

    kind = preserves_of(step)
    if kind == "bitwise":
        every = [*draws, *map(special, draws[:2])]
        found = (
            _bitwise(old, new, draw) for old, new in _runnable(before, made) for draw in every
        )
        return _first(found)
    wide = in_float64(before)
    if kind == "reassociated":
        return _first(
            _reassociated(old, new, scale, draw)
            for wide_made, scale in _in_float64(step, before, wide, made)
            for old, new in _runnable(wide, wide_made)
            for draw in draws
        )
    bound = _stated_bound(step)
    pairs_of_runs = _runnable(wide, in_float64(made))
    return _first(_approximate(bound, old, new, draw) for old, new in pairs_of_runs for draw in draws)


def _runnable(before: Graph, made: Graph) -> list[tuple[Graph, Graph]]:
    """Both graphs; those with layers as what they become in training and in inference."""
    if not any(isinstance(node.op, Layer) for node in before):
        return [(before, made)]
    from passes.specialize import Specialize

    return [(Specialize(train)(before), Specialize(train)(made)) for train in (True, False)]


def _in_float64(
    step: Pass, before: Graph, wide: Graph, made: Graph
) -> Iterator[tuple[Graph, float]]:
    """The pass's result in float64, and how much coarser than that its constants are.

    First what it makes of the graph in float64, where its own constants are as exact; a
    pass for float32 alone may refuse that.  For a graph in float32 then what it made of that.
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


def _first(found: Iterator[Mismatch | None]) -> Mismatch | None:
    return next((each for each in found if each is not None), None)


def _results(graph: Graph, draw: Draw) -> Results:
    return results_of(graph, values_of_arrays(graph, draw.rows, given_of(graph, draw)))


def _bitwise(before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Equal bytes, in the dtypes that the graph has."""
    told = "the pass declares bitwise"
    return first_mismatch(_results(before, draw), _results(made, draw), None, draw.rows, told)


def _reassociated(before: Graph, made: Graph, scale: float, draw: Draw) -> Mismatch | None:
    """Equal but for the rounding that the graph itself is exposed to."""
    old = _results(before, draw)
    bounds = spread(before, draw.rows, given_of(before, draw), old)
    bounds = {name: scale * bound for name, bound in bounds.items()}
    told = "the pass declares reassociated"
    return first_mismatch(old, _results(made, draw), bounds, draw.rows, told)


def _approximate(bound: float, before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Nearer than the stated part of a result's largest number."""
    old = _results(before, draw)
    bounds = {name: bound * largest(value) for name, value in old.items()}
    told = f"the pass states a bound of {bound:g} of the largest number"
    return first_mismatch(old, _results(made, draw), bounds, draw.rows, told)
