"""Derivatives by central differences in float64, per entry or in a random direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from graphc.base.arguments import checked_number
from graphc.features.precision.bfloat16 import widened as from_bits
from graphc.ir.build import Builder, Value
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.interpreter import Rule, by_reference, interpret
from graphc.ir.op import Array, Op, attributes
from graphc.ir.step_graph import nested
from graphc.ir.tensor_type import TensorType
from graphc.ops.linalg import order_of
from graphc.ops.loops.op import Scan
from graphc.ops.rounding import RoundBfloat16, ToBfloat16
from graphc.ops.shape import Cast
from graphc.ops.source import Constant, Input
from graphc.runtime import reference


def in_float64(graph: Graph) -> Graph:
    """Return the graph with float64 attributes and constants, and types inferred from them.

    Nothing is rounded to bfloat16, neither values nor the factors of products.
    """
    made: dict[str, Node] = {}
    for node in graph:
        op = widened(node.op)
        type = op.infer([made[name].type for name in node.inputs])
        made[node.name] = dataclasses.replace(node, op=op, type=type)
    return graph.with_nodes(made.values())


def widened(op: Op) -> Op:
    """Return the op with every attribute of a narrower float replaced by float64."""
    if isinstance(op, Scan):
        nodes = in_float64(op.step.graph(())).nodes.values()
        return dataclasses.replace(op, step=dataclasses.replace(op.step, nodes=tuple(nodes)))
    if isinstance(op, (ToBfloat16, RoundBfloat16)):
        return Cast("float64")
    if isinstance(op, Constant):
        if op.dtype not in NARROW:
            return op
        return Constant(op.shape, "float64", _wide(op).tobytes())
    changed: dict[str, Any] = {k: "float64" for k, v in attributes(op).items() if v in NARROW}
    if order_of(op):
        changed["order"] = None
    return dataclasses.replace(op, **changed) if changed else op


NARROW = ("float32", "bfloat16")


def _wide(op: Constant) -> Array:
    """Return an array in float64; a scalar as its shortest decimal: 0.999, not 0.99900001."""
    array = from_bits(op.array()) if op.dtype == "bfloat16" else op.array()
    return np.asarray(float(str(array[()]))) if array.ndim == 0 else array.astype("float64")


# ------------------------------------------------------------------ entry by entry

Index = tuple[int, ...]

SMALL = 1e-7
"""The magnitude below which derivatives are compared absolutely."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One derivative by the rules and by differences, and the error between them."""

    index: Index
    ours: float
    numeric: float
    error: float


def checked_steps(call: str, h: Any, tolerance: Any) -> tuple[float, float]:
    """Return the step and the largest error of a check; raise GraphError if one is not above 0."""
    step = checked_number(f"{call}: h", h, above=0)
    return step, checked_number(f"{call}: tolerance", tolerance, above=0)


def relative_error(a: float, b: float, noise: float = 0.0) -> float:
    """Return |a - b| / max(1e-8, |a| + |b|), less `noise`; absolute if both are below 1e-7.

    NaN counts as infinitely far, so that it never passes.
    """
    gap = abs(a - b) - noise
    if not np.isfinite(gap):
        return float("inf")
    gap = max(0.0, gap)
    if max(abs(a), abs(b)) < SMALL:
        return gap
    return gap / max(1e-8, abs(a) + abs(b))


def compare(
    f: Callable[[], float], x: Array, index: Index, ours: float, h: float, tolerance: float
) -> Entry:
    """Compare a derivative of `f` at one entry of `x`, which is changed in place and restored.

    The step is h * max(1, |x|).  `f` may be wrong by about 16 rounding errors of its own size.  An
    entry that disagrees is tried with smaller steps, because a kink (relu, max, a margin) nearer
    than the step is not a mistake.
    """
    first = _difference(f, x, index, ours, h)
    if first.error <= tolerance:
        return first
    for shrink in (1 / 32, 1 / 1024):
        entry = _difference(f, x, index, ours, h * shrink)
        if entry.error <= tolerance:
            return entry
    return first


def _difference(f: Callable[[], float], x: Array, index: Index, ours: float, h: float) -> Entry:
    """Return the derivative at one entry by a symmetric difference with step `h`."""
    kept = x[index]
    step = h * max(1.0, abs(float(kept)))
    x[index] = kept + step
    right, high = f(), float(x[index])
    x[index] = kept - step
    left, low = f(), float(x[index])
    x[index] = kept
    width = high - low
    noise = 16 * np.finfo(np.float64).eps * max(abs(left), abs(right)) / width
    numeric = (right - left) / width
    return Entry(index, ours, numeric, relative_error(ours, numeric, noise))


def indices(shape: tuple[int, ...], name: str, limit: int, seed: int = 0) -> Iterator[Index]:
    """Yield all indices of a small array, or `limit` random ones, the same for the same name."""
    size = int(np.prod(shape))
    flat = np.arange(size)
    if size > limit:
        rng = generator(seed, f"indices:{name}")
        flat = np.sort(rng.choice(size, limit, replace=False))
    for place in flat:
        yield tuple(int(i) for i in np.unravel_index(int(place), shape))


# ------------------------------------------------------------------ the rule of an op


@dataclass(frozen=True)
class WrongEntry:
    """An entry of an operand's gradient that is not confirmed by central differences."""

    role: str
    entry: Entry
    flows: bool
    """False if the rule gives the operand no cotangent."""

    def __str__(self) -> str:
        at = f"at {list(self.entry.index)}" if self.entry.index else "of the scalar"
        says = f"{self.entry.ours:.8g} by the rule" if self.flows else "nothing by the rule"
        return (
            f"the gradient of {self.role} {at} is {says}, {self.entry.numeric:.8g} by differences"
        )


def wrong_entries(
    op: Op,
    ins: Sequence[Array],
    *,
    train: bool = False,
    h: float = 1e-5,
    tolerance: float = 1e-6,
    limit: int = 50,
) -> Iterator[WrongEntry]:
    """Yield the worst entry of each float64 operand whose gradient is wrong.

    The scalar that is differentiated is a fixed random combination of the op's results.
    """
    names = reference.operand_names(op, len(ins))
    wrt = tuple(name for name, x in zip(names, ins, strict=True) if x.dtype == np.float64)
    arrays = [np.array(x) for x in ins]
    shape = np.shape(op.reference_in(arrays, train))
    weight = generator(0, f"cotangent:{op.name}").standard_normal(shape)
    gradients = dict(zip(wrt, reference.backward(op, arrays, weight, wrt, train), strict=True))

    def combination() -> float:
        return float((np.asarray(op.reference_in(arrays, train)) * weight).sum())

    flows = set(names)
    if not op.is_layer:
        rule = apply_rule(op, reference.types_of(arrays))
        flows = {name for name, value in zip(names, rule, strict=True) if value is not None}
    for name, x in zip(names, arrays, strict=True):
        if name in gradients:
            entries = [
                compare(combination, x, index, float(gradients[name][index]), h, tolerance)
                for index in indices(x.shape, name, limit)
            ]
            worst = max(entries, key=lambda entry: entry.error, default=None)
            if worst is not None and worst.error > tolerance:
                yield WrongEntry(name, worst, name in flows)


def first_wrong_rule(
    nodes: Iterable[Node], values: Mapping[str, Array], rows: int
) -> tuple[Node, WrongEntry] | None:
    """Return the first node whose gradient rule is wrong for its operands' values, if any."""
    for node in nodes:
        ins = [values[name] for name in node.inputs]
        if any(array.dtype == np.float64 for array in ins) and not node.op.stops_gradients:
            try:
                wrong = next(wrong_entries(node.op.at(rows), ins, limit=10), None)
            except Exception:  # a rule that cannot be run by itself
                continue
            if wrong is not None:
                return node, wrong
    return None


def apply_rule(op: Op, types: Sequence[TensorType]) -> Sequence[Value | None]:
    """Return the results of the gradient rule for operands of these types."""
    b = Builder.extending(reference.expanded(op, tuple(types)))
    ins = [b.value(name) for name in reference.operand_names(op, len(types))]
    out = b.value("result")
    return op.grad(b, ins, out, b.apply(Input(out.shape, out.dtype), name="cotangent"))


# ------------------------------------------------------------------ in a random direction

STEP, TOLERANCE = 1e-6, 1e-6
SHRINKS = 1.0, 1 / 32, 32.0, 1 / 1024
"""The factors of the step, tried until derivative and difference agree: a kink may be near."""


def kinks_of(op: Op, ins: Sequence[Array]) -> Array | None:
    """Return the signed distance of each operand to a kink of an op; None if it has none."""
    return op.kinks(ins) if ins and ins[0].dtype.kind == "f" else None


def is_on_kink(op: Op, ins: Sequence[Array]) -> bool:
    """Return whether an operand is at a kink, such as a relu at 0, where the derivative jumps."""
    gaps = kinks_of(op, ins)
    return gaps is not None and bool((gaps == 0).any())


class Function:
    """The weighted sum of some nodes as a function of one node's value.

    Only nodes that depend on it are recomputed; stop_gradient keeps its value, in steps of loops as
    well, since a derivative treats it as constant.
    """

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Array],
        rows: int,
        target: str,
        weights: Sequence[tuple[str, Array | float]],
    ) -> None:
        self.values, self.target, self.weights = values, target, weights
        self.rule = by_reference(rows, train=True)
        needed = graph.upstream(name for name, _ in weights)
        changed = {target}
        self.nodes = []
        for node in graph:
            stops = node.name == target or node.op.stops_gradients
            if node.name in needed and not stops and not changed.isdisjoint(node.inputs):
                self.nodes.append(node)
                changed.add(node.name)
        self.known = {name: value for name, value in values.items() if name not in changed}
        self.kept: list[Array] = []
        """The values of stop_gradient in steps, in the order in which they are computed."""
        if any(node.op.stops_gradients for node in nested(self.nodes)):
            self._run(values[target], partial(self._in_loops, None))

    @property
    def is_on_kink(self) -> bool:
        """True if a recomputed node is at a kink, where differences prove nothing."""
        return any(
            is_on_kink(node.op, [self.values[name] for name in node.inputs]) for node in self.nodes
        )

    def __call__(self, x: Array) -> float:
        """Return the sum if the node has the value x."""
        values = self._run(x, partial(self._in_loops, iter(self.kept)) if self.kept else self.rule)
        return float(sum((values[name] * weight).sum() for name, weight in self.weights))

    def _run(self, x: Array, rule: Rule) -> dict[str, Array]:
        with np.errstate(all="ignore"):
            return interpret(self.nodes, rule, {**self.known, self.target: x})

    def _in_loops(self, kept: Iterator[Array] | None, node: Node, ins: Sequence[Array]) -> Array:
        """Compute a node; a stop_gradient in a step is the next of those kept, or is kept."""
        if isinstance(node.op, Scan):
            return node.op.computed_by(partial(self._in_loops, kept), ins)
        if kept is not None and node.op.stops_gradients:
            return next(kept)
        value = self.rule(node, ins)
        if node.op.stops_gradients:
            self.kept.append(value)
        return value


def disagreement(
    f: Callable[[Array], float], x: Array, gradient: Array, name: str
) -> tuple[str, str] | None:
    """Return a gradient's error and the allowed one, as texts; None if differences agree.

    Compare (f(x + h v) - f(x - h v)) / 2h with the product of v and the gradient, for a random v
    of signs, of norm 1, the same for the same name.  A wrong entry shows with probability 1, since
    signs do not hide it, unless it is a millionth of the gradient's norm; 64 roundings of f are
    allowed, and where terms of f cancel, 16 times what a rounding of x moves it by.  If f is not
    finite, as a mean over no labels, it has no derivative: return None.
    """
    if not x.size:
        return None
    rng = generator(0, f"validation:{name}")
    v = (rng.integers(0, 2, x.shape) * 2 - 1) / np.sqrt(x.size)
    ours = float((gradient * v).sum())
    share = float(np.linalg.norm(gradient)) / np.sqrt(x.size)
    first: tuple[str, str] | None = None
    beyond = []
    for shrink in SHRINKS:
        h = STEP * shrink
        high, low = f(x + h * v), f(x - h * v)
        numeric = (high - low) / (2 * h)
        noise = 64 * np.finfo(np.float64).eps * max(abs(high), abs(low), 1e-3) / h
        bound = TOLERANCE * (share + abs(numeric)) + noise
        if abs(numeric - ours) <= bound:
            return None
        beyond.append(h * (abs(numeric - ours) - bound))
        first = first or (
            f"is {ours:.9g} along a random direction, differences give {numeric:.9g}",
            f"a difference of {bound:.2g} is allowed",
        )
    plain = f(x)
    if not np.isfinite(plain):
        return None
    signs = (rng.integers(0, 2, x.shape) * 2 - 1 for _ in range(4))
    moved = max(abs(f(x + np.finfo(np.float64).eps * x * sign) - plain) for sign in signs)
    return None if any(gap <= 16 * moved for gap in beyond) else first
