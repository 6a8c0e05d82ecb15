"""Random inputs, parameters and states, with numbers that are finite and away from kinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from graphc.base.errors import GraphError
from graphc.check.central_differences import in_float64, kinks_of
from graphc.check.validation.run import values_of_arrays
from graphc.compiler.index_bounds import index_bounds
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.ops.exchange import ShardInput
from graphc.ops.source import Parameter
from graphc.ops.source import State as StateOp
from graphc.runtime.state import initial_value
from passes.specialize import Specialize

MARGIN = 1e-6
"""The least distance of every number from a kink (relu at 0, ties of max, clipping)."""

_T = TypeVar("_T")

Style = Literal["normal", "small", "positive", "special"]
STYLES: tuple[Style, ...] = (*("normal",) * 12, *("small",) * 4, *("positive",) * 4)
"""The styles that are tried one after the other; usually only the first is needed."""

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 1e-40, 1e30, np.inf, -np.inf, np.nan])


@dataclass(frozen=True)
class Draw:
    """Arrays for every input and state that a graph may have, found by name.

    A node of one name and shape has the same numbers in every graph, so that a graph and
    the graph that a pass makes of it read the same.
    """

    rows: int
    seed: int = 0
    style: Style = "normal"
    bounds: Mapping[str, int] = field(default_factory=dict)
    """The number of entries that an integer input indexes."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The arrays that are not drawn."""
    redrawn: int = 0
    """The number of draws before this one that were too near to a kink, or not finite."""
    near: bool = False
    """Whether this one is, too, because no better one was found."""
    known: dict[tuple[str, Any], Array] = field(default_factory=dict, compare=False, repr=False)
    found: dict[str, tuple[Graph, Any]] = field(default_factory=dict, compare=False, repr=False)

    def once(self, what: str, graph: Graph, compute: Callable[[], _T]) -> _T:
        """Return the result of `compute` for the graph, reused if that graph was the last one.

        The result of one pass is the operand of the next one.
        """
        if what not in self.found or self.found[what][0] is not graph:
            self.found[what] = graph, compute()
        value: _T = self.found[what][1]
        return value

    def array(self, node: Node) -> Array:
        """Return the numbers of an input, parameter or state, in the dtype of its type."""
        key = node.name, node.type
        if key not in self.known:
            self.known[key] = self._array(node).astype(node.type.dtype)
        return self.known[key]

    def _array(self, node: Node) -> Array:
        shape = shape_at(node.type.shape, self.rows)
        if node.name in self.given:
            array = np.asarray(self.given[node.name])
            if array.shape == shape:
                return array
            raise GraphError(f"{node.op.name} {node.name!r} has shape {shape}, not {array.shape}")
        rng = generator(self.seed, f"validation:{node.name}")
        if node.op.is_fed:
            return self._input(node, rng, shape)
        return _parameter(node, rng) if isinstance(node.op, Parameter) else _state(node, rng)

    def _input(self, node: Node, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        if not node.type.is_float:
            return rng.integers(0, self.bounds.get(node.name, 2), shape)
        if self.style == "positive" or isinstance(node.op, ShardInput):
            return rng.uniform(0.5, 1.5, shape)
        numbers = rng.standard_normal(shape) * (0.1 if self.style == "small" else 1.0)
        if self.style == "special":
            chosen = rng.choice(SPECIAL, shape)
            return np.where(rng.random(shape) < 0.3, chosen, numbers)
        return numbers


def _parameter(node: Node, rng: np.random.Generator) -> Array:
    """Return a parameter's initial values with noise, so that no bias is 0 and no gamma is 1."""
    assert isinstance(node.op, Parameter)
    start = node.op.init.sample(rng, node.op.shape, "float64")
    return np.asarray(start + rng.uniform(-0.2, 0.2, node.op.shape))


def _state(node: Node, rng: np.random.Generator) -> Array:
    """Return a state above its start: running variances and squares positive, counters small."""
    assert isinstance(node.op, StateOp)
    shape, start = node.op.shape, initial_value(node, 0)
    if node.type.is_float:
        noise = rng.uniform(0.1, 0.9, shape)
        return np.asarray(start * noise + 0.01 if node.name.startswith("hyper.") else start + noise)
    return np.asarray(rng.integers(1, 9, shape))


def given_of(graph: Graph, draw: Draw) -> dict[str, Array]:
    """Return the arrays of every input, parameter and state of the graph."""
    sources = (node for node in graph if node.op.is_fed or node.op.persistent)
    return {node.name: draw.array(node) for node in sources}


def values_of(graph: Graph, draw: Draw) -> dict[str, Array]:
    """Return the value of every node for the draw's numbers."""
    return values_of_arrays(graph, draw.rows, given_of(graph, draw))


def special(draw: Draw) -> Draw:
    """Return the draw with zeros of both signs, infinities, NaN and numbers near the limits."""
    return replace(draw, style="special", known={}, found={})


def draws_for(
    graph: Graph, batches: Iterable[int], *, seed: int = 0, given: Mapping[str, Any] | None = None
) -> tuple[Draw, ...]:
    """Return a draw for each number of rows that suits the graph in training mode."""
    plain = expanded(graph)
    limits = index_bounds(plain)
    wide = in_float64(plain)
    return tuple(
        _drawn(wide, Draw(rows, seed, bounds=limits, given=given or {})) for rows in batches
    )


def expanded(graph: Graph, train: bool = True) -> Graph:
    """Return the graph with its layers, if it has any, expanded for training or inference."""
    if not any(node.op.is_layer for node in graph):
        return graph

    return Specialize(train)(graph)


def _drawn(graph: Graph, first: Draw) -> Draw:
    """Return the first of the draws that is finite and away from kinks, or else the last."""
    draw = first
    for number, style in enumerate(STYLES):
        draw = replace(
            first, seed=first.seed + 1000 * number, style=style, redrawn=number, known={}, found={}
        )
        if nearest_kink(graph, draw) >= MARGIN:
            return draw
    return replace(draw, near=True)


def batches_for(capacity: int) -> Sequence[int]:
    """Return one row, a prime number of rows, and the most rows that a plan takes."""
    prime = next((p for p in (7, 5, 3, 2) if p < capacity), 1)
    return tuple(dict.fromkeys((1, prime, capacity)))


def nearest_kink(graph: Graph, draw: Draw) -> float:
    """Return the smallest distance of any number to a kink of its op; -1 if one is not finite.

    A distance of exactly 0 is left out: numbers drawn at random meet a kink only if the net
    itself puts them there, as relu does before abs.
    """
    values = values_of(graph, draw)
    nearest = np.inf
    for node in graph:
        value = values[node.name]
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return -1.0
        gaps = kinks_of(node.op, [values[name] for name in node.inputs])
        if gaps is not None:
            sizes = np.abs(gaps)
            nearest = min(nearest, float(np.min(sizes, where=sizes > 0, initial=np.inf)))
    return nearest
