"""Derive the backward graph: add gradient nodes to the nodes they are the gradients of.

    h = affine(x, w, b)            d_loss = constant(1)
    loss = mean(h)          ->     d_h = mean_grad(d_loss)
                                   d_w = matmul(x, d_h, trans_a=True)
                                   ...

Reverse mode over the sum of the losses.  A gradient node is named `d_<node>` and carries the
lines of the node it belongs to.  The result's `gradients` maps each of `wrt` to its gradient;
before, it may map a name to the node that replaces it, so that passes keep that node.

In a step with several update rules each has a backward of its own.  A later one finds parameters
that rules before it update, and differentiates at their next values: the nodes between them and its
losses are taken again, all others are shared.

    w.next = sgd_step(w, d_w, ...)         w.next = sgd_step(w, d_w, ...)
    a = affine(x, w)                ->     a.next = affine(x, w.next)
    loss = mean(a * v)                     loss.next = mean(a.next * v)
                                           d_v = ...

So masks of dropout are those of the one forward.  A normalisation takes the statistics of what it
gets; running statistics are updated by the first values alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from graphc.base.errors import GraphError
from graphc.declare.optim.rule import UpdateRule
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Role
from graphc.ops.autodiff import needed, vjp
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
    before: tuple[UpdateRule, ...] = ()
    """The rules before; outputs that their losses depend on stay as these rules see them."""

    def written(self, updates: Mapping[str, str]) -> dict[str, str]:
        """Return the next values of the parameters that the rules before update."""
        trained = {name for rule in self.before for name in rule.wrt}
        return {name: value for name, value in updates.items() if name in trained}

    def __call__(self, graph: Graph) -> Graph:
        """Return the graph with gradients; raise GraphError if a required one reaches no loss."""
        b = Builder.extending(graph)
        losses = [graph.outputs[name] for name in self.losses]
        written = self.written(b.updates)
        new = _retaken(b, losses, written)
        cotangents: dict[str, Value] = {}
        for name in self.losses:
            value = new.get(graph.outputs[name], graph.outputs[name])
            seed = self._seed(b, name, value)
            known = cotangents.get(value)
            cotangents[value] = seed if known is None else known + seed
        targets = {name: graph.gradients.get(name, name) for name in self.wrt}
        fixed = frozenset(written.values())
        found = vjp(b, cotangents, targets.values(), leaves=fixed)
        for name in self.required:
            if targets[name] not in found:
                raise _unreached(graph[targets[name]], name, self.losses)
        for name, target in targets.items():
            b.gradients.pop(name, None)
            if target in found:
                b.gradients[name] = found[target].name
        before = (graph.outputs[name] for rule in self.before for name in rule.losses)
        seen = graph.upstream(before)
        b.outputs.update(
            {k: new[v] for k, v in graph.outputs.items() if v in new and v not in seen}
        )
        return b.graph()

    def _seed(self, b: Builder, name: str, value: str) -> Value:
        type = b.nodes[value].type
        if self.fed:
            with b.at(b.nodes[value].locs):
                op = Input(type.shape, type.dtype, Role("cotangent", name))
                return b.apply(op, name=f"cotangent:{name}")
        return constant(b, 1.0, type.dtype, name=b.unique(f"d_{value}"))


def _retaken(b: Builder, values: Iterable[str], written: Mapping[str, str]) -> dict[str, str]:
    """Take nodes that these values need again, over next values of parameters; return all new."""
    new = {**written}
    read = needed(b.nodes, values, frozenset(new.values())) if new else ()
    for node in [*b.nodes.values()] if read else ():
        if node.name in read and not new.keys().isdisjoint(node.inputs):
            made = replace(node.reading(new), name=b.unique(f"{node.name}.next"))
            new[node.name] = b.insert(made).name
    return new


def _unreached(node: Node, name: str, losses: tuple[str, ...]) -> GraphError:
    what = f"loss {losses[0]!r} does" if len(losses) == 1 else f"losses {', '.join(losses)} do"
    return GraphError(
        f"{what} not depend on {node.op.name} {name!r}, so it has no gradient",
        loc=node.loc,
        hint="leave it out of wrt, or use it on the way to a loss",
    )
