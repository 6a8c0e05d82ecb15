"""Judges what layers and derivatives inside a net become, in training and in inference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from graphc.check.central_differences import Function, disagreement
from graphc.check.validation.compare import Case, Mismatch
from graphc.check.validation.run import (
    Draw,
    Outcome,
    Results,
    results_of,
    source_arrays,
    values_of_arrays,
)
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.step_graph import nested
from graphc.ops.loops.op import Scan
from graphc.ops.norm import BatchNorm, feature_axes


def layer_cases(
    train: bool, scale: float, old: Graph, new: Graph, draw: Draw
) -> Iterator[Case | Mismatch]:
    """Yield the results, and what the layers mean in training or in inference, in float64.

    `scale` is how much coarser than float64 the constants of `new` are.
    In training, running statistics are `decay * old + (1 - decay) * batch` and the counter of
    draws increases by one; in inference nothing is updated.  A `gc.grad` is confirmed by
    differences in a random direction, in a loop at each step.
    """
    yield from _Expansion(train, old, new, draw).cases(scale)
    for node in new:
        if node.op.is_layer:
            yield Mismatch(f"layer {node.name}", draw.rows, "is still there", node=node.name)


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

    def cases(self, scale: float) -> Iterator[Case | Mismatch]:
        """Yield the derivatives that are wrong, then the results."""
        for node in self.old:
            if node.op.needs_expansion:
                yield from self.wrong_derivatives(node)
            elif any(inner.op.needs_expansion for inner in nested([node])):
                yield from self.steps(node, scale)
        yield self.results(scale)

    def steps(self, node: Node, scale: float) -> Iterator[Case | Mismatch]:
        """Yield the comparisons of each step of a loop with a gc.grad inside.

        The graphs of each step are judged; the loop is then known to be what it became.
        """
        own = _replacement(self.old, self.new, node.name)
        if own is None:
            self.lost |= self.old.downstream([node.name])
            return
        made = self.new[own]
        assert isinstance(node.op, Scan) and isinstance(made.op, Scan), "loops have steps"
        old, new = _step(node.op), _step(made.op)
        for _, values in made.op.runs([self.values[name] for name in made.inputs]):
            draw = self.draw.other(given=values)
            yield from _Expansion(self.train, old, new, draw, inside=True).cases(scale)
        self.known[node.name] = self.values[own]

    def wrong_derivatives(self, node: Node) -> Iterator[Mismatch]:
        """Yield a mismatch if differences of `of` by `wrt` do not confirm the value of a gc.grad.

        If the net itself puts values on a kink, as dropout's zeros before a relu, they cannot.
        """
        names = (node.name, *node.inputs)
        own, of, wrt = (_replacement(self.old, self.new, name) for name in names)
        if own is None or of is None or wrt is None:
            self.lost |= self.old.downstream([node.name])
            return
        ours, x, rows = self.values[own], self.values[wrt], self.draw.rows
        self.known[node.name] = ours
        if ours.shape != x.shape:
            wanted = f"the value it is taken with respect to has {list(x.shape)}"
            fault = f"has shape {list(ours.shape)}, {wanted}"
            yield Mismatch(f"grad {node.name}", rows, fault, node=node.name)
        f = Function(self.new, self.values, rows, wrt, [(of, 1.0)])
        found = disagreement(f, x, ours, node.name)
        if found is not None and not f.is_on_kink:
            yield Mismatch(f"grad {node.name}", rows, *found, node.name)

    def results(self, scale: float) -> Case:
        """Return the results of the nodes that depend on no lost derivative."""
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
        bounds = partial(Outcome(self.new, draw.rows, arrays, after).bounds, scale=scale)
        unjudged = _states_of_users(old)
        judged = {
            name: value
            for name, value in after.items()
            if name in expected or (name.partition(" ")[2] not in unjudged and not self.lost)
        }
        return Case(expected, judged, "the layers define it so", bounds)


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
