"""The reference rules of some nodes in float64, and how far rounding may move what they compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.check.central_differences import in_float64, kinks_of
from graphc.check.validation.run import (
    ROUNDING,
    Noise,
    float64,
    largest,
    value_of,
    values_of_arrays,
)
from graphc.features.precision.bfloat16 import LEAST, halfway
from graphc.ir.graph import Graph, Node
from graphc.ir.interpreter import computed, interpret
from graphc.ir.narrow import converted
from graphc.ir.op import Array, attributes
from graphc.ops.reduce import Mean
from graphc.ops.rounding import RoundBfloat16, ToBfloat16
from graphc.ops.sums import Sum

TINY = 1e-37
"""Near the smallest normal float32: native code takes smaller numbers as zero."""
SHARE = 1 / 8
"""The part of the largest move of an array by which each of its elements may differ, at least."""
NEAR = 64
"""The roundings within which a number counts as on a kink, where an op may choose either side."""


class Local:
    """The reference rules of the nodes between saved values and targets, in float64.

    What follows from numbers as they are rounded, such as whether x is max(x), is decided in the
    nodes' own dtypes; if no node rounds, so is every bit.
    """

    def __init__(
        self,
        graph: Graph,
        wide: Mapping[str, Node],
        saved: Mapping[str, Array],
        n: int,
        targets: Sequence[str],
    ) -> None:
        self.graph, self.n = graph, n
        self.wide = _needed(wide, saved, targets)
        self.own = [graph[node.name] for node in self.wide]
        read = (operand for node in self.own for operand in node.inputs)
        self.known = {name: saved[name] for name in (*read, *targets) if name in saved}
        decided = {node.name for node in self.own if decides(graph, node)}
        self.moves = all(n.op.is_exact or n.op.only_moves for n in self.own)
        """True if no node rounds, so that every bit is known."""
        self.plain = self._in_own_dtypes(self.known) if decided or self.moves else {}
        """The values in the nodes' own dtypes, if they are needed."""
        self.decided = {name: self.plain[name] for name in decided}
        """The bools and whole numbers that depend on floats."""
        self.values = self._in_float64()
        self.exact = {name: self.values[name] for name in targets}
        self._moved: dict[str, Array] = {}
        self._runs = 0

    def bound(self, name: str, runs: int) -> Array | float:
        """Return how far rounding may move each element of a value, by Monte Carlo arithmetic.

        Without runs it is the least that the bound can be.
        """
        exact = self.exact[name]
        if self.moves or exact.dtype.kind != "f":
            return 0.0
        while self._runs < runs:
            values = self._moved_values(Noise(self._runs, self._eps))
            for target, value in self.exact.items():
                if value.dtype.kind == "f":
                    own = float64(values[target])
                    with np.errstate(all="ignore"):
                        far = np.where(np.isfinite(value), np.abs(own - value), 0.0)
                    far[np.isnan(far)] = np.inf
                    self._moved[target] = np.maximum(far, self._moved.get(target, 0))
            self._runs += 1
        moved = self._moved.get(name, np.zeros(()))
        longest = max(max(v.shape, default=1) for v in self.values.values())
        widest = np.maximum(moved, SHARE * largest(moved))
        node = self.graph[name]
        known = (largest(self.values[x]) for x in node.inputs if x in self.values)
        sizes = list(filter(None, known))
        inner = min(sizes) if len(sizes) > 1 else 0.0  # what cancels in the op, such as p - 1
        least = 4 * self._eps(node) * np.maximum(np.abs(exact), inner) + TINY
        if node.type.dtype == "bfloat16" or isinstance(node.op, RoundBfloat16):
            least = ROUNDING * np.abs(exact) + LEAST
        return np.asarray((16 + 2 * longest**0.5) * widest + least)

    def near_kink(self) -> bool:
        """Return whether an operand is so near to a kink that rounding may decide."""
        for node in self.own:
            values = self.plain if node.name in self.decided else self.values
            ins = [values[name] for name in node.inputs]
            gaps = kinks_of(node.op, ins)
            if self.decided and isinstance(node.op, RoundBfloat16):
                gaps = ins[0] - halfway(ins[0])
            if gaps is not None:
                sizes = np.abs(gaps)
                scale = max(
                    self._eps(self.graph[name]) * float(np.max(np.abs(x), initial=0.0))
                    for name, x in zip(node.inputs, ins, strict=True)
                    if x.dtype.kind == "f"
                )
                if ((sizes > 0) & (sizes < NEAR * scale)).any():
                    return True
        return False

    def _eps(self, node: Node) -> float:
        return float(np.finfo(node.type.dtype).eps) if node.type.is_float else 0.0

    def _in_float64(self) -> dict[str, Array]:
        """Return the values in float64."""
        if self.moves:
            return {name: float64(array) for name, array in self.plain.items()}
        known = {name: float64(array) for name, array in (self.known | self.decided).items()}
        with np.errstate(all="ignore"):
            return interpret(self.wide, self._wide_value, known)

    def _wide_value(self, node: Node, ins: list[Array]) -> Array:
        """Return a node's value in float64; by its own rule if it knows no other."""
        own = self.graph[node.name]
        node = own if node.op.is_random else node  # whose numbers depend on its dtype
        try:
            value = computed(node, ins, self.n, train=True)
        except Exception:  # of a user's op, or of bits of bfloat16
            dtypes = [self.graph[name].type.dtype for name in own.inputs]
            given = [converted(x, dtype) for x, dtype in zip(ins, dtypes, strict=True)]
            value = computed(own, given, self.n, train=True)
        exact = node.op.is_exact and own.type.is_float and own.type != node.type
        value = _own_numbers(own, value, ins) if exact else value
        return float64(np.asarray(value, order="C"))

    def _moved_values(self, noise: Noise) -> dict[str, Array]:
        """Return the values in the nodes' own dtypes, with all numbers moved by a rounding."""
        known = {name: noise.moved(self.graph[name], array) for name, array in self.known.items()}
        return self._in_own_dtypes(known | self.decided, noise)

    def _in_own_dtypes(
        self, known: Mapping[str, Array], noise: Noise | None = None
    ) -> dict[str, Array]:
        """Return the values in the nodes' own dtypes, moved by noise if there is some."""

        def rule(node: Node, ins: list[Array]) -> Array:
            bounded = noise is not None and isinstance(node.op, RoundBfloat16)
            if bounded or isinstance(node.op, ToBfloat16):
                return ins[0]  # as in float64: the bound has its rounding
            value = np.asarray(value_of(node, ins, self.n, True), order="C")
            if noise is None:
                return value
            size, moved = self._terms(node, ins), noise(node, value)
            return moved if size is None else noise.added(moved, size)

        with np.errstate(all="ignore"):
            return interpret(self.own, rule, known)

    def _terms(self, node: Node, ins: Sequence[Array]) -> Array | None:
        """Return a rounding of the sum of the magnitudes of a sum's terms; None for other ops.

        The code adds terms in an order of its own, in which parts of a sum that cancel may be as
        large as that.
        """
        types = [self.graph[name].type for name in node.inputs]
        sums = isinstance(node.op, (Sum, Mean)) or node.op.product(types) is not None
        if not sums or not node.type.is_float:
            return None
        size = self._eps(node) * value_of(node, [np.abs(x) for x in ins], self.n, True)
        if not isinstance(node.op, (Sum, Mean)):
            return size
        # The roundings of a sum of equal terms all have one sign, so n of them add up to n, where
        # those of random signs add up to the root of n, which `bound` allows.
        return np.asarray(max(ins[0].size / max(size.size, 1), 1.0) ** 0.5 * size)


def wide_nodes(graph: Graph) -> Mapping[str, Node]:
    """Return a graph's nodes in float64, in order, or as they are if a user's op refuses that."""
    try:
        return in_float64(graph).nodes
    except ValueError:
        return graph.nodes


def decides(graph: Graph, node: Node) -> bool:
    """Return whether a node makes bools or whole numbers of floats, which rounding may change."""
    whole = not node.type.is_float and node.type.dtype != "bfloat16"
    return whole and any(graph[name].type.is_float for name in node.inputs)


def undecided(
    graph: Graph, rows: int, arrays: Mapping[str, Array], values: Mapping[str, Array], eps: float
) -> set[str]:
    """Return the bools and whole numbers that a rounding of size `eps` in each float changes."""
    names = [node.name for node in graph if decides(graph, node)]
    if not names:
        return set()
    noise = Noise(0, lambda node: eps)
    moved = values_of_arrays(graph, rows, arrays, train=False, change=noise)
    return {name for name in names if (moved[name] != values[name]).any()}


def _needed(
    wide: Mapping[str, Node], saved: Mapping[str, Array], targets: Sequence[str]
) -> list[Node]:
    """Return the nodes between saved values and the targets; operands come first."""
    found = {name for name in targets if name not in saved}
    for name in reversed(list(wide) if found else []):  # operands precede their users
        if name in found:
            found.update(x for x in wide[name].inputs if x not in saved)
    return [node for name, node in wide.items() if name in found]


def _own_numbers(node: Node, value: Array, ins: Sequence[Array]) -> Array:
    """Return an exact op's value in float64, its attributes, such as a limit, in its own dtype."""
    if not any(isinstance(number, float) for number in attributes(node.op).values()):
        return value
    moved = np.isin(value, np.concatenate([x.reshape(-1) for x in ins]))
    return np.where(moved, value, value.astype(node.type.dtype))
