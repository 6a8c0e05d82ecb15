"""Parameters that follow others slowly, as a target network does."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from graphc.base.arguments import checked_number
from graphc.base.errors import GraphError
from graphc.declare.net import Net
from graphc.declare.selection import counterparts
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.init import FromArray, SameAs
from graphc.ops import optim
from graphc.ops.source import Parameter

EXAMPLE = 'gc.track(net, "target/*", of="critic/*", rate=0.005)'


def track(net: Net, targets: str, *, of: str, rate: float) -> None:
    """Let parameters follow others: target = (1 - rate)*target + rate*source after each update.

    A target starts as its source does, and no optimizer trains it.  It moves in each step of a plan
    that trains its source, towards the source's new value, and in `ex.update()`.

    Parameters
    ----------
    net
        The net that has declared both.
    targets
        A name, or a pattern with one star, such as "target/*".
    of
        The name or the pattern of the sources, such as "critic/*".
    rate
        The share of the source, above 0 and up to 1.

    Raises
    ------
    GraphError
        If no parameter matches, a source is missing or of another type, or a target is updated
        already.

    Examples
    --------
    >>> net = gc.Net("net")
    >>> x = net.input("x", (gc.N, 3))
    >>> for name in ("critic", "target"):
    ...     with net.block(name):
    ...         value = gc.affine(x, 1)
    >>> gc.track(net, "target/*", of="critic/*", rate=0.005)
    """
    if not isinstance(net, Net) or not isinstance(targets, str) or not isinstance(of, str):
        raise GraphError("track takes a net, and names or patterns of parameters", hint=EXAMPLE)
    rate = checked_number("track: rate", rate, above=0.0, most=1.0, hint="0.005 is usual")
    b = net.builder
    parameters = [node.name for node in b.nodes.values() if node.op.is_parameter]
    pairs = counterparts(targets, of, parameters)
    if not pairs:
        hint = f"there are {', '.join(parameters[:6]) or 'none'}"
        raise GraphError(f"track: no parameter matches {targets!r}", hint=hint)
    for target, source in pairs.items():
        _check(b, target, source, parameters)
    with b.all_or_nothing():
        news = [_next(b, rate, *pair) for pair in pairs.items()]
    for (target, source), new in zip(pairs.items(), news, strict=True):
        b.update(b.value(target), new)
        b.nodes[target] = _starting_as(b.nodes[target], b.nodes[source])


def _next(b: Builder, rate: float, target: str, source: str) -> Value:
    name = b.unique(f"{target}.next")
    return b.apply(optim.Track(rate), b.value(target), b.value(source), name=name)


def _check(b: Builder, target: str, source: str, parameters: Collection[str]) -> None:
    """Raise GraphError for a parameter that cannot follow another."""
    if source == target:
        raise GraphError(f"track: {target!r} would follow itself", hint=EXAMPLE)
    if source not in parameters:
        hint = "both are declared before gc.track"
        raise GraphError(f"track: there is no {source!r} for {target!r} to follow", hint=hint)
    for name in (target, source):
        if name in b.updates:
            raise GraphError(f"track: {name!r} is updated by the net already", hint="track it once")


def _starting_as(target: Node, source: Node) -> Node:
    """Return the target, with the initial value of the source."""
    assert isinstance(target.op, Parameter) and isinstance(source.op, Parameter)
    init = source.op.init
    same = init if isinstance(init, FromArray) else SameAs(source.name, init)
    return replace(target, op=replace(target.op, init=same))


class Tracked(NamedTuple):
    """A parameter that follows another."""

    target: Node
    next: Node
    """The target's next value, by its present one and the source."""

    @property
    def source(self) -> str:
        """The parameter that is followed."""
        return self.next.inputs[1]

    @property
    def rate(self) -> float:
        """The share of the source."""
        assert isinstance(self.next.op, optim.Track)
        return self.next.op.rate


def tracked(graph: Graph) -> tuple[Tracked, ...]:
    """Return the parameters of a declared graph that follow others."""
    pairs = ((graph[state], graph[value]) for state, value in graph.updates.items())
    return tuple(Tracked(*pair) for pair in pairs if isinstance(pair[1].op, optim.Track))


def untracked(graph: Graph) -> Graph:
    """Return the graph without the updates of parameters that follow others."""
    left = {each.target.name: each.next.name for each in tracked(graph)}
    if not left:
        return graph
    nodes = [node for node in graph if node.name not in left.values()]
    updates = {name: value for name, value in graph.updates.items() if name not in left}
    return graph.with_nodes(nodes, updates=updates)
