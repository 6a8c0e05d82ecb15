"""Random inputs, parameters and states, with numbers that are finite and away from kinks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.own_passes import own_passes
from graphc.check.float64 import in_float64
from graphc.check.validation.kinks import nearest_kink
from graphc.compiler.index_bounds import index_bounds
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import shape_at
from graphc.ops.exchange import ShardInput
from graphc.ops.source import Input, Parameter
from graphc.ops.source import State as StateOp
from graphc.runtime.state import initial_value

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
        last = self.found.get(what)
        if last is None or last[0] is not graph:
            last = self.found[what] = graph, compute()
        value: _T = last[1]
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
            return _fitted(node, np.asarray(self.given[node.name]), shape)
        rng = generator(self.seed, f"validation:{node.name}")
        if isinstance(node.op, Input):
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


def _fitted(node: Node, array: Array, shape: tuple[int, ...]) -> Array:
    if array.shape == shape:
        return array
    raise GraphError(f"{node.op.name} {node.name!r} has shape {shape}, not {array.shape}")


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
    return {
        node.name: draw.array(node)
        for node in graph
        if isinstance(node.op, (Input, Parameter, StateOp))
    }


def special(draw: Draw) -> Draw:
    """Return the draw with zeros of both signs, infinities, NaN and numbers near the limits."""
    return replace(draw, style="special", known={}, found={})


def draws_for(
    graph: Graph,
    batches: Iterable[int],
    *,
    seed: int = 0,
    given: Mapping[str, Any] | None = None,
    bounds: Mapping[str, int] | None = None,
) -> tuple[Draw, ...]:
    """Return a draw for each number of rows that suits the graph in training mode."""
    plain = _plain(graph)
    limits = {**index_bounds(plain), **(bounds or {})}
    wide = in_float64(plain)
    return tuple(
        _drawn(wide, Draw(rows, seed, bounds=limits, given=given or {})) for rows in batches
    )


def _plain(graph: Graph) -> Graph:
    """Return the graph with its layers expanded for training."""
    if not any(isinstance(node.op, Layer) for node in graph):
        return graph
    own_passes()
    from passes.specialize import Specialize

    return Specialize(train=True)(graph)


def _drawn(graph: Graph, first: Draw) -> Draw:
    """Return the first of the draws that is finite and away from kinks, or else the last."""
    draw = first
    for number, style in enumerate(STYLES):
        draw = replace(
            first, seed=first.seed + 1000 * number, style=style, redrawn=number, known={}, found={}
        )
        if nearest_kink(graph, draw.rows, given_of(graph, draw)) >= MARGIN:
            return draw
    return replace(draw, near=True)


def batches_for(capacity: int) -> Sequence[int]:
    """Return one row, a prime number of rows, and the most rows that a plan takes."""
    prime = next((p for p in (7, 5, 3, 2) if p < capacity), 1)
    return tuple(dict.fromkeys((1, prime, capacity)))
