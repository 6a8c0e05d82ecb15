"""Judges passes: chooses the comparison that fits a pass, and runs it on random numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from graphc.check.central_differences import Function, disagreement, in_float64
from graphc.check.validation import shards, updates
from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.run import (
    ZEROS,
    Draw,
    Results,
    expanded,
    has_layers,
    largest,
    results_of,
    rounding_bounds,
    rounding_mismatch,
    source_arrays,
    values_of,
    values_of_arrays,
    without_gradients,
)
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.step_graph import nested
from graphc.ir.verify import verify
from graphc.ops.exchange import Total
from graphc.ops.norm import BatchNorm, feature_axes
from graphc.ops.scan import Scan
from passes import keep_sends
from passes.backward import Backward
from passes.contract import Pass, bound_of, preserves_of
from passes.data_parallel import DataParallel
from passes.shard import Shard
from passes.specialize import Specialize
from passes.update import Update

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

    The passes that expand layers, add gradients or updates, or work on shards do not keep all
    results; they have comparisons of their own, by the mathematics of their results.
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
    """Yield the comparisons that a pass must hold: two graphs, a check, and random numbers."""
    if step is not keep_sends.keep_sends:  # of shards before the last one, only sums are used
        yield before, made, _kept_mismatch, draws[:1]
    if isinstance(step, Specialize):
        wide = in_float64(before)
        for new, scale in _in_float64(step, before, wide, made):
            yield wide, new, partial(layer_mismatch, step.train, scale), draws
    elif step is keep_sends.keep_sends:
        yield before, made, shards.held_mismatch, draws
    elif checks := _checks(step, before):
        if shards.exchange_mismatch in checks:
            yield before, made, shards.bucket_mismatch, draws[:1]
        for check in checks:
            yield in_float64(_of_rule(step, before)), in_float64(made), check, draws
    else:
        yield from _general(step, before, made, draws)


def _of_rule(step: Pass, graph: Graph) -> Graph:
    """Return the graph without gradients of parameters that an Update leaves to other rules."""
    if not isinstance(step, Update) or step.wrt is None:
        return graph
    own = {name: value for name, value in graph.gradients.items() if name in step.wrt}
    return graph.with_nodes(graph, gradients=own)


def _kept_mismatch(old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a loss that is none any more, or a parameter or state that starts as another value."""
    for name in old.losses:
        if name not in new.losses:
            return Mismatch(f"loss {name}", draw.rows, "is no longer a loss, so nothing trains it")
    for node in old:
        other = new.nodes.get(node.name)
        if node.op.persistent and other is not None and other.op != node.op:
            fault = f"starts as {other.op}, it was {node.op}"
            return Mismatch(f"start {node.name}", draw.rows, fault, node=node.name)
    return None


def _checks(step: Pass, before: Graph) -> list[Check]:
    """Return the checks in float64 of a pass that adds results, or computes on shards."""
    if isinstance(step, Backward):
        summed = any(isinstance(node.op, Total) for node in before)
        more = [partial(shards.summed_derivative_mismatch, step)] if summed else []
        return [partial(derivative_mismatch, step), *more]
    if isinstance(step, Update):
        sums = step.optimizer.accumulate > 1
        mismatch = updates.accumulation_mismatch if sums else updates.update_mismatch
        return [partial(mismatch, step)]
    if isinstance(step, Shard):
        return [partial(shards.shard_mismatch, step)]
    return [shards.exchange_mismatch] if isinstance(step, DataParallel) else []


def _general(step: Pass, before: Graph, made: Graph, draws: Sequence[Draw]) -> Iterator[Comparison]:
    """Yield comparisons of every output, gradient and next state, by the class of the pass."""
    kind = preserves_of(step)
    if kind == "bitwise":
        for old, new in _runnable(before, made):
            yield old, new, _bitwise, with_edges(draws)
        return
    wide = in_float64(before)
    if kind == "reassociated":
        for wide_made, scale in _in_float64(step, before, wide, made):
            for old, new in _runnable(wide, wide_made):
                yield old, new, partial(_reassociated, scale), draws
        return
    bound = bound_of(step)
    for old, new in _runnable(wide, in_float64(made)):
        yield old, new, partial(_approximate, bound), draws


def special(draw: Draw) -> Draw:
    """Return the draw with zeros of both signs, infinities, NaN and numbers near the limits."""
    return replace(draw, style="special", edges=[], known={}, last={})


def with_edges(draws: Sequence[Draw]) -> list[Draw]:
    """Return the draws, and those with edge values: more with zeros, as in few rows few are met."""
    first = draws[0]
    if not first.edges:
        first.edges.extend(special(draw) for draw in draws[:2])
        for number, style in enumerate(ZEROS):
            seed = first.seed + max(number - 1, 0)  # the first two draws differ by signs alone
            first.edges.append(replace(special(first), style=style, seed=seed))
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


def _results(graph: Graph, draw: Draw) -> Results:
    return results_of(graph, values_of(graph, draw))


def _bitwise(before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Return a result whose bytes differ, in the dtypes that the graph has."""
    old, new = _results(before, draw), _results(made, draw)
    return first_mismatch(old, new, None, draw.rows, "the pass declares bitwise")


def _reassociated(scale: float, before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Return a result that differs by more than rounding in the graph itself may move it."""
    old, arrays = _results(before, draw), source_arrays(before, draw)

    def bounds(runs: int) -> Mapping[str, float]:
        moved = rounding_bounds(before, draw.rows, arrays, old, runs)
        return {name: scale * bound for name, bound in moved.items()}

    new = _results(made, draw)
    return rounding_mismatch(old, new, bounds, draw.rows, "the pass declares reassociated")


def _approximate(bound: float, before: Graph, made: Graph, draw: Draw) -> Mismatch | None:
    """Return a result that differs by more than the stated part of its largest number."""
    old = _results(before, draw)
    bounds = {name: bound * largest(value) for name, value in old.items()}
    allowed = f"the pass states a bound of {bound:g} of the largest number"
    return first_mismatch(old, _results(made, draw), bounds, draw.rows, allowed)


# ------------------------------------------------------------------ backward


def derivative_mismatch(step: Backward, old: Graph, new: Graph, draw: Draw) -> Mismatch | None:
    """Return a gradient that differences do not confirm, or a result that Backward changed.

    Each of `wrt` is tried by itself, in float64, against the sum of the losses, or of the outputs
    times the cotangents that are fed.  A node without gradient must not affect that sum.
    """
    values = values_of(new, draw)
    plain, before = _seen(step, old, draw)
    after = without_gradients(results_of(new, values))
    changed = first_mismatch(before, after, None, draw.rows, "backward leaves it as it is")
    if changed is not None:
        return changed
    weights: list[tuple[str, Array | float]] = [
        (old.outputs[name], values[f"cotangent:{name}"] if step.fed else 1.0)
        for name in step.losses
    ]
    for name in step.wrt:
        target = old.gradients.get(name, name)
        if target not in old:
            continue  # it has no user, so it was removed
        x, gradient = plain[target], new.gradients.get(name)
        ours = np.zeros_like(x) if gradient is None else values[gradient]
        if ours.shape != x.shape:
            fault = f"has shape {list(ours.shape)}, {name!r} has {list(x.shape)}"
            return Mismatch(f"gradient {name}", draw.rows, fault)
        f = Function(old, plain, draw.rows, target, weights)
        found = disagreement(f, x, ours, name)
        if found is not None:
            return Mismatch(f"gradient {name}", draw.rows, *found)
    return None


def _seen(step: Backward, old: Graph, draw: Draw) -> tuple[dict[str, Array], Results]:
    """Return the values that a backward differentiates, and all results but gradients.

    Where rules before it update parameters, these are the values of the graph at their next values;
    so are outputs that none of those rules' losses depends on.
    """
    arrays = source_arrays(old, draw)
    plain = values_of_arrays(old, draw.rows, arrays)
    results = without_gradients(results_of(old, plain))
    written = {name: plain[value] for name, value in step.written(old.updates).items()}
    if not written:
        return plain, results
    values = values_of_arrays(old, draw.rows, arrays | written)
    read = old.upstream(old.outputs[name] for name in step.losses)
    read -= old.upstream(old.outputs[name] for rule in step.before for name in rule.losses)
    later = without_gradients(results_of(old, values))
    moved = [f"output {name}" for name, value in old.outputs.items() if value in read]
    return values, results | {name: later[name] for name in moved}


# ------------------------------------------------------------------ specialize


def layer_mismatch(
    train: bool, scale: float, old: Graph, new: Graph, draw: Draw
) -> Mismatch | None:
    """Return a result that is not what the layers mean in training or in inference, in float64.

    `scale` is how much coarser than float64 the constants of `new` are.
    In training, running statistics are `decay * old + (1 - decay) * batch` and the counter of
    draws increases by one; in inference nothing is updated.  A `gc.grad` is confirmed by
    differences in a random direction, in a loop at each step.
    """
    found = _Expansion(train, old, new, draw).mismatch(scale)
    left = next((node.name for node in new if node.op.is_layer), None)
    if found is None and left is not None:
        return Mismatch(f"layer {left}", draw.rows, "is still there", node=left)
    return found


class _Expansion:
    """A graph of layers and the graph of ops that it became, both with their numbers.

    `inside` is true for graphs of a step, which update nothing.
    """

    def __init__(
        self, train: bool, old: Graph, new: Graph, draw: Draw, inside: bool = False
    ) -> None:
        self.train, self.old, self.new, self.draw, self.inside = train, old, new, draw, inside
        arrays = source_arrays(new, draw) | source_arrays(old, draw)
        self.values = values_of_arrays(new, draw.rows, arrays, train=train)
        self.known = arrays
        """The values given to the layers' graph: sources, and derivatives that were confirmed."""
        self.lost: set[str] = set()
        """The nodes that depend on a derivative that could not be found among the ops."""

    def mismatch(self, scale: float) -> Mismatch | None:
        """Return the first derivative that is wrong, or the first result."""
        for node in self.old:
            found = None
            if node.op.needs_expansion:
                found = self.derivative_mismatch(node)
            elif any(inner.op.needs_expansion for inner in nested([node])):
                found = self.loop_mismatch(node, scale)
            if found is not None:
                return found
        return self.result_mismatch(scale)

    def loop_mismatch(self, node: Node, scale: float) -> Mismatch | None:
        """Return a mismatch in a step of a loop with a gc.grad inside.

        The graphs of each step are judged; the loop is then known to be what it became.
        """
        own = _replacement(self.old, self.new, node.name)
        if own is None:
            self.lost |= self.old.downstream([node.name])
            return None
        made = self.new[own]
        assert isinstance(node.op, Scan) and isinstance(made.op, Scan), "loops have steps"
        old, new = _step(node.op), _step(made.op)
        for _, values in made.op.runs([self.values[name] for name in made.inputs]):
            draw = replace(self.draw, given=values, known={}, last={})
            found = _Expansion(self.train, old, new, draw, inside=True).mismatch(scale)
            if found is not None:
                return found
        self.known[node.name] = self.values[own]
        return None

    def derivative_mismatch(self, node: Node) -> Mismatch | None:
        """Return a mismatch if differences of `of` by `wrt` do not confirm the value of a gc.grad.

        If the net itself puts values on a kink, as dropout's zeros before a relu, they cannot.
        """
        names = (node.name, *node.inputs)
        own, of, wrt = (_replacement(self.old, self.new, name) for name in names)
        if own is None or of is None or wrt is None:
            self.lost |= self.old.downstream([node.name])
            return None
        ours, x, rows = self.values[own], self.values[wrt], self.draw.rows
        self.known[node.name] = ours
        if ours.shape != x.shape:
            wanted = f"the value it is taken with respect to has {list(x.shape)}"
            fault = f"has shape {list(ours.shape)}, {wanted}"
            return Mismatch(f"grad {node.name}", rows, fault, node=node.name)
        f = Function(self.new, self.values, rows, wrt, [(of, 1.0)])
        found = disagreement(f, x, ours, node.name)
        if found is None or f.is_on_kink:
            return None
        return Mismatch(f"grad {node.name}", rows, found[0], found[1], node.name)

    def result_mismatch(self, scale: float) -> Mismatch | None:
        """Return the first wrong result of the nodes that depend on no lost derivative."""
        old, draw = self.old, self.draw
        if self.lost:
            kept = {name: value for name, value in old.outputs.items() if value not in self.lost}
            nodes = (node for node in old if node.name not in self.lost)
            old = Graph(old.name, nodes, outputs=kept)
        meant = values_of_arrays(old, draw.rows, self.known, train=self.train)
        expected = results_of(old, meant)
        if self.train and not self.inside:
            expected |= _updates(old, meant, self.values)
        after, arrays = results_of(self.new, self.values), source_arrays(self.new, draw)

        def bounds(runs: int) -> Mapping[str, float]:
            moved = rounding_bounds(self.new, draw.rows, arrays, after, runs)
            return {name: scale * moved.get(name, 0.0) for name in expected}

        unjudged = _states_of_users(old)
        judged = {
            name: value
            for name, value in after.items()
            if name in expected or (name.partition(" ")[2] not in unjudged and not self.lost)
        }
        return rounding_mismatch(expected, judged, bounds, draw.rows, "the layers define it so")


def _updates(graph: Graph, meant: Mapping[str, Array], values: Mapping[str, Array]) -> Results:
    """Return the next states of graphc's layers; the counter of draws increases by one."""
    found: Results = {}
    for node in graph:
        if isinstance(node.op, BatchNorm) and not node.op.frozen:
            x, decay = meant[node.inputs[0]], node.op.running_decay
            axes = feature_axes(x.ndim)
            mean, var = node.inputs[3:]
            found[f"update {mean}"] = decay * meant[mean] + (1 - decay) * x.mean(axis=axes)
            found[f"update {var}"] = decay * meant[var] + (1 - decay) * x.var(axis=axes)
    found["update draws"] = np.asarray(values["draws"] + 1) if "draws" in values else np.asarray(0)
    return found


def _step(op: Scan) -> Graph:
    """Return the graph of a loop's step, whose outputs have the same names before and after."""
    outputs = {f"next {one.input}": one.next for one in op.step.carried}
    outputs |= {} if op.kind == "last" else {"result": op.result}
    return Graph("step", op.step.nodes, outputs=outputs)


def _states_of_users(graph: Graph) -> set[str]:
    """Return the operands of layers that are not graphc's: their expansion may update them."""
    layers = (node for node in graph if node.op.is_layer)
    users = (node for node in layers if not type(node.op).__module__.startswith("graphc."))
    return {name for node in users for name in node.inputs}


def _replacement(old: Graph, new: Graph, name: str) -> str | None:
    """Return the node that replaces a layer which did not keep its name, found by its users."""
    if name in new:
        return name
    for key, value in old.outputs.items():
        if value == name and key in new.outputs:
            return new.outputs[key]
    for user in old.users[name]:
        if not (old[user].op.is_layer or old[user].op.is_joint) and user in new:
            return new[user].inputs[old[user].inputs.index(name)]
    return None
