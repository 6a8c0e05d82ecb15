"""Runs a graph by the reference rules, and compares results by bytes or within a bound."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.interpreter import computed, interpret
from graphc.ir.op import Array

Results = dict[str, Array]
"""The results of a graph by kind and name: `output scores`, `gradient w`, `update w`, `mask d`."""

Change = Callable[[Node, Array], Array]


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
        raise GraphError(
            f"{node.op.name} {node.name!r}: its reference rule fails: "
            f"{type(error).__name__}: {error}",
            loc=node.loc,
            hint="passes are validated by the reference rules; gc.check_op tries one op",
        ) from None


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


def spread(
    graph: Graph, rows: int, arrays: Mapping[str, Array], plain: Results, runs: int = 2
) -> dict[str, float]:
    """Return how far rounding may move each result: the bound for a reassociated one.

    Monte Carlo arithmetic (D. S. Parker, "Monte Carlo arithmetic", UCLA CSD-970002, 1997): the
    graph runs again with every number that is read or rounded moved by one part in 2**52, at
    random.  The largest move of a result, times a factor that grows with the square root
    of the largest dimension, is the most that sums in another order may change it.
    """
    moved: dict[str, float] = dict.fromkeys(plain, 0.0)
    for run in range(runs):
        values = values_of_arrays(graph, rows, arrays, change=_Noise(run))
        for name, value in results_of(graph, values).items():
            if value.dtype.kind == "f":
                moved[name] = max(moved[name], largest(value - plain[name]))
    factor = 16 + 2 * max((max(v.shape, default=1) for v in values.values()), default=1) ** 0.5
    return {name: factor * moved[name] + 4 * EPS * largest(plain[name]) for name in plain}


EPS = float(np.finfo(np.float64).eps)


class _Noise:
    """Moves values that may be rounded by one part in 2**52, up or down."""

    def __init__(self, run: int) -> None:
        self.rng = generator(run, "validation:noise")

    def __call__(self, node: Node, value: Array) -> Array:
        if value.dtype != np.float64 or node.op.is_exact:
            return value
        signs = self.rng.integers(0, 2, value.shape) * 2 - 1
        return np.asarray(value * (1 + EPS * signs))


def largest(value: Array) -> float:
    """Return the largest absolute value of the numbers that are finite."""
    if value.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(value), where=np.isfinite(value), initial=0.0))


# ------------------------------------------------------------------ comparison


@dataclass(frozen=True)
class Mismatch:
    """A result that a pass changed, and where it differs most."""

    what: str
    """The kind and name of the result: `output scores`."""
    rows: int
    """The number of rows of the batch that shows it."""
    fault: str
    """The fault, in a sentence without subject: `is 3.5 at [0, 2], it was 3.0`."""
    allowed: str = ""
    """The property that the pass declares, and the bound that follows."""
    node: str = ""
    """The node at fault, if it is known."""

    def __str__(self) -> str:
        kind, _, name = self.what.partition(" ")
        what = f"{kind} {name!r}" if kind in ("output", "gradient", "update") else self.what
        rows = f"{self.rows} row" + "s" * (self.rows != 1)
        end = f"; {self.allowed}" if self.allowed else ""
        return f"{what} {self.fault}, with {rows}{end}"


def first_mismatch(
    before: Results, after: Results, bounds: Mapping[str, float] | None, rows: int, allowed: str
) -> Mismatch | None:
    """Return the first result that is missing, new, of another type, or not the same.

    Without bounds every byte must be equal, but for the payload of NaN; else no number may
    differ by more than the bound of its result.
    """
    for name, value in before.items():
        if name not in after:
            if name.startswith("mask "):
                continue  # a mask may be fused into its user
            return Mismatch(name, rows, "is gone")
        bound = None if bounds is None else bounds[name]
        found = mismatch(name, value, after[name], bound, rows, allowed)
        if found is not None:
            return found
    new = next((n for n in after if n not in before and not n.startswith("mask ")), None)
    return None if new is None else Mismatch(new, rows, "was not there before")


def mismatch(
    what: str, before: Array, after: Array, bound: float | None, rows: int, allowed: str = ""
) -> Mismatch | None:
    """Return the place where a result differs most; None if it is the same."""
    if (before.shape, before.dtype) != (after.shape, after.dtype):
        now, then = (f"{array.dtype}{list(array.shape)}" for array in (after, before))
        return Mismatch(what, rows, f"is {now}, it was {then}")
    gaps = _gaps(before, after, bound or 0.0)
    if not gaps.size or not gaps.max():
        return None
    index = np.unravel_index(int(gaps.argmax()), gaps.shape)
    at = f" at {[int(i) for i in index]}" if index else ""
    fault = f"is {after[index]!s}{at}, it was {before[index]!s}"
    if bound is not None and before.dtype.kind == "f":
        allowed = f"{allowed}, which allows a difference of {bound:.2g}"
    return Mismatch(what, rows, fault, allowed)


def _gaps(before: Array, after: Array, bound: float) -> Array:
    """Return how far each number is off if that is beyond the bound, and else 0."""
    if before.dtype.kind != "f":
        return np.asarray(before != after, np.float64)
    bits = _BITS[before.dtype.itemsize]
    same = (before.view(bits) == after.view(bits)) | (np.isnan(before) & np.isnan(after))
    with np.errstate(all="ignore"):
        gaps = np.abs(after.astype(np.float64) - before.astype(np.float64))
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    if bound:
        return np.where(same | (gaps <= bound), 0.0, gaps)
    return np.where(same, 0.0, np.maximum(gaps, np.finfo(np.float64).tiny))


_BITS = {4: np.uint32, 8: np.uint64}
