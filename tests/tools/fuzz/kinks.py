"""How far the operands of an op are from where its value or slope jumps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, Op
from graphc.ops.argmax import Argmax, Argmin
from graphc.ops.arithmetic import Ceil, Floor, Fmod, Mod, Round
from graphc.ops.functions import Abs, Sign
from graphc.ops.loops.gradient import NEGLIGIBLE
from graphc.ops.losses.labels import SvmRows, SvmRowsGrad
from graphc.ops.pool import MaxPool, MaxPoolIndex
from graphc.ops.reduce import Max, Min
from graphc.ops.scatter import GatherElements, ScatterElements
from graphc.ops.select import Clip, Comparison, Less, Maximum, Minimum, Relu
from graphc.ops.shape import Cast
from graphc.ops.sorting import TopK
from graphc.ops.source import Constant

Distance = Callable[[Any, Sequence[Array]], Array]


def kink_distance(op: Op, ins: Sequence[Array]) -> Array | None:
    """Numbers whose signs decide what the op does; None for an op that is smooth.

    One is 0 where the operands are at the very edge.
    """
    rule = _rule(type(op))
    if rule is None or ins[0].dtype.kind != "f":
        return None
    return rule(op, ins)


def has_kinks(graph: Graph, node: Node) -> bool:
    """Whether a node is not smooth, for operands of some kind.

    To ask whether a cotangent is negligible is no matter of sides: it, or 0, is the same.
    """
    if _rule(type(node.op)) is None or _of_negligible(graph, node):
        return False
    users = graph.users[node.name]
    asked = bool(users) and all(_of_negligible(graph, graph[user]) for user in users)
    return not (asked and isinstance(node.op, Abs))


def _of_negligible(graph: Graph, node: Node) -> bool:
    """Whether a node compares a size with the least cotangent that a step of a loop hands on."""
    if not isinstance(node.op, Less):
        return False
    size, least = (graph[name].op for name in node.inputs)
    return (
        isinstance(size, Abs)
        and isinstance(least, Constant)
        and bool(np.all(least.array() == NEGLIGIBLE[least.dtype]))
    )


def _first(op: Op, ins: Sequence[Array]) -> Array:
    return ins[0]


def _difference(op: Op, ins: Sequence[Array]) -> Array:
    difference = ins[0] - ins[1]
    return np.where(np.isfinite(difference), difference, 1)  # as of isfinite, which asks for inf


def _bounds(op: Clip, ins: Sequence[Array]) -> Array:
    sides = [ins[0] - side for side in (op.low, op.high) if np.isfinite(side)]
    return np.stack(sides) if sides else np.ones(())


def _lead(op: Max, ins: Sequence[Array]) -> Array:
    """Of the first of the largest over each other one; 0 at a tie."""
    (x,) = ins
    moved = np.moveaxis(x, op.axes, range(-len(op.axes), 0)) if op.axes else x[..., None]
    return _gaps(moved.reshape(*moved.shape[: moved.ndim - max(len(op.axes), 1)], -1))


def _lead_of_index(op: Argmax, ins: Sequence[Array]) -> Array:
    return _gaps(np.moveaxis(ins[0], op.axis, -1))


def _between_neighbours(op: TopK, ins: Sequence[Array]) -> Array:
    """Numbers next to each other in order, as far as it is told."""
    ordered = np.sort(-ins[0] if op.largest else ins[0], axis=op.axis)
    gaps = np.diff(np.moveaxis(ordered, op.axis, -1))[..., : op.k]
    return gaps if gaps.size else np.ones(())


def _lead_of_window(op: MaxPool | MaxPoolIndex, ins: Sequence[Array]) -> Array:
    """As of the largest of all; what stands around an image is far below."""
    return _gaps(np.nan_to_num(np.stack(op.pixels_by_offset(ins[0]), axis=-1), neginf=-1e9))


def _gaps(rows: Array) -> Array:
    gaps = rows.max(axis=-1, keepdims=True) - rows
    np.put_along_axis(gaps, rows.argmax(axis=-1)[..., None], 1, -1)
    return np.asarray(gaps)


def _lead_at_places(op: ScatterElements, ins: Sequence[Array]) -> Array:
    """Of the largest (smallest) of what meets at each place over the others; 0 at a tie."""
    if op.reduction not in ("max", "min"):
        return np.ones(())
    x, indices, updates = ins
    add, take = ScatterElements(op.axis, "add"), GatherElements(op.axis)
    out = op.reference(ins)
    best = take.reference([out, indices])
    winners = add.reference([(x == out) * 1.0, indices, (updates == best) * 1.0])
    alone = np.where((x == out) & (winners == 1), 1, out - x)
    of_updates = (updates == best) & (take.reference([winners, indices]) == 1)
    return np.concatenate([alone.ravel(), np.where(of_updates, 1, best - updates).ravel()])


def _margins(op: Op, ins: Sequence[Array]) -> Array:
    scores, labels = ins[0], ins[1]
    rows = np.arange(len(labels))
    margins = scores - scores[rows, labels][:, None] + 1
    margins[rows, labels] = 1
    return np.asarray(margins)


def _to_next(op: Op, ins: Sequence[Array]) -> Array:
    return np.asarray(ins[0] - np.rint(ins[0]))


def _to_whole(op: Cast, ins: Sequence[Array]) -> Array:
    if op.dtype == "bool":
        return ins[0]
    if np.dtype(op.dtype).kind == "f":
        return np.ones(())
    return np.asarray(ins[0] - np.round(ins[0]))


RULES: dict[type[Op], Distance] = {
    Relu: _first,
    Abs: _first,
    Sign: _first,
    Maximum: _difference,
    Minimum: _difference,
    Comparison: _difference,
    Clip: _bounds,
    Floor: _to_next,
    Ceil: _to_next,
    Round: lambda op, ins: _to_next(op, [ins[0] - ins[0].dtype.type(0.5)]),
    Mod: lambda op, ins: _to_next(op, [ins[0] / ins[1]]),
    Fmod: lambda op, ins: _to_next(op, [ins[0] / ins[1]]),
    Max: _lead,
    Min: lambda op, ins: _lead(op, [-ins[0]]),
    Argmin: lambda op, ins: _lead_of_index(op, [-ins[0]]),
    TopK: _between_neighbours,
    Argmax: _lead_of_index,
    ScatterElements: _lead_at_places,
    MaxPool: _lead_of_window,
    MaxPoolIndex: _lead_of_window,
    SvmRows: _margins,
    SvmRowsGrad: _margins,
    Cast: _to_whole,
}


@cache
def _rule(kind: type[Op]) -> Distance | None:
    return RULES.get(kind) or (RULES[Comparison] if issubclass(kind, Comparison) else None)
