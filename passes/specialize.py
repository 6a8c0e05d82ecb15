"""Expand each declared layer into the ops that it is in training or in inference.

    d = dropout(x, seed, draws)    ->    d.mask = dropout_mask(seed, draws)
                                         d = mul(x, d.mask)          (training)

The last op keeps the layer's name, the others are `name.part`.  Training also advances the
counter `draws`, which keys the next forward's masks; inference updates no state.  A layer that is
its operand, as dropout is in inference, is left out; if a derivative is taken by it, it becomes a
reshape, since its operand has another derivative.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value, expand
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Layer
from graphc.ops.autodiff import Gradient
from graphc.ops.elementwise import add
from graphc.ops.shape import Reshape
from graphc.ops.source import draws
from passes.contract import pinned
from passes.steps import on_steps


@dataclass(frozen=True)
class Specialize:
    """The pass that expands layers to ops; `train` selects which of their two meanings."""

    name: ClassVar[str] = "specialize"
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    train: bool

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph without layers."""
        b = self._expanded(on_steps(self.of_step, graph))
        if self.train:
            counter = draws(b)
            b.update(counter, add(counter, 1, name="draws.next"))
        else:
            b.updates.clear()
        return b.graph()

    def of_step(self, step: Graph) -> Graph:
        """Return a loop's step without layers, inner ones first; a derivative is of such steps."""
        inside = on_steps(self.of_step, step)
        return self._expanded(inside).graph() if any(n.op.is_layer for n in step) else inside

    def _expanded(self, graph: Graph) -> Builder:
        b = Builder.like(graph)
        b.reserved.update(node.name for node in graph)  # a layer's parts have other names
        new: dict[str, str] = {}
        kept = _derived_by(graph)
        for declared in graph:
            node = declared.reading(new)
            if isinstance(node.op, Layer):
                made = self.expand(b, node, node.op)
                if made != node.name and node.name in kept:
                    op = Reshape(node.type.shape)
                    b.insert(Node(node.name, op, (made,), node.type, node.locs))
                elif made != node.name:
                    new[node.name] = made
            else:
                b.insert(node)
        b.take_roots(graph, new)
        return b

    def expand(self, b: Builder, node: Node, layer: Layer) -> str:
        """Add the ops of a layer to a graph that has its operands; return the name of the last."""
        operands = [Value(b, operand) for operand in node.inputs]
        b.scope, b.locs = f"{node.name}.", node.locs
        made = expand(b, layer, node.name, operands, self.train)
        b.scope, b.locs = "", ()
        if made.type != node.type:
            raise GraphError(f"layer {node.name!r} expands to {made.type}, it infers {node.type}")
        return made.name


def _derived_by(graph: Graph) -> frozenset[str]:
    """Return the nodes that derivatives are taken by, within the graph or by Backward."""
    inner = (node.inputs[1] for node in graph if isinstance(node.op, Gradient))
    return pinned(graph).union(inner)
