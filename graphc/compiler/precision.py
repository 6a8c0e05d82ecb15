"""The option `precision` of compile(): which layers multiply in bfloat16."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import get_args

from graphc.backends.backend import Backend
from graphc.base.arguments import check_choice
from graphc.base.errors import GraphError, first_of
from graphc.base.loc import caller_loc
from graphc.ir.graph import Graph
from graphc.ops.scan import Scan
from passes.round_products import Precision, matches, products
from passes.specialize import Specialize


def checked_precision(
    graph: Graph, given: Mapping[str, Precision] | None, backend: Backend
) -> tuple[tuple[str, Precision], ...]:
    """Return the patterns of layers with their precision.

    Raise GraphError for something else than a mapping to precisions, a pattern of no layer that can
    multiply in bfloat16, or a backend that cannot.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise GraphError(
            f"precision is {given!r}, not a mapping from layers to precisions",
            loc=caller_loc(),
            hint='precision={"*": "bf16", "scores": "float32"}',
        )
    layers = [*dict.fromkeys(_layers(Specialize(train=True)(graph)))] if given else []
    for pattern, precision in given.items():
        check_choice(f"precision of {pattern!r}", precision, get_args(Precision))
        if not any(matches(layer, pattern) for layer in layers):
            raise GraphError(
                f"precision: no layer that multiplies float32 matches {pattern!r}",
                loc=caller_loc(),
                hint=f"there are {first_of(layers) or 'none'}",
            )
    if "bf16" in given.values() and not backend.rounds:
        raise GraphError(
            f"precision: backend {backend.name!r} does not multiply bfloat16 yet",
            loc=caller_loc(),
            hint='backend="numpy" does, with the same bits as any other, but slowly',
        )
    return tuple(given.items())


def _layers(graph: Graph, path: str = "") -> Iterator[str]:
    """Yield the names of the products of a graph, and of those in the steps of its loops."""
    yield from (path + node.name for node in products(graph))
    for node in graph:
        if isinstance(node.op, Scan):
            yield from _layers(node.op.step.graph(()), f"{path}{node.name}.")
