"""Specialize against the layers' own reference rules."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from graphc.graph import Graph, Node
from graphc.init import generator
from graphc.op import Array, Layer
from graphc.ops.gradient import Gradient
from graphc.ops.norm import BatchNorm, feature_axes
from graphc.validation.compare import Mismatch, first_mismatch
from graphc.validation.differences import Function, disagreement
from graphc.validation.draws import Draw, given_of
from graphc.validation.run import Results, results_of, spread, values_of_arrays


def layer_mismatch(
    train: bool, scale: float, old: Graph, new: Graph, draw: Draw
) -> Mismatch | None:
    """A result that is not what the layers mean in training or in inference, in float64.

    `scale` is how much coarser than float64 the constants of `new` are.
    In training, running statistics are `decay * old + (1 - decay) * batch` and the counter of
    draws goes on by one; in inference nothing is updated.  A `gc.grad` is confirmed by differences
    along a random direction.
    """
    arrays = given_of(new, draw) | given_of(old, draw)
    values = values_of_arrays(new, draw.rows, arrays, train=train)
    known, lost = dict(arrays), set[str]()
    for node in old:
        if isinstance(node.op, Gradient):
            places = [_place(old, new, name) for name in (node.name, *node.inputs)]
            if None in places:
                lost |= old.downstream([node.name])
                known[node.name] = np.zeros(0)
                continue
            found = _gradient_mismatch(node, [str(place) for place in places], new, values, draw)
            if found is not None:
                return found
            known[node.name] = values[str(places[0])]
    return _compared(train, old, new, scale, known, values, lost, draw)


def _compared(
    train: bool,
    old: Graph,
    new: Graph,
    scale: float,
    known: Mapping[str, Array],
    values: Mapping[str, Array],
    lost: Collection[str],
    draw: Draw,
) -> Mismatch | None:
    if lost:
        kept = {name: value for name, value in old.outputs.items() if value not in lost}
        old = Graph(old.name, (node for node in old if node.name not in lost), outputs=kept)
    meant = values_of_arrays(old, draw.rows, known, train=train)
    expected = results_of(old, meant)
    if train:
        expected |= _updates(old, meant, values)
    left = next((node.name for node in new if isinstance(node.op, Layer)), None)
    after = results_of(new, values)
    bounds = spread(new, draw.rows, given_of(new, draw), after)
    unjudged = _states_of_users(old)
    after = {
        name: value
        for name, value in after.items()
        if name in expected or (name.partition(" ")[2] not in unjudged and not lost)
    }
    limits = {name: scale * bounds.get(name, 0.0) for name in expected}
    found = first_mismatch(expected, after, limits, draw.rows, "the layers mean it so")
    if found is None and left is not None:
        return Mismatch(f"layer {left}", draw.rows, "is still there", node=left)
    return found


def _updates(graph: Graph, meant: Mapping[str, Array], values: Mapping[str, Array]) -> Results:
    """The next states by graphc's layers; the counter of draws goes on by one."""
    found: Results = {}
    for node in graph:
        if isinstance(node.op, BatchNorm):
            x, decay = meant[node.inputs[0]], node.op.running_decay
            axes = feature_axes(x.ndim)
            mean, var = node.inputs[3:]
            found[f"update {mean}"] = decay * meant[mean] + (1 - decay) * x.mean(axis=axes)
            found[f"update {var}"] = decay * meant[var] + (1 - decay) * x.var(axis=axes)
    found["update draws"] = np.asarray(values["draws"] + 1) if "draws" in values else np.asarray(0)
    return found


def _states_of_users(graph: Graph) -> set[str]:
    """What layers that are not graphc's read: their expansion may update it."""
    own = "graphc."
    return {
        name
        for node in graph
        if isinstance(node.op, Layer) and not type(node.op).__module__.startswith(own)
        for name in node.inputs
    }


def _place(old: Graph, new: Graph, name: str) -> str | None:
    """The node that stands for a layer which did not keep its name: by those who read it."""
    if name in new:
        return name
    for key, value in old.outputs.items():
        if value == name and key in new.outputs:
            return new.outputs[key]
    for reader in old.users[name]:
        if not isinstance(old[reader].op, Layer) and reader in new:
            return new[reader].inputs[old[reader].inputs.index(name)]
    return None


def _gradient_mismatch(
    node: Node, places: list[str], new: Graph, values: Mapping[str, Array], draw: Draw
) -> Mismatch | None:
    """Whether differences of `of` along `wrt` do not confirm what stands for a gc.grad."""
    place, of, wrt = places
    ours, x = values[place], values[wrt]
    if ours.shape != x.shape:
        told = f"has shape {list(ours.shape)}, what it is taken by {list(x.shape)}"
        return Mismatch(f"grad {node.name}", draw.rows, told, node=node.name)
    f = Function(new, values, draw.rows, wrt, [(of, 1.0)])
    found = disagreement(f, x, ours, generator(0, f"validation:{node.name}"))
    if found is None:
        return None
    return Mismatch(f"grad {node.name}", draw.rows, found[0], found[1], node.name)
