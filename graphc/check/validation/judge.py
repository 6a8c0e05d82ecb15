"""Judges passes: chooses the comparisons that fit a pass, and runs them on random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from graphc.check.central_differences import in_float64
from graphc.check.validation import shards, updates
from graphc.check.validation.compare import Case, Mismatch, first_mismatch
from graphc.check.validation.derivatives import derivative_cases
from graphc.check.validation.layers import layer_cases
from graphc.check.validation.run import (
    ZEROS,
    Draw,
    FactorNoise,
    Outcome,
    expanded,
    float64,
    has_layers,
    largest,
)
from graphc.ir.graph import Graph
from graphc.ir.verify import verify
from graphc.ops.exchange import Total
from graphc.ops.linalg import order_of
from passes import keep_sends
from passes.backward import Backward
from passes.contract import Pass, bound_of, preserves_of
from passes.data_parallel import DataParallel
from passes.set_precision import SetPrecision
from passes.shard import Shard
from passes.specialize import Specialize
from passes.update import Update

Check = Callable[[Graph, Graph, Draw], Iterable[Case | Mismatch]]
"""A function that yields what two graphs compute, to be compared."""

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
            found = first_mismatch(self.check(self.old, graph, self.draw), self.draw.rows)
        except Exception:
            return False
        return found is not None and found.what == self.mismatch.what


def judge(step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]) -> Failure | None:
    """Return the first comparison that shows a change beyond what the pass declares, or None."""
    for old, new, check, chosen in _comparisons(step, before, made, draws):
        for draw in chosen:
            found = first_mismatch(check(old, new, draw), draw.rows)
            if found is not None:
                return Failure(found, old, new, draw, check)
    return None


Comparison = tuple[Graph, Graph, Check, Sequence[Draw]]


def _comparisons(
    step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]
) -> Iterator[Comparison]:
    """Yield the comparisons that a pass must hold: two graphs, a check, and random numbers.

    The passes that expand layers, add gradients or updates, or work on shards do not keep all
    results; they have comparisons of their own, by the mathematics of their results.  Others must
    keep every output, gradient and next state, as near as their class says.
    """
    if step is keep_sends.keep_sends:  # of shards before the last one, only sums are used
        yield before, made, shards.held_cases, draws
        return
    yield before, made, _kept, draws[:1]
    if isinstance(step, DataParallel):
        yield before, made, shards.bucket_cases, draws[:1]
    if isinstance(step, Specialize):
        wide = in_float64(before)
        for new, scale in _in_float64(step, before, wide, made):
            yield wide, new, partial(layer_cases, step.train, scale), draws
    elif isinstance(step, DEFINING):
        for check in _checks(step, before):
            yield in_float64(_of_rule(step, before)), in_float64(made), check, draws
    else:
        yield from _general(step, before, made, draws)


DEFINING = (Specialize, Backward, Update, Shard, DataParallel)
"""The passes that define what a program computes; others see the graphs that they make."""


def _checks(step: Pass, before: Graph) -> Iterator[Check]:
    """Yield the checks in float64 of a pass that adds results, or computes on shards."""
    if isinstance(step, Backward):
        yield partial(derivative_cases, step)
        if any(isinstance(node.op, Total) for node in before):
            yield partial(shards.summed_derivative_cases, step)
    elif isinstance(step, Update):
        sums = step.optimizer.accumulate > 1
        yield partial(updates.accumulation_cases if sums else updates.update_cases, step)
    elif isinstance(step, Shard):
        yield partial(shards.shard_cases, step)
    else:
        yield shards.exchange_cases


def _of_rule(step: Pass, graph: Graph) -> Graph:
    """Return the graph without gradients of parameters that an Update leaves to other rules."""
    if not isinstance(step, Update) or step.wrt is None:
        return graph
    own = {name: value for name, value in graph.gradients.items() if name in step.wrt}
    return graph.with_nodes(graph, gradients=own)


def _kept(old: Graph, new: Graph, draw: Draw) -> Iterator[Mismatch]:
    """Yield a loss that is none any more, or a parameter or state that starts as another value."""
    for name in old.losses:
        if name not in new.losses:
            yield Mismatch(f"loss {name}", draw.rows, "is no longer a loss, so nothing trains it")
    for node in old:
        other = new.nodes.get(node.name)
        if node.op.persistent and other is not None and other.op != node.op:
            fault = f"starts as {other.op}, it was {node.op}"
            yield Mismatch(f"start {node.name}", draw.rows, fault, node=node.name)


def _general(step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]) -> Iterator[Comparison]:
    """Yield comparisons of every output, gradient and next state, by the class of the pass."""
    kind = preserves_of(step)
    if kind == "bitwise":
        for old, new in _runnable(before, made):
            yield old, new, _bitwise, with_edges(draws)
        return
    wide = in_float64(before)
    ways: Iterable[tuple[Graph, Check]] = [(made, _rounded)]
    if kind == "reassociated":
        pairs = _in_float64(step, before, wide, made)
        ways = ((new, partial(_reassociated, scale)) for new, scale in pairs)
    elif not isinstance(step, SetPrecision):
        ways = [(in_float64(made), partial(_approximate, bound_of(step)))]
    for wide_made, check in ways:
        for old, new in _runnable(wide, wide_made):
            yield old, new, check, draws


def special(draw: Draw) -> Draw:
    """Return the draw with zeros of both signs, infinities, NaN and numbers near the limits."""
    return draw.other(style="special")


def with_edges(draws: Sequence[Draw]) -> list[Draw]:
    """Return the draws, and those with edge values: more with zeros, as in few rows few are met."""
    first = draws[0]
    if not first.edges:
        first.edges.extend(special(draw) for draw in draws[:2])
        for number, style in enumerate(ZEROS):
            seed = first.seed + max(number - 1, 0)  # the first two draws differ by signs alone
            first.edges.append(first.other(style=style, seed=seed))
    return [*draws, *first.edges]


def _runnable(before: Graph, made: Graph) -> list[tuple[Graph, Graph]]:
    """Return the pair of graphs, or, if they have layers, a pair for training and for inference."""
    if not has_layers(before):
        return [(before, made)]
    return [(expanded(before, train), expanded(made, train)) for train in (True, False)]


def _in_float64(
    step: Pass, before: Graph, wide: Graph, made: Graph
) -> Iterator[tuple[Graph, float]]:
    """Yield the pass's result in float64, and how much coarser than that its constants are.

    First comes its result for the graph in float64, in which its own constants are as exact; a
    pass for float32 alone may refuse that.  For a graph in float32 its result for that follows.
    """
    try:
        widened = step(wide)
        verify(widened)
    except Exception:
        widened = None
    if widened is not None:
        yield widened, 1.0
    if widened is None or any(node.type.dtype == "float32" for node in before):
        yield in_float64(made), SINGLE


def _bitwise(before: Graph, made: Graph, draw: Draw) -> Iterator[Case]:
    """Yield the results by their bytes, in the dtypes that the graph has."""
    old, new = Outcome.of(before, draw), Outcome.of(made, draw)
    yield Case(old.results, new.results, "the pass declares bitwise")


def _reassociated(scale: float, before: Graph, made: Graph, draw: Draw) -> Iterator[Case]:
    """Yield the results, which may differ by what rounding in the graph itself may move them."""
    old, new = Outcome.of(before, draw), Outcome.of(made, draw)
    bounds = partial(old.bounds, scale=scale)
    yield Case(old.results, new.results, "the pass declares reassociated", bounds)


def _rounded(before: Graph, made: Graph, draw: Draw) -> Iterator[Case]:
    """Yield the results, which may differ by what rounding of the factors may move them.

    Without that rounding it is the same mathematics.
    """
    yield from _reassociated(1.0, before, in_float64(made), draw)
    old = Outcome.of(before, draw)
    bounds = partial(old.bounds, noise=partial(FactorNoise, factors=_factors(made)))
    new = {name: float64(value) for name, value in Outcome.of(made, draw).results.items()}
    yield Case(old.results, new, "factors are rounded to bfloat16", bounds, (0, 2, 8))


def _factors(graph: Graph) -> set[str]:
    """Return what products round, and all loops, in whose steps some may."""
    loops = {node.name for node in graph if node.op.is_joint}
    return loops.union(*(node.inputs[:2] for node in graph if order_of(node.op)))


def _approximate(bound: float, before: Graph, made: Graph, draw: Draw) -> Iterator[Case]:
    """Yield the results, which may differ by the stated part of their largest numbers."""
    old, new = Outcome.of(before, draw), Outcome.of(made, draw)
    bounds = {name: bound * largest(value) for name, value in old.results.items()}
    allowed = f"the pass states a bound of {bound:g} of the largest number"
    yield Case(old.results, new.results, allowed, lambda _: bounds, (0,))
