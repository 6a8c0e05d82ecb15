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
from graphc.check.prove.symbols import ROWS
from graphc.check.prove.terms import Term, array_of
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import computed
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, TensorType, shape_at
from graphc.runtime.reference import evaluate

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
    graphs: tuple[Graph, Graph]
    """The two sides, with these sizes."""

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} = {size}" for name, size in self.sizes.items())
        place = f"{self.root}{list(self.index)}" if self.index else self.root
        if isinstance(self.right, str):
            return f"with {sizes}, the right side cannot be run: {self.right}"
        if isinstance(self.left, tuple):
            return f"with {sizes}, {place} has the shape {self.right}, not {self.left}"
        return f"with {sizes}, {place} is {self.right:.6g}, not {self.left:.6g}"


def roots(graph: Graph) -> dict[str, str]:
    """Return the node of each result that the two sides must agree in."""
    groups = {"output": graph.outputs, "gradient": graph.gradients, "update": graph.updates}
    return {f"{kind} {name}": at for kind, group in groups.items() for name, at in group.items()}


def trials(
    rule: Rule, sizes: Mapping[str, int], model: Term | None
) -> Iterator[tuple[dict[str, int], Draw]]:
    """Yield sizes and numbers to try: of the model, then random ones, then all sizes equal."""
    batch = ("N1", "N2") if rule.shards else (ROWS,)
    if model is not None:
        found = {n: model.eval(z3.Int(n), True).as_long() for n in (*rule.sizes, *batch)}
        if max(found.values()) <= LARGEST:
            yield found, _of_model(model)
            yield found, _random(0)
    own = {**sizes, **dict(zip(batch, (2, 3), strict=False))}
    if max(own.values()) <= 4 * LARGEST:
        yield from ((own, _random(seed)) for seed in range(4))
    for size, *rest in product((2, 3), *[(0, 1, 2)] * len(rule.from_zero)):
        low = dict(zip(rule.from_zero, rest, strict=True))
        yield {**dict.fromkeys(own, size), **low, ROWS: 2}, _random(1)


def _of_model(model: Term) -> Draw:
    def draw(name: str, shape: tuple[int, ...], dtype: str) -> Array:
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


def differing(
    left: Graph, right: Graph, sizes: Mapping[str, int], draw: Draw, train: bool
) -> Counterexample | None:
    """Run both sides on the same arrays, and return the first difference, or None."""
    n = sizes["N1"] + sizes["N2"] if "N1" in sizes else sizes[ROWS]
    arrays = {
        node.name: draw(node.name, shape_at(node.type.shape, n), node.type.dtype)
        for node in (*left, *right)
        if (node.op.is_input and not node.op.is_of_shard) or node.op.persistent
    }
    with np.errstate(all="ignore"):
        a = evaluate(left, arrays, arrays, n, train)
        try:
            shards = (sizes["N1"], sizes["N2"]) if "N1" in sizes else None
            b = (
                evaluate(right, arrays, arrays, n)
                if shards is None
                else _on_shards(right, arrays, a, shards)
            )
        except (GraphError, ValueError) as error:
            why = str(error).partition("\n")[0]
            return Counterexample(dict(sizes), arrays, "", (), 0.0, why, (left, right))
    for root, name in roots(left).items():
        found = _first(np.asarray(a[name], float), np.asarray(b[roots(right)[root]], float))
        if found is not None:
            return Counterexample(dict(sizes), arrays, root, *found, (left, right))
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


def _on_shards(
    graph: Graph, arrays: Mapping[str, Array], batch: Mapping[str, Array], rows: tuple[int, int]
) -> dict[str, Array]:
    """Run the graph of a shard on two shards side by side, and return the values of the first."""
    values: list[dict[str, Array]] = [{}, {}]
    for node in graph:
        if node.name in arrays:
            parts = _parts(arrays[node.name], node.type, rows)
        elif node.op.is_of_shard:
            parts = _numbers(node, batch, rows)
        elif node.op.name in ("receive", "total"):
            total = values[0][node.inputs[0]] + values[1][node.inputs[0]]
            parts = [total, total]
        else:
            parts = [
                computed(node, [own[name] for name in node.inputs], n, train=True)
                for own, n in zip(values, rows, strict=True)
            ]
        for own, part in zip(values, parts, strict=True):
            own[node.name] = part
    return values[0]


def _parts(array: Array, type: TensorType, rows: tuple[int, int]) -> list[Array]:
    """Return the rows of each shard; an array without rows is the same on all."""
    first = type.shape[0] if type.shape else 1
    if not isinstance(first, Batch):
        return [array, array]
    return np.split(array, [first.factor * rows[0]])


def _numbers(node: Node, batch: Mapping[str, Array], rows: tuple[int, int]) -> list[Any]:
    """Return the number that each shard is fed."""
    role, shares = node.op.role, [n / sum(rows) for n in rows]
    if role.kind == "first_row":
        found: list[Any] = [0, rows[0]]
    elif role.kind == "divisor":
        found = [batch[node.name] * share for share in shares]
    else:
        found = shares if role.part == "rows" else [1, 1]
    return [np.asarray(number, node.type.dtype) for number in found]
