"""The distance of a run's numbers from places where a derivative jumps or is not finite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from graphc.check.validation.run import values_of_arrays
from graphc.ir.graph import Graph
from graphc.ir.op import Array, Op
from graphc.ops.division import Fmod, Mod
from graphc.ops.elementwise import Div, Power
from graphc.ops.functions import Abs, Log, Sign, Sqrt
from graphc.ops.index import Argmax, Argmin
from graphc.ops.losses.labelled_rows import SvmRows
from graphc.ops.order import TopK
from graphc.ops.pool import MaxPool, MaxPoolIndex
from graphc.ops.reduce import Max, Min
from graphc.ops.rounding import Ceil, Floor, Round
from graphc.ops.scatter import GatherElements, ScatterElements
from graphc.ops.select import Clip, Comparison, Maximum, Minimum, Relu


def nearest_kink(graph: Graph, rows: int, arrays: Mapping[str, Array]) -> float:
    """Return the smallest distance of any number to a kink of its op; -1 if one is not finite.

    A distance of exactly 0 is left out: numbers drawn at random meet a kink only if the net
    itself puts them there, as relu does before abs.
    """
    values = values_of_arrays(graph, rows, arrays)
    nearest = np.inf
    for node in graph:
        value = values[node.name]
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            return -1.0
        gaps = _gaps(node.op, [values[name] for name in node.inputs])
        if gaps is not None:
            sizes = np.abs(gaps)
            nearest = min(nearest, float(np.min(sizes, where=sizes > 0, initial=np.inf)))
    return nearest


def is_on_kink(op: Op, ins: Sequence[Array]) -> bool:
    """Return whether a number is where the op's derivative jumps, or two share the largest."""
    gaps = _gaps(op, ins)
    if gaps is None or isinstance(op, ScatterElements):
        return False
    compared = _compared(op, ins[0])
    if compared is None:
        return bool((gaps == 0).any())
    return bool(((_to_largest(*compared) == 0).sum(axis=compared[1]) > 1).any())


def _gaps(op: Op, ins: Sequence[Array]) -> Array | None:
    """Return the signed distances to the op's kinks; None for an op without any."""
    if not ins or ins[0].dtype.kind != "f":
        return None
    if isinstance(op, (Relu, Abs, Sign, Sqrt, Log)) or (isinstance(op, Power) and _kinked(op)):
        return ins[0]
    if isinstance(op, Div):
        return ins[1]
    if isinstance(op, (Floor, Ceil, Round, Mod, Fmod)):
        return _to_step(op, ins)
    if isinstance(op, Clip):
        gaps = [ins[0] - bound for bound in (op.low, op.high) if np.isfinite(bound)]
        return np.concatenate([gap.ravel() for gap in gaps]) if gaps else None
    if isinstance(op, (Maximum, Minimum, Comparison)):
        return np.subtract(ins[0], ins[1], dtype=np.float64)
    if isinstance(op, ScatterElements):
        return _to_extreme(op, ins) if op.reduction in ("max", "min") else None
    if isinstance(op, SvmRows):
        scores, labels = ins
        return np.asarray(scores - scores[np.arange(len(labels)), labels][:, None] + 1)
    if isinstance(op, TopK):
        return np.diff(np.sort(ins[0], axis=op.axis), axis=op.axis)
    return _of_extreme(op, ins[0])


def _of_extreme(op: Op, x: Array) -> Array | None:
    """Return how far each number is from the largest or the smallest of its slice."""
    compared = _compared(op, x)
    return None if compared is None else _finite(_to_largest(*compared))


def _compared(op: Op, x: Array) -> tuple[Array, tuple[int, ...]] | None:
    """Return the numbers of which an op takes the largest, and the axes of that reduction."""
    if isinstance(op, (Max, Min)):
        return (x if isinstance(op, Max) else -x), op.axes
    if isinstance(op, (Argmax, Argmin)):
        return (x if isinstance(op, Argmax) else -x), (op.axis,)
    if isinstance(op, (MaxPool, MaxPoolIndex)):
        return np.array(op.met(x)), (0,)
    return None


def _finite(gaps: Array) -> Array:
    """Return the finite distances: those of padding around an image, never the largest, are not."""
    return gaps[np.isfinite(gaps)]


def _kinked(op: Power) -> bool:
    return op.exponent < 0 or op.exponent != int(op.exponent)


def _to_step(op: Op, ins: Sequence[Array]) -> Array:
    """Return the distances to where a rounding or a remainder jumps."""
    places = ins[0] / ins[1] if isinstance(op, (Mod, Fmod)) else ins[0]
    shift = 0.5 if isinstance(op, Round) else 0.0
    return np.asarray(places - shift - np.rint(places - shift))


def _to_extreme(op: ScatterElements, ins: Sequence[Array]) -> Array:
    out = op.reference(ins)
    chosen = GatherElements(op.axis).reference([out, ins[1]])
    return np.concatenate([(out - ins[0]).ravel(), (chosen - ins[2]).ravel()])


def _to_largest(x: Array, axes: tuple[int, ...]) -> Array:
    return np.asarray(x.max(axis=axes, keepdims=True, initial=-np.inf) - x)
