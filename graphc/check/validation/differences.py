"""Central differences of a graph's scalar in a random direction, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from graphc.check.validation.kinks import is_on_kink
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ops.shape import StopGradient
from graphc.runtime.reference import computed

STEP, TOLERANCE = 1e-6, 1e-6
SHRINKS = 1.0, 1 / 32, 32.0, 1 / 1024
"""The factors of the step that are tried while derivative and difference disagree: a kink may be
nearer than the step."""


class Function:
    """The weighted sum of some nodes as a function of one node's value.

    Only nodes that depend on it are computed again; stop_gradient yields what it did before, as a
    derivative treats it as constant.
    """

    def __init__(
        self,
        graph: Graph,
        values: Mapping[str, Array],
        rows: int,
        target: str,
        weights: Sequence[tuple[str, Array | float]],
    ) -> None:
        self.values, self.rows, self.target, self.weights = values, rows, target, weights
        needed = graph.upstream(name for name, _ in weights)
        changed = {target}
        self.nodes = []
        for node in graph:
            stops = node.name == target or isinstance(node.op, StopGradient)
            if node.name in needed and not stops and not changed.isdisjoint(node.inputs):
                self.nodes.append(node)
                changed.add(node.name)

    @property
    def is_on_kink(self) -> bool:
        """Whether a value is where a derivative jumps, so that differences say nothing."""
        return any(
            is_on_kink(node.op, [self.values[name] for name in node.inputs]) for node in self.nodes
        )

    def __call__(self, x: Array) -> float:
        """Return the sum if the node has the value x."""
        values = {**self.values, self.target: x}
        with np.errstate(all="ignore"):
            for node in self.nodes:
                ins = [values[name] for name in node.inputs]
                values[node.name] = computed(node, ins, self.rows, True)
        return float(sum((values[name] * weight).sum() for name, weight in self.weights))


def disagreement(
    f: Callable[[Array], float], x: Array, gradient: Array, rng: np.random.Generator
) -> tuple[str, str] | None:
    """Return a gradient's error and the allowed one, as texts; None if differences agree.

    (f(x + h v) - f(x - h v)) / 2h for a random v of signs, of norm 1, against the product of v
    and the gradient.  A wrong entry shows with probability 1, since signs do not hide it, unless
    it is a millionth of the gradient's norm; 64 roundings of f are not held against it.  Where f is
    no finite number, as a mean over no labels, it has no derivative.
    """
    if not x.size:
        return None
    v = (rng.integers(0, 2, x.shape) * 2 - 1) / np.sqrt(x.size)
    ours = float((gradient * v).sum())
    share = float(np.linalg.norm(gradient)) / np.sqrt(x.size)
    first: tuple[str, str] | None = None
    for shrink in SHRINKS:
        h = STEP * shrink
        high, low = f(x + h * v), f(x - h * v)
        numeric = (high - low) / (2 * h)
        noise = 64 * np.finfo(np.float64).eps * max(abs(high), abs(low), 1e-3) / h
        bound = TOLERANCE * (share + abs(numeric)) + noise
        if abs(numeric - ours) <= bound:
            return None
        first = first or (
            f"is {ours:.9g} along a random direction, differences give {numeric:.9g}",
            f"a difference of {bound:.2g} is allowed",
        )
    return first if np.isfinite(f(x)) else None
