"""The option `precision` of compile(): which layers multiply in bfloat16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, get_args

from graphc.base.arguments import check_choice
from graphc.base.errors import GraphError, first_of
from graphc.base.loc import caller_loc
from graphc.ir.graph import Graph
from graphc.ops.scan import Scan
from passes.round_products import Precision, loop_path, matches, products
from passes.specialize import Specialize


def checked_precision(
    graph: Graph, given: Mapping[str, Precision] | Literal["bf16"] | None
) -> tuple[tuple[str, Precision], ...]:
    """Return the patterns of layers with their precision; none if the compiler is to choose them.

    Raise GraphError for something else than a mapping to precisions, or a pattern of no layer that
    can multiply in bfloat16.
    """
    if given is None or given == "bf16":
        return ()
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise GraphError(
            f"precision is {given!r}, not a mapping from names of layers to precisions",
            loc=caller_loc(),
            hint='precision="bf16", or precision={"*": "bf16", "scores": "float32"}',
        )
    layers = layers_of(graph) if given else []
    for pattern, precision in given.items():
        check_choice(f"precision of {pattern!r}:", precision, get_args(Precision))
        if not any(matches(layer, pattern) for layer in layers):
            raise GraphError(
                f"precision: no layer that multiplies float32 matches {pattern!r}",
                loc=caller_loc(),
                hint=f"there are {first_of(layers) or 'none'}",
            )
    return tuple(given.items())


def known_layers(
    graph: Graph, patterns: Iterable[tuple[str, Precision]]
) -> dict[str, Precision] | None:
    """Return the patterns that some layer of a graph, such as a frozen one, has; None if none."""
    known, layers = dict(patterns), layers_of(graph)
    return {p: to for p, to in known.items() if any(matches(one, p) for one in layers)} or None


def layers_of(graph: Graph) -> list[str]:
    """Return the names of the products of a declared graph that can be of bfloat16."""
    return [*dict.fromkeys(_layers(Specialize(train=True)(graph)))]


def _layers(graph: Graph, path: str = "") -> Iterator[str]:
    """Yield the names of the products of a graph, and of those in the steps of its loops."""
    yield from (path + node.name for node in products(graph))
    for node in graph:
        if isinstance(node.op, Scan):
            yield from _layers(node.op.step.graph(()), path or f"{loop_path(graph, node)}.")
