"""Counterexamples of rules: sizes and numbers at which the two sides, when they are run, differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import z3

from graphc.base.errors import GraphError
from graphc.check.prove.rule import Rule
from graphc.check.prove.sizes import ROWS
from graphc.check.prove.terms import Term, Unknown, array_of
from graphc.check.validation.shards import Rows, on_shards, rows_of
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.tensor_type import shape_at
from graphc.runtime.reference import evaluate

Sides = tuple[Graph, Graph]
Draw = Callable[[str, tuple[int, ...], str], Array]
"""The numbers of the array of that name, shape and dtype."""
LARGEST = 8
"""The largest size of a model that is run."""
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Counterexample:
    """Sizes and arrays with which the two sides of a rule differ, when they are run."""

    sizes: Mapping[str, int]
    arrays: Mapping[str, Array]
    root: str
    index: tuple[int, ...]
    left: float | tuple[int, ...]
    right: float | tuple[int, ...] | str
    """The two numbers at the index, or the two shapes, or why the right side cannot be run."""
    graphs: Sides
    """The two sides, with these sizes."""

    def __str__(self) -> str:
        sizes = named(self.sizes)
        place = f"{self.root}{list(self.index)}" if self.index else self.root
        if isinstance(self.right, str):
            return f"with {sizes}, the right side cannot be run: {self.right}"
        if isinstance(self.left, tuple):
            return f"with {sizes}, {place} has the shape {self.right}, not {self.left}"
        return f"with {sizes}, {place} is {self.right:.6g}, not {self.left:.6g}"


def named(sizes: Mapping[str, int]) -> str:
    """Return sizes as a text."""
    return ", ".join(f"{name} = {int(size)}" for name, size in sizes.items())


def counterexample(
    rule: Rule,
    sides: Callable[[Mapping[str, int]], Sides | None],
    sizes: Mapping[str, int],
    model: Term | None,
) -> Counterexample | None:
    """Return sizes and numbers with which the sides differ when they are run, or None.

    Rather those with which both can be run.
    """
    broken = None
    for tried, draw in _trials(rule, sizes, model):
        try:
            graphs = sides({name: tried[name] for name in rule.least})
        except Unknown:  # the pass fails at these
            continue
        found = None if graphs is None else _differing(graphs, tried, draw, rule.train)
        if found is not None and not isinstance(found.right, str):
            return found
        broken = broken or found
    return broken


def roots(graph: Graph) -> dict[str, str]:
    """Return the node of each result that the two sides must agree in."""
    groups = {"output": graph.outputs, "gradient": graph.gradients, "update": graph.updates}
    return {f"{kind} {name}": at for kind, group in groups.items() for name, at in group.items()}


def _trials(
    rule: Rule, sizes: Mapping[str, int], model: Term | None
) -> Iterator[tuple[dict[str, int], Draw]]:
    """Yield sizes and numbers to try: of the model, then random ones, then all sizes equal."""
    if model is not None:
        names = (*rule.least, *rule.rows)
        found = {name: model.eval(z3.Int(name), True).as_long() for name in names}
        if max(found.values()) <= LARGEST:
            yield found, _of_model(model)
            yield found, _random(0)
    own = {**sizes, **dict(zip(rule.rows, (2, 3), strict=False))}
    if max(own.values()) <= 4 * LARGEST:
        yield from ((own, _random(seed)) for seed in range(4))
    low = [name for name, least in rule.least.items() if least == 0]
    for size, *rest in product((2, 3), *[(0, 1, 2)] * len(low)):
        yield {**dict.fromkeys(own, size), **dict(zip(low, rest, strict=True))}, _random(1)


def _of_model(model: Term) -> Draw:
    def draw(name: str, shape: tuple[int, ...], dtype: str) -> Array:
        """Return the numbers of an array in the model."""
        array = array_of(name, len(shape), dtype)
        found = np.empty(shape, dtype)
        for index in np.ndindex(shape):
            value = model.eval(array(*map(z3.IntVal, index)), True)
            found[index] = z3.is_true(value) if dtype == "bool" else _float(value)
        return found

    return draw


def _float(value: Term) -> float:
    exact = value if z3.is_rational_value(value) else value.approx(12)
    return float(exact.as_fraction())


def _random(seed: int) -> Draw:
    """Return the draw of small numbers, half of the times only positive ones."""

    def draw(name: str, shape: tuple[int, ...], dtype: str) -> Array:
        key = seed + 1000 * sum(map(ord, name))
        found = np.random.Generator(np.random.Philox(key)).integers(-8, 9, shape) / 4
        return np.asarray(np.abs(found) + 0.5 if seed % 2 else found, dtype)

    return draw


def _differing(
    sides: Sides, sizes: Mapping[str, int], draw: Draw, train: bool
) -> Counterexample | None:
    """Run both sides on the same arrays, and return the first difference, or None."""
    left, right = sides
    n = sizes[ROWS] if ROWS in sizes else sizes["N1"] + sizes["N2"]
    arrays = {
        node.name: draw(node.name, shape_at(node.type.shape, n), node.type.dtype)
        for node in (*left, *right)
        if (node.op.is_input and not node.op.is_of_shard) or node.op.persistent
    }
    with np.errstate(all="ignore"):
        a = evaluate(left, arrays, arrays, n, train)
        try:
            if ROWS in sizes:
                b = evaluate(right, arrays, arrays, n, train)
            else:
                b = _of_first_shard(right, arrays, a, [(0, sizes["N1"]), (sizes["N1"], n)])
        except (GraphError, ValueError) as error:
            why = str(error).partition("\n")[0]
            return Counterexample(dict(sizes), arrays, "", (), 0.0, why, sides)
    for root, name in roots(left).items():
        found = _first(np.asarray(a[name], float), np.asarray(b[roots(right)[root]], float))
        if found is not None:
            return Counterexample(dict(sizes), arrays, root, *found, sides)
    return None


def _first(a: Array, b: Array) -> tuple[tuple[int, ...], Any, Any] | None:
    """Return the index and the numbers of the first difference that is not one of rounding."""
    if a.shape != b.shape:
        return (), a.shape, b.shape
    same = np.isclose(a, b, TOLERANCE, TOLERANCE, equal_nan=True)
    if same.all():
        return None
    index = tuple(int(i) for i in np.argwhere(~same)[0])
    return index, float(a[index]), float(b[index])


def _of_first_shard(
    graph: Graph, arrays: Mapping[str, Array], batch: Mapping[str, Array], shards: list[Rows]
) -> dict[str, Array]:
    """Run the graph of a shard on two shards side by side, and return the values of the first."""
    given = []
    for start, stop in shards:
        own = {
            name: rows_of(graph[name].type, array, (start, stop))
            for name, array in arrays.items()
            if name in graph
        }
        share = (stop - start) / shards[-1][1]
        for node in graph:
            if node.op.is_of_shard:
                role = node.op.role
                numbers = {"first_row": start, "share": share if role.part == "rows" else 1}
                number = numbers.get(role.kind, share * batch.get(node.name, 1))
                own[node.name] = np.asarray(number, node.type.dtype)
        given.append(own)
    return on_shards(graph, shards, given)[0]
