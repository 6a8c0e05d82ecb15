"""Random inputs for graphs, runs by the reference rules, and comparison of the results.

The numbers are finite and away from kinks.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from graphc.base.arguments import checked_whole
from graphc.base.errors import GraphError, RuleError, rule_failure, shown
from graphc.check.central_differences import in_float64, kinks_of
from graphc.compiler.index_bounds import index_bounds
from graphc.features.loops.sequences import steps_of_loops
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.interpreter import computed, interpret
from graphc.ir.op import Array
from graphc.ir.step_graph import nested
from graphc.ir.tensor_type import Dim, dim_at, shape_at
from graphc.ops.loops.lengths import most_steps
from graphc.ops.source import Parameter
from graphc.ops.source import State as StateOp
from graphc.runtime.state import initial_value
from passes.segment_scans import segment
from passes.specialize import Specialize

Results = dict[str, Array]
"""The results of a graph by kind and name: `output scores`, `gradient w`, `update w`, `mask d`."""

Change = Callable[[Node, Array], Array]
EPS = float(np.finfo(np.float64).eps)
ROUNDING = 2.0**-8
"""The most by which rounding to bfloat16 changes a number, as a part of it."""


def values_of_arrays(
    graph: Graph,
    rows: int,
    arrays: Mapping[str, Array],
    *,
    train: bool = True,
    change: Change | None = None,
) -> dict[str, Array]:
    """Return the value of every node; nodes in `arrays` are not computed.

    Every value lies in C order: the bits of a sum depend on the layout of its operand.
    """

    def kept(node: Node, value: Array) -> Array:
        return np.asarray(value if change is None else change(node, value), order="C")

    known = {name: array for name, array in arrays.items() if name in graph}
    with np.errstate(all="ignore"):
        return interpret(graph, lambda node, ins: value_of(node, ins, rows, train), known, kept)


def value_of(node: Node, ins: list[Array], rows: int, train: bool) -> Array:
    """Return the value that a node's rule computes; raise GraphError if the rule fails."""
    try:
        return computed(node, ins, rows, train)
    except GraphError:
        raise
    except Exception as error:  # a rule of a user's op, which may do anything
        hint = "passes are validated by the reference rules; gc.check_op tries one op"
        fault = rule_failure(error)
        raise RuleError(node.op.name, "reference", fault, node.name, node.loc, hint) from error


def result_names(graph: Graph) -> dict[str, str]:
    """Return the node of each result: outputs, gradients, next states and dropout masks."""
    roots = {"output": graph.outputs, "gradient": graph.gradients, "update": graph.updates}
    found = {f"{kind} {k}": v for kind, names in roots.items() for k, v in names.items()}
    return found | {f"mask {n.name}": n.name for n in graph if n.op.is_random}


def results_of(graph: Graph, values: Mapping[str, Array]) -> Results:
    """Return outputs, gradients, next states and dropout masks."""
    return {result: values[name] for result, name in result_names(graph).items()}


def without_gradients(results: Results) -> Results:
    """Return all results but gradients."""
    return {name: value for name, value in results.items() if not name.startswith("gradient ")}


@dataclass(frozen=True)
class Outcome:
    """The results of a graph for the arrays of its sources."""

    graph: Graph
    rows: int
    arrays: Mapping[str, Array]
    results: Results

    @classmethod
    def of(cls, graph: Graph, draw: Draw) -> Outcome:
        """Return the outcome for the draw's numbers."""
        results = results_of(graph, values_of(graph, draw))
        return cls(graph, draw.rows, source_arrays(graph, draw), results)

    def bounds(
        self, runs: int, noise: Callable[[int], Noise] | None = None, scale: float = 1.0
    ) -> dict[str, float]:
        """Return how far rounding may move each result, which bounds a reassociated pass.

        Monte Carlo arithmetic (D. S. Parker, "Monte Carlo arithmetic", UCLA CSD-970002, 1997): the
        graph runs again with every number that is read or rounded moved by one part in 2**52, or
        as `noise` moves it, at random.  The largest move of a result, times a factor that grows
        with the square root of the largest dimension, is the most that sums in another order may
        change it.  Without runs it is the least that the bound can be.  `scale` is how much coarser
        than float64 the results are.
        """
        made, plain = noise or Noise, self.results
        moved, longest = dict.fromkeys(plain, 0.0), 1
        for run in range(runs):
            values = values_of_arrays(self.graph, self.rows, self.arrays, change=made(run))
            longest = max(longest, *(max(value.shape, default=1) for value in values.values()))
            for name, value in results_of(self.graph, values).items():
                if value.dtype.kind == "f":
                    with np.errstate(invalid="ignore"):  # of infinities
                        moved[name] = max(moved[name], largest(value - plain[name]))
                    if noise is not None and np.isfinite(plain[name][~np.isfinite(value)]).any():
                        moved[name] = np.inf  # coarse noise leaves the domain of a function
        factor, eps = 16 + 2 * longest**0.5, made(0).eps
        return {
            name: scale * (factor * moved[name] + 4 * eps(self.graph[node]) * largest(plain[name]))
            for name, node in result_names(self.graph).items()
        }


class Noise:
    """Moves each number that an op rounds by one rounding, up or down at random.

    `eps` gives the size of a rounding at a node; by default it is that of float64.
    """

    def __init__(self, run: int, eps: Callable[[Node], float] = lambda node: EPS) -> None:
        self.rng, self.eps = generator(run, "validation:noise"), eps

    def __call__(self, node: Node, value: Array) -> Array:
        """Return the value of a node with its numbers moved, if the op rounds them."""
        return value if node.op.is_exact else self.moved(node, value)

    def moved(self, node: Node, value: Array) -> Array:
        """Return the value of a node with its numbers moved."""
        if value.dtype.kind != "f":
            return value
        return np.asarray(value * (1 + self.eps(node) * self._signs(value)), value.dtype)

    def added(self, value: Array, size: Array) -> Array:
        """Return a value moved by half of a size, up or down."""
        return np.asarray(value + 0.5 * size * self._signs(value), value.dtype)

    def _signs(self, value: Array) -> Array:
        return self.rng.integers(0, 2, value.shape) * 2 - 1


class FactorNoise(Noise):
    """Moves factors by a rounding to bfloat16, whatever op makes them, and others as of float32."""

    def __init__(self, run: int, factors: Container[str]) -> None:
        single = float(np.finfo(np.float32).eps)
        super().__init__(run, lambda node: ROUNDING if node.name in factors else single)
        self.factors = factors

    def __call__(self, node: Node, value: Array) -> Array:
        """Return the value of a node with its numbers moved, by less than a rounding of factors."""
        if node.name not in self.factors or value.dtype.kind != "f":
            return super().__call__(node, value)
        parts = self.rng.uniform(-ROUNDING, ROUNDING, value.shape)  # equal ones may cancel
        return np.asarray(value * (1 + parts), value.dtype)


def float64(array: Array) -> Array:
    """Return an array in float64 if it holds floats, or as it is."""
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def largest(value: Array) -> float:
    """Return the largest absolute value of the numbers that are finite."""
    if value.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(value), where=np.isfinite(value), initial=0.0))


# ------------------------------------------------------------------ random numbers

MARGIN = 1e-6
"""The least distance of every number from a kink (relu at 0, ties of max, clipping)."""

Style = Literal["normal", "small", "positive", "special", "zeros", "opposite", "some", "far"]
STYLES: tuple[Style, ...] = (*("normal",) * 12, *("small",) * 4, *("positive",) * 4)
"""The styles that are tried one after the other; usually only the first is needed."""

ZEROS: tuple[Style, ...] = ("zeros", "opposite", "some", "some")
"""The styles of zeros alone, of those with other signs, and of zeros among normal numbers."""
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 1e-40, 1e30, np.inf, -np.inf, np.nan])
TIES = np.array([0.5, -0.5, 1.5, -2.5, 1.0, -1.0, 1 + 2.0**-8, -1 - 3 * 2.0**-8])
"""Halves, and numbers between two of bfloat16, which are rounded to the even one."""
FAR = (60.0, 4.0)
"""The sizes of the largest numbers in a draw of far ones, the first of which is tried first."""


@dataclass(frozen=True)
class Draw:
    """Random arrays for the inputs and states of graphs, by name.

    A node of one name and shape has the same numbers in every graph, so that a graph and
    the graph that a pass makes of it read the same.
    """

    rows: int
    seed: int = 0
    style: Style = "normal"
    bounds: Mapping[str, Dim] = field(default_factory=dict)
    """The number of entries that an integer input indexes."""
    most: Mapping[str, Dim] = field(default_factory=dict)
    """The most steps of a row, by input of lengths."""
    far: float = FAR[0]
    """The size of the largest numbers in the style of that name."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """The arrays that are not drawn."""
    redrawn: int = 0
    """The number of draws before this one that were too near to a kink, or not finite."""
    near: bool = False
    """True if this one is, too, because no better one was found."""
    edges: list[Draw] = field(default_factory=list, compare=False, repr=False)
    """The draws with edge values that go with this one, once they have been asked for."""
    known: dict[tuple[str, Any], Array] = field(default_factory=dict, compare=False, repr=False)
    last: dict[bool, tuple[Graph, Mapping[str, Array]]] = field(
        default_factory=dict, compare=False, repr=False
    )
    """The last graph that ran, and its values: one with numbers in float32, and one without."""

    def other(self, **changes: Any) -> Draw:
        """Return a draw with some fields changed, for which nothing is drawn or computed yet."""
        return replace(self, **changes, edges=[], known={}, last={})

    def array(self, node: Node) -> Array:
        """Return the numbers of an input, parameter or state, in the dtype of its type."""
        key = node.name, node.type
        if key not in self.known:
            self.known[key] = self._array(node).astype(node.type.dtype)
        return self.known[key]

    def _array(self, node: Node) -> Array:
        """Return given numbers, or random ones for an input, parameter or state."""
        shape = shape_at(node.type.shape, self.rows)
        if node.name in self.given:
            array = np.asarray(self.given[node.name])
            if array.shape == shape:
                return array
            raise GraphError(f"{node.op.name} {node.name!r} has shape {shape}, not {array.shape}")
        rng = generator(self.seed, f"validation:{node.name}")
        if node.op.is_input:
            found = self._input(node, rng, shape)
        else:
            found = _parameter(node, rng) if node.op.is_parameter else _state(node, rng)
        if self.style not in ZEROS or not node.type.is_float or node.op.is_state:
            return found
        zeros = rng.choice([0.0, -0.0], shape) * (-1 if self.style == "opposite" else 1)
        return np.where(rng.random(shape) < 0.6, zeros, found) if self.style == "some" else zeros

    def _input(self, node: Node, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Return random numbers for an input in the style of the draw."""
        if not node.type.is_float:
            first = int(node.op.role.kind == "lengths")
            most = dim_at(self.bounds.get(node.name, 2), self.rows)
            found = rng.integers(first, first + most, shape)
            if node.name in self.most and found.size:
                return _lengths(found, first, dim_at(self.most[node.name], self.rows), rng)
            return found
        if self.style == "positive" or node.op.is_of_shard:
            return rng.uniform(0.5, 1.5, shape)
        numbers = rng.standard_normal(shape) * (0.1 if self.style == "small" else 1.0)
        if self.style == "far":
            ends = np.array([-self.far, self.far])
            found = rng.choice([*TIES, *ends, *ends / 3, *ends / 7], shape)
            return np.where(rng.random(shape) < 0.6, found, numbers)
        if self.style == "special":
            chosen = rng.choice(SPECIAL, shape)
            return np.where(rng.random(shape) < 0.3, chosen, numbers)
        return numbers


def _lengths(found: Array, first: int, most: int, rng: np.random.Generator) -> Array:
    """Return lengths of which some end where a segment of a loop begins; the last is the longest.

    A row alone is of that kind.  Of one step there is one length.
    """
    if most == 1:
        return found
    size = segment(most) or max(most // 2, 1)
    ends = np.arange(size, most, size) + 1
    places = rng.random(found.shape) < (0.4 if len(found) > 1 else 1)
    found = np.where(places, rng.choice(ends, found.shape), found)
    if len(found) > 1:
        found[-1], found[0] = most, min(int(found[0]), max(most - 1, first))
    return found


def _parameter(node: Node, rng: np.random.Generator) -> Array:
    """Return a parameter's initial values with noise, so that no bias is 0 and no gamma is 1."""
    assert isinstance(node.op, Parameter)
    start = node.op.init.sample(rng, node.op.shape, "float64")
    return np.asarray(start + rng.uniform(-0.2, 0.2, node.op.shape))


def _state(node: Node, rng: np.random.Generator) -> Array:
    """Return a state larger than its initial value: positive variances, small counters."""
    assert isinstance(node.op, StateOp)
    shape, start = node.op.shape, initial_value(node, 0)
    if node.type.is_float:
        noise = rng.uniform(0.1, 0.9, shape)
        return np.asarray(start * noise + 0.01 if node.op.role.kind == "hyper" else start + noise)
    return np.asarray(rng.integers(1, 9, shape))


def source_arrays(graph: Graph, draw: Draw) -> dict[str, Array]:
    """Return the arrays of every input, parameter and state of the graph."""
    sources = (node for node in graph if node.op.is_input or node.op.persistent)
    return {node.name: draw.array(node) for node in sources}


def values_of(graph: Graph, draw: Draw) -> dict[str, Array]:
    """Return the value of every node for the draw's numbers.

    A pass leaves most nodes as they are: values of the last graph are taken where they are alike.
    """
    single = any(node.type.dtype == "float32" for node in graph)
    known = source_arrays(graph, draw)
    old, values = draw.last.get(single, (graph, {}))
    for node in graph if values else ():
        if _computes_alike(node, old.nodes.get(node.name)) and all(
            known.get(name) is values[name] for name in node.inputs
        ):
            known.setdefault(node.name, values[node.name])
    found = values_of_arrays(graph, draw.rows, known)
    draw.last[single] = graph, found
    return found


def _computes_alike(node: Node, other: Node | None) -> bool:
    return node is other or (
        other is not None
        and (node.op, node.inputs, node.type) == (other.op, other.inputs, other.type)
    )


def checked_batches(call: str, batches: Any) -> tuple[int, ...]:
    """Return numbers of rows, at least one; raise GraphError for anything else."""
    found = tuple(batches) if isinstance(batches, Iterable) else ()
    if not found:
        fault = f"batches is {shown(batches)}, it must be a list of rows"
        raise GraphError(f"{call}: {fault}", hint="batches=(1, 7)")
    return tuple(checked_whole(f"{call}: a number of rows", rows) for rows in found)


def draws_for(
    graph: Graph, batches: Iterable[int], *, seed: int = 0, given: Mapping[str, Any] | None = None
) -> tuple[Draw, ...]:
    """Return a draw for each number of rows that suits the graph in training mode."""
    plain = expanded(graph)
    steps, most = steps_of_loops(plain), most_steps(plain)
    limits = {name: count + 1 for name, count in steps.items()} | index_bounds(plain) | most
    first = Draw(0, seed, bounds=limits, most={**steps, **most}, given=given or {})
    wide = in_float64(plain)
    return tuple(_drawn(wide, replace(first, rows=rows)) for rows in batches)


def far(graph: Graph, draw: Draw) -> Draw:
    """Return the draw with large numbers and ties, the largest with which all values are finite.

    They meet where functions saturate and where numbers are clipped or rounded half-way.
    """
    plain = expanded(graph)
    for size in FAR:
        made = draw.other(style="far", far=size)
        values = values_of(plain, made).values()
        if all(np.isfinite(value).all() for value in values if value.dtype.kind == "f"):
            break
    return made


def expanded(graph: Graph, train: bool = True) -> Graph:
    """Return the graph with its layers, if it has any, expanded for training or inference."""
    return Specialize(train)(graph) if has_layers(graph) else graph


def has_layers(graph: Graph) -> bool:
    """Return whether a graph, or a step of a loop in it, has layers."""
    return any(node.op.is_layer for node in nested(graph))


def _drawn(graph: Graph, first: Draw) -> Draw:
    """Draw again until all values are finite and away from kinks, or no style is left."""
    draw = first
    for number, style in enumerate(STYLES):
        draw = first.other(seed=first.seed + 1000 * number, style=style, redrawn=number)
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
