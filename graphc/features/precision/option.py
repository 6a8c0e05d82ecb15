"""The option `precision` of compile(): which layers multiply in bfloat16."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, get_args

from graphc.backends.backend import backend
from graphc.base.arguments import check_choice
from graphc.base.errors import GraphError, first_of
from graphc.base.loc import caller_loc
from graphc.features.precision.choice import chosen_precision, relative_times
from graphc.ir.graph import Graph
from graphc.ir.op import step_of
from passes.pipeline import PassList
from passes.set_precision import Precision, SetPrecision, inner_path, matches, products
from passes.specialize import Specialize

PrecisionChoice = Mapping[str, Precision] | Literal["bf16"] | None
"""The option: patterns of layers with their precision, or "bf16" for the compiler's choice."""


def precision_of_layers(
    graph: Graph,
    asked: PrecisionChoice,
    passes: PassList,
    batch: int,
    trains: bool,
    backend_name: str,
) -> tuple[tuple[str, Precision], ...]:
    """Return the patterns of layers with their precision, as asked for or as the compiler chooses.

    Raise GraphError for something else than a mapping to precisions, a pattern of no layer that can
    multiply in bfloat16, or a list of passes without the one that sets the precision.
    """
    if asked is None:
        return ()
    if asked == "bf16":
        rates = backend(backend_name).rates_of_orders()
        found = chosen_precision(relative_times(graph, batch, trains, rates))
    else:
        found = _checked(graph, asked)
    if SetPrecision.name not in passes.names and any(to != "float32" for _, to in found):
        raise GraphError(
            f"precision= needs the pass {SetPrecision.name!r}, which passes= leaves out",
            loc=caller_loc(),
        )
    return found


def _checked(graph: Graph, given: object) -> tuple[tuple[str, Precision], ...]:
    """Return the patterns of a mapping; raise GraphError for a mistake in it."""
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise GraphError(
            f"precision is neither 'bf16' nor a mapping from names of layers: {given!r}",
            loc=caller_loc(),
            hint='precision="bf16", or precision={"*": "bf16_blocks", "scores": "float32"}',
        )
    layers = layers_of(graph) if given else []
    for pattern, precision in given.items():
        check_choice(f"precision of {pattern!r}:", precision, get_args(Precision))
        if not any(matches(layer, pattern) for layer in layers):
            raise GraphError(
                f"precision: no layer that multiplies float32 matches {pattern!r}",
                loc=caller_loc(),
                hint=f"there are {first_of(layers)}" if layers else "this net has no such layer",
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
    yield from (layer for layer, *_ in products(graph, path))
    for node in graph:
        if (step := step_of(node.op)) is not None:
            yield from _layers(step.graph(()), inner_path(node, path))
