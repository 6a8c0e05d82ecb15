"""The choice of a plan's losses, outputs and parameters: by names, values and patterns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from graphc.base.errors import GraphError, first_of
from graphc.ir.build import Value
from graphc.ir.graph import Graph

Names = str | Value | Sequence[str | Value] | None


def select_outputs(graph: Graph, losses: Names, outputs: Names) -> Graph:
    """Return the graph with the chosen outputs and losses; any node may be an output."""
    kept = list(graph.losses) if losses is None else _matching(losses, graph.losses, "loss")
    chosen = {k: v for k, v in graph.outputs.items() if k in kept or k not in graph.losses}
    if outputs is not None:
        named = {**{node.name: node.name for node in graph}, **graph.outputs}
        chosen = {name: named[name] for name in _matching(outputs, named, "output or node")}
        chosen.update({name: graph.outputs[name] for name in kept})
    return Graph(graph.name, graph, outputs=chosen, losses=kept, updates=graph.updates)


def select_wrt(graph: Graph, wrt: Names) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names to differentiate by, and the ones that `wrt` gives without patterns."""
    parameters = [n.name for n in graph if n.op.is_parameter and n.name not in graph.updates]
    if wrt is None:
        if parameters:
            _check_each_loss(graph, parameters)
        return tuple(parameters), ()
    floats = {node.name for node in graph if node.type.is_float}
    asked = listed(wrt)
    inner = [name for name in asked if name in floats and name not in parameters]
    for name in graph.updates.keys() & {*asked}:
        raise GraphError(
            f"{name!r} is updated by the net itself, so no optimizer trains it",
            operands=[graph[graph.updates[name]].described("update")],
            hint="leave it out of wrt=",
        )
    names = _matching(wrt, [*parameters, *inner], "parameter or float value")
    _check_some_loss(graph, names)
    return tuple(names), tuple(name for name in names if name in asked)


def _check_each_loss(graph: Graph, parameters: Sequence[str]) -> None:
    """Raise GraphError for a loss that depends on no parameter."""
    for loss in graph.losses:
        node = graph[graph.outputs[loss]]
        if graph.upstream([node.name]).isdisjoint(parameters):
            raise GraphError(
                f"loss {loss!r} depends on no parameter, so nothing can minimise it",
                operands=[node.described("loss")],
                hint="compute it from what the net predicts, or leave it out by losses=",
            )


def _check_some_loss(graph: Graph, names: Sequence[str]) -> None:
    """Raise GraphError if no loss depends on any of the names."""
    losses = [graph[graph.outputs[loss]] for loss in graph.losses]
    if losses and graph.upstream(node.name for node in losses).isdisjoint(names):
        raise GraphError(
            f"no loss depends on the values of wrt: {first_of(names) or 'none'}",
            operands=[node.described("loss") for node in losses],
            hint="choose losses= and wrt= that belong together",
        )


def listed(names: Names) -> list[str]:
    """Return names and values as a list of names."""
    if names is None:
        return []
    single = isinstance(names, (str, Value))
    items: Iterable[str | Value] = [names] if single else names  # type: ignore[list-item]
    return [item.name if isinstance(item, Value) else item for item in items]


def _matching(wanted: Names, known: Iterable[str], what: str) -> list[str]:
    """Return the known names that match a wanted name or pattern, in the order of `known`."""
    pool = list(known)
    chosen: set[str] = set()
    for pattern in listed(wanted):
        hits = [pattern] if pattern in pool else [k for k in pool if fnmatchcase(k, pattern)]
        if not hits:
            raise GraphError(
                f"no {what} matches {pattern!r}", hint=f"there are {first_of(pool) or 'none'}"
            )
        chosen.update(hits)
    return [name for name in pool if name in chosen]


def counterparts(own: str, other: str, names: Iterable[str]) -> dict[str, str]:
    """Return, for the names that `own` matches, what `other` makes of the part under its star.

    Raise GraphError unless both patterns have one star, or none.

    >>> counterparts("target/*", "critic/*", ["target/w", "actor/w"])
    {'target/w': 'critic/w'}
    """
    head, star, tail = own.partition("*")
    if "*" in tail or (star != "") != (other.count("*") == 1):
        raise GraphError(
            f"{own!r} and {other!r} do not go together",
            hint='each has one star, such as "target/*" and "critic/*", or none',
        )
    if not star:
        return {own: other} if own in names else {}
    ends = len(head) + len(tail)
    return {
        name: other.replace("*", name[len(head) : len(name) - len(tail)])
        for name in names
        if name.startswith(head) and name.endswith(tail) and len(name) >= ends
    }
