"""Checks Specialize against the layers' own reference rules."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphc.check.validation.compare import Mismatch, first_mismatch
from graphc.check.validation.differences import Function, disagreement
from graphc.check.validation.draws import Draw, given_of
from graphc.check.validation.run import Results, results_of, spread, values_of_arrays
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.op import Array, Layer
from graphc.ops.gradient import Gradient
from graphc.ops.norm import BatchNorm, feature_axes


def layer_mismatch(
    train: bool, scale: float, old: Graph, new: Graph, draw: Draw
) -> Mismatch | None:
    """Return a result that is not what the layers mean in training or in inference, in float64.

    `scale` is how much coarser than float64 the constants of `new` are.
    In training, running statistics are `decay * old + (1 - decay) * batch` and the counter of
    draws increases by one; in inference nothing is updated.  A `gc.grad` is confirmed by
    differences in a random direction.
    """
    return _Expansion(train, old, new, draw).mismatch(scale)


class _Expansion:
    """A graph of layers and the graph of ops that it became, both with their numbers."""

    def __init__(self, train: bool, old: Graph, new: Graph, draw: Draw) -> None:
        self.train, self.old, self.new, self.draw = train, old, new, draw
        arrays = given_of(new, draw) | given_of(old, draw)
        self.values = values_of_arrays(new, draw.rows, arrays, train=train)
        self.known = arrays
        """The values given to the layers' graph: sources, and derivatives that were confirmed."""
        self.lost: set[str] = set()
        """The nodes that depend on a derivative that could not be found among the ops."""

    def mismatch(self, scale: float) -> Mismatch | None:
        """Return the first wrong derivative, or else the first wrong result."""
        for node in self.old:
            if isinstance(node.op, Gradient):
                found = self._derivative(node)
                if found is not None:
                    return found
        left = next((node.name for node in self.new if isinstance(node.op, Layer)), None)
        found = self._results(scale)
        if found is None and left is not None:
            return Mismatch(f"layer {left}", self.draw.rows, "is still there", node=left)
        return found

    def _derivative(self, node: Node) -> Mismatch | None:
        """Return a mismatch if differences of `of` by `wrt` do not confirm the value of a gc.grad.

        If the net itself puts values on a kink, as dropout's zeros before a relu, they cannot.
        """
        names = (node.name, *node.inputs)
        place, of, wrt = (_place(self.old, self.new, name) for name in names)
        if place is None or of is None or wrt is None:
            self.lost |= self.old.downstream([node.name])
            return None
        ours, x, rows = self.values[place], self.values[wrt], self.draw.rows
        self.known[node.name] = ours
        if ours.shape != x.shape:
            told = (
                f"has shape {list(ours.shape)}, what it is taken with respect to has "
                f"{list(x.shape)}"
            )
            return Mismatch(f"grad {node.name}", rows, told, node=node.name)
        f = Function(self.new, self.values, rows, wrt, [(of, 1.0)])
        found = disagreement(f, x, ours, generator(0, f"validation:{node.name}"))
        if found is None or f.is_on_kink:
            return None
        return Mismatch(f"grad {node.name}", rows, found[0], found[1], node.name)

    def _results(self, scale: float) -> Mismatch | None:
        old, draw = self.old, self.draw
        if self.lost:
            kept = {name: value for name, value in old.outputs.items() if value not in self.lost}
            nodes = (node for node in old if node.name not in self.lost)
            old = Graph(old.name, nodes, outputs=kept)
        meant = values_of_arrays(old, draw.rows, self.known, train=self.train)
        expected = results_of(old, meant)
        if self.train:
            expected |= _updates(old, meant, self.values)
        after = results_of(self.new, self.values)
        bounds = spread(self.new, draw.rows, given_of(self.new, draw), after)
        limits = {name: scale * bounds.get(name, 0.0) for name in expected}
        unjudged = _states_of_users(old)
        after = {
            name: value
            for name, value in after.items()
            if name in expected or (name.partition(" ")[2] not in unjudged and not self.lost)
        }
        return first_mismatch(expected, after, limits, draw.rows, "the layers define it so")


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


def _states_of_users(graph: Graph) -> set[str]:
    """Return the operands of layers that are not graphc's: their expansion may update them."""
    own = "graphc."
    return {
        name
        for node in graph
        if isinstance(node.op, Layer) and not type(node.op).__module__.startswith(own)
        for name in node.inputs
    }


def _place(old: Graph, new: Graph, name: str) -> str | None:
    """Return the node that replaces a layer which did not keep its name, found by its users."""
    if name in new:
        return name
    for key, value in old.outputs.items():
        if value == name and key in new.outputs:
            return new.outputs[key]
    for reader in old.users[name]:
        if not isinstance(old[reader].op, Layer) and reader in new:
            return new[reader].inputs[old[reader].inputs.index(name)]
    return None
