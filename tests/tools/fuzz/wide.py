"""What a graph means in more digits than it will be computed in, and how rounding moves it.

A graph is run by its ops' reference rules, with every float in `numpy.longdouble`.  With noise,
it is run in its own dtypes instead, and each op that rounds reads each operand, and gives its
result, moved by a rounding more; ops that reduce or multiply matrices by as many as their sums
are long, under a root.  A closed form whose terms may cancel within is moved term by term.  This
is Monte Carlo arithmetic: D. Stott Parker, "Monte Carlo arithmetic: exploiting randomness in
floating-point arithmetic", UCLA CSD-970002, 1997.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Literal, NamedTuple

import numpy as np

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Layer, Op
from graphc.ir.tensor_type import FLOATS, shape_at
from graphc.ops.argmax import Argmax, Argmin
from graphc.ops.arithmetic import Ceil, Floor, Round, WholeQuotient
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import Binary, Neg, Unary
from graphc.ops.functions import Abs, Sign
from graphc.ops.gather import Gather
from graphc.ops.index import OneHot, Pick
from graphc.ops.index_tuples import FlatIndex
from graphc.ops.logic import Logic, Not
from graphc.ops.loops.op import Scan
from graphc.ops.norm import BatchNormDx, columns, feature_axes
from graphc.ops.optim import Cleared, UpdateOp
from graphc.ops.pad import Pad
from graphc.ops.pool import MaxPool, MaxPoolIndex, MaxPoolPick
from graphc.ops.random_numbers import RandomNormal, RandomUniform
from graphc.ops.reduce import Max, Min
from graphc.ops.scatter import GatherElements, LastWrite
from graphc.ops.select import Clip, Comparison, Maximum, Minimum, Relu, ReluGrad, Where
from graphc.ops.shape import Cast, Reshape, StopGradient, Transpose
from graphc.ops.slicing import Concat, Slice, SliceGrad
from graphc.ops.sorting import TopK
from graphc.ops.source import Constant, Input, Parameter, State
from graphc.ops.sums import BroadcastTo
from tests.tools.fuzz.kinks import has_kinks, kink_distance
from tests.tools.fuzz.looped import Steps
from tests.tools.fuzz.rounded import Precision, half_gap, loop_of, rounds, to_bfloat16

WIDE = np.longdouble
FACTOR = 16.0
SHARE = 1 / 8
EXACT = (
    *(Neg, Abs, Sign, Relu, ReluGrad, Maximum, Minimum, Clip, Where, Comparison, Max, Argmax),
    *(OneHot, Pick, Reshape, Transpose, Concat, Slice, SliceGrad, StopGradient, BroadcastTo),
    *(Min, Argmin, TopK),
    *(Floor, Ceil, Round, Logic, Not, WholeQuotient),
    *(Gather, GatherElements, LastWrite, FlatIndex),
    *(DropoutMask, RandomNormal, RandomUniform, Cleared, Pad, MaxPool, MaxPoolIndex, MaxPoolPick),
)
"""Ops that do not round."""
ELEMENTWISE = (Unary, Binary, UpdateOp)
Source = Literal["feed", "state", "constant"]
SOURCES: dict[type[Op], Source] = {
    Input: "feed",
    Parameter: "state",
    State: "state",
    Constant: "constant",
}
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in FLOATS}

POOL = 1 << 15
_RNG = np.random.default_rng(0)
SIGNS = _RNG.uniform(0.5, 1, POOL) * _RNG.choice((-1, 1), POOL)


class Noise:
    """Roundings, drawn at random."""

    def __init__(self, seed: int, factors: Iterable[Array] = ()) -> None:
        self.r = random.Random(seed)
        self.factors = iter(factors)
        """What the exact run rounded to bfloat16, in order."""

    def on(self, array: Array, scale: float) -> Array:
        """The array with each element moved by up to that share of itself."""
        size = array.size
        if size > POOL:
            factors = np.resize(_factors(scale), size)
        else:
            start = int(self.r.random() * (POOL - size + 1))
            factors = _factors(scale)[start : start + size]
        moved = array * factors.reshape(array.shape)
        return np.asarray(moved, array.dtype)

    def rounded(self, x: Array) -> Array:
        """The next factor in bfloat16: either neighbour where rounding may decide which.

        It may where the exact one is as near to the middle of two as errors are allowed to be.
        """
        wide = x.astype(np.float64)
        exact = next(self.factors, x)
        limit = limits(np.abs(wide - exact))
        gap = half_gap(wide)
        way = np.resize(self.r.choices((-1, 1), k=min(x.size, POOL)) or 1, x.shape)
        moved = to_bfloat16(wide + way * np.minimum(limit, gap))
        return np.asarray(moved, x.dtype)


def limits(spread: Array) -> Array:
    """FACTOR times the spread, and no less than that of an eighth of the largest."""
    return np.asarray(FACTOR * np.maximum(spread, SHARE * spread.max(initial=0)))


@lru_cache(maxsize=64)
def _factors(scale: float) -> Array:
    return 1 + scale * SIGNS


class Step(NamedTuple):
    """A node, with what is known of it before it runs."""

    name: str
    inputs: tuple[str, ...]
    op: Op
    source: Source | None
    """Where its value is from, if it is not computed."""
    kinks: bool
    """Whether it has any."""
    exact: bool
    scales: tuple[float, ...]
    """Of the roundings of each operand, 0 for what is no float; and last, of the result."""
    rounds: bool
    """Whether it multiplies bfloat16."""


@dataclass
class Run:
    """The values of a graph, and the distances from kinks, by node."""

    values: dict[str, Array] = field(default_factory=dict)
    kinks: dict[str, Array] = field(default_factory=dict)
    factors: list[Array] = field(default_factory=list)
    """What was rounded to bfloat16, before that, in order."""


class WideGraph:
    """A graph without layers, to be run for batches of `n` rows.

    `path` is the start of its layers' names in `precision`.
    """

    def __init__(self, graph: Graph, n: int, precision: Precision = (), path: str = "") -> None:
        self.graph, self.n, self.precision, self.path = graph, n, precision, path
        self.steps = [self._step(node) for node in graph]
        loops = {(self._layer(x), x.op.step) for x in graph if isinstance(x.op, Scan)}
        self.inside = {
            (layer, step): WideGraph(step.graph(()), n, precision, path or f"{loop_of(layer)}.")
            for layer, step in loops
        }
        """The graphs of loops by their layers and steps."""

    def _step(self, node: Node) -> Step:
        op = node.op.at(self.n)
        assert not isinstance(op, Layer)
        exact = _is_exact(type(op)) or (isinstance(op, Cast) and not self._narrows(node))
        scales = tuple([self._scale(name) for name in (*node.inputs, node.name)])
        source = _source(type(op))
        kinks = has_kinks(self.graph, node)
        rounded = rounds(node, self._layer(node), self.precision)
        return Step(node.name, node.inputs, op, source, kinks, exact, scales, rounded)

    def _layer(self, node: Node) -> str:
        return self.path + (node.origin or node.name)

    def _narrows(self, node: Node) -> bool:
        return node.type.is_float and self.graph[node.inputs[0]].type != node.type

    def _scale(self, name: str) -> float:
        return EPS.get(self.graph[name].type.dtype, 0.0)

    def run(
        self,
        feeds: Mapping[str, Array],
        state: Mapping[str, Array],
        noise: Noise | None = None,
        frozen: Mapping[str, Array] | None = None,
    ) -> Run:
        """The values; those of `frozen` are not computed but given."""
        run = Run()
        values = run.values
        loops: dict[tuple[Op, tuple[str, ...]], Steps] = {}
        with np.errstate(all="ignore"):
            for step in self.steps:
                name = step.name
                if frozen is not None and name in frozen:
                    value = frozen[name]
                elif step.source is None:
                    ins = [values[operand] for operand in step.inputs]
                    distance = kink_distance(step.op, ins) if step.kinks else None
                    if distance is not None:
                        run.kinks[name] = distance
                    if isinstance(step.op, Scan):
                        value = self._looped(step, step.op, ins, noise, loops, run)
                    else:
                        value = _computed(step, _factors_of(step, ins, noise, run), noise)
                elif step.source == "feed":
                    value = feeds[name]
                elif step.source == "state":
                    value = state[name]
                else:
                    assert isinstance(step.op, Constant)
                    value = step.op.array()
                values[name] = _widened(value) if noise is None else np.asarray(value)
        return run

    def _looped(
        self,
        step: Step,
        op: Scan,
        ins: Sequence[Array],
        noise: Noise | None,
        known: dict[tuple[Op, tuple[str, ...]], Steps],
        run: Run,
    ) -> Array:
        """A result of a loop, whose steps run once for all results."""
        key = op.joint, step.inputs
        if key not in known:
            inner = self.inside[self._layer(self.graph[step.name]), op.step]
            known[key] = Steps(op, ins, lambda given: inner.run(given, {}, noise), step.name)
            run.kinks |= known[key].kinks
            run.factors += known[key].factors
        type = op.step.types[op.result]
        wide = noise is None and type.is_float
        empty = np.zeros(shape_at(type.shape, self.n), WIDE if wide else type.dtype)
        return known[key].result(op, empty, noise, step.scales[-1])


@cache
def _is_exact(kind: type[Op]) -> bool:
    return issubclass(kind, EXACT)


@cache
def _source(kind: type[Op]) -> Source | None:
    return next((name for source, name in SOURCES.items() if issubclass(kind, source)), None)


def _factors_of(step: Step, ins: Sequence[Array], noise: Noise | None, run: Run) -> Sequence[Array]:
    """The operands, of which the first two are rounded if the product is of bfloat16."""
    if not step.rounds:
        return ins
    if noise is not None:
        return [*map(noise.rounded, ins[:2]), *ins[2:]]
    run.factors += ins[:2]
    return [*map(to_bfloat16, ins[:2]), *ins[2:]]


def _computed(step: Step, ins: Sequence[Array], noise: Noise | None) -> Array:
    op, scales = step.op, step.scales
    if noise is None:
        return ins[0] if isinstance(op, Cast) and scales[-1] and scales[0] else op.reference(ins)
    if step.exact:
        return op.reference(ins)
    longest = 1.0 if isinstance(op, ELEMENTWISE) else _root_of_longest(ins)
    pairs = zip(ins, scales, strict=False)
    ins = [noise.on(x, longest * scale) if scale else x for x, scale in pairs]
    if isinstance(op, BatchNormDx):
        return _batchnorm_dx(op, ins, partial(noise.on, scale=longest * scales[-1]))
    value = np.asarray(op.reference(ins))
    return noise.on(value, scales[-1]) if scales[-1] else value


def _batchnorm_dx(op: BatchNormDx, ins: Sequence[Array], on: Callable[[Array], Array]) -> Array:
    """Of few rows most cancels: that of two is the sum of what is left by eps alone."""
    x, gamma, dout = ins
    axes = feature_axes(x.ndim)
    centred = on(x - on(x.mean(axis=axes, keepdims=True)))
    std = on(np.sqrt(on((centred**2).mean(axis=axes, keepdims=True)) + x.dtype.type(op.eps)))
    xhat = on(centred / std)
    share = on((dout * xhat).mean(axis=axes, keepdims=True))
    slope = on(on(dout - on(dout.mean(axis=axes, keepdims=True))) - on(xhat * share))
    return on(on(columns(gamma, x.ndim) / std) * slope)


def _root_of_longest(ins: Sequence[Array]) -> float:
    return float(max((max(x.shape, default=1) for x in ins), default=1)) ** 0.5


def _widened(value: Array) -> Array:
    value = np.asarray(value)
    return value.astype(WIDE) if value.dtype.kind == "f" and value.dtype != WIDE else value
