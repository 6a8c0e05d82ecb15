"""Derive the backward graph: add gradient nodes to the nodes they are the gradients of.

    h = affine(x, w, b)            d_loss = constant(1)
    loss = mean(h)          ->     d_h = mean_grad(d_loss)
                                   d_w = matmul(x, d_h, trans_a=True)
                                   ...

Reverse mode over the sum of the losses.  A gradient node is named `d_<node>` and carries the
lines of the node it belongs to.  The result's `gradients` maps each of `wrt` to its gradient;
before, it may map a name to the node that replaces it, so that passes keep that node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from graphc.base.errors import GraphError
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Role
from graphc.ops.autodiff import vjp
from graphc.ops.source import Input, constant


@dataclass(frozen=True)
class Backward:
    """The pass that adds gradients of losses, or of outputs with fed cotangents, by `wrt`."""

    name: ClassVar[str] = "backward"
    of_step: ClassVar[None] = None
    preserves: ClassVar[Literal["bitwise"]] = "bitwise"
    losses: tuple[str, ...]
    wrt: tuple[str, ...]
    required: tuple[str, ...] = ()
    """The names in `wrt` that must have a gradient; others without one are left out."""
    fed: bool = False
    """True if the cotangents are inputs named `cotangent:<output>`, instead of being 1."""

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph with gradients; raise GraphError if a required one reaches no loss."""
        b = Builder.extending(graph)
        cotangents: dict[str, Value] = {}
        for name in self.losses:
            value = graph.outputs[name]
            seed = self._seed(b, name, value)
            known = cotangents.get(value)
            cotangents[value] = seed if known is None else known + seed
        targets = {name: graph.gradients.get(name, name) for name in self.wrt}
        found = vjp(b, cotangents, targets.values())
        for name in self.required:
            if targets[name] not in found:
                raise _unreached(graph[targets[name]], name, self.losses)
        b.gradients.clear()
        for name, target in targets.items():
            if target in found:
                b.gradients[name] = found[target].name
        return b.graph()

    def _seed(self, b: Builder, name: str, value: str) -> Value:
        type = b.nodes[value].type
        if self.fed:
            with b.at(b.nodes[value].locs):
                op = Input(type.shape, type.dtype, Role("cotangent", name))
                return b.apply(op, name=f"cotangent:{name}")
        return constant(b, 1.0, type.dtype, name=b.unique(f"d_{value}"))


def _unreached(node: Node, name: str, losses: tuple[str, ...]) -> GraphError:
    what = f"loss {losses[0]!r} does" if len(losses) == 1 else f"losses {', '.join(losses)} do"
    return GraphError(
        f"{what} not depend on {node.op.name} {name!r}, so it has no gradient",
        loc=node.loc,
        hint="leave it out of wrt, or use it on the way to a loss",
    )
