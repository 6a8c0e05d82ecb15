"""Runs a graph by the reference rules: its results, and how far rounding may move them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from graphc.base.errors import GraphError
from graphc.ir.graph import Graph, Node
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ops.concat import Concat
from graphc.ops.dropout import DropoutMask
from graphc.ops.elementwise import Neg
from graphc.ops.functions import Abs, Sign
from graphc.ops.gather import Gather
from graphc.ops.index import OneHot, Pick
from graphc.ops.index_nd import FlatIndex
from graphc.ops.pad import Pad
from graphc.ops.pool import MaxPool, MaxPoolPick
from graphc.ops.reduce import BroadcastTo, Max, Min
from graphc.ops.rounding import Ceil, Floor, Round
from graphc.ops.scatter import GatherElements, LastWrite
from graphc.ops.select import Clip, Maximum, Minimum, Relu, ReluGrad, Where
from graphc.ops.shape import Cast, Reshape, StopGradient, Transpose
from graphc.ops.slicing import Slice, SliceGrad
from graphc.ops.source import Constant
from graphc.runtime.reference import computed

Results = dict[str, Array]
"""The results of a graph by kind and name: `output scores`, `gradient w`, `update w`, `mask d`."""

EXACT = (
    *(Relu, ReluGrad, Maximum, Minimum, Clip, Where, Max, Min, Neg, Abs, Sign, Reshape, Transpose),
    *(Concat, Slice, SliceGrad, BroadcastTo, Cast, StopGradient, OneHot, Pick, DropoutMask),
    *(Gather, GatherElements, LastWrite, FlatIndex, Floor, Ceil, Round),
    *(Constant, Pad, MaxPool, MaxPoolPick),
)
"""The ops that never round."""

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
    values: dict[str, Array] = {}
    with np.errstate(all="ignore"):
        for node in graph:
            if node.name in arrays:
                value = arrays[node.name]
            else:
                value = value_of(node, [values[name] for name in node.inputs], rows, train)
            if change is not None:
                value = change(node, value)
            values[node.name] = np.asarray(value, order="C")
    return values


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
            loc=node.locs[0] if node.locs else None,
            hint="passes are validated by the reference rules; gc.check_op tries one op",
        ) from None


def result_names(graph: Graph) -> dict[str, str]:
    """Return the node of each result: outputs, gradients, next states and dropout masks."""
    roots = {"output": graph.outputs, "gradient": graph.gradients, "update": graph.updates}
    found = {f"{kind} {k}": v for kind, names in roots.items() for k, v in names.items()}
    return found | {f"mask {n.name}": n.name for n in graph if isinstance(n.op, DropoutMask)}


def results_of(graph: Graph, values: Mapping[str, Array]) -> Results:
    """Return outputs, gradients, next states and dropout masks."""
    return {result: values[name] for result, name in result_names(graph).items()}


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
        if value.dtype != np.float64 or isinstance(node.op, EXACT):
            return value
        signs = self.rng.integers(0, 2, value.shape) * 2 - 1
        return np.asarray(value * (1 + EPS * signs))


def largest(value: Array) -> float:
    """Return the largest absolute value of the numbers that are finite."""
    if value.dtype.kind != "f":
        return 0.0
    return float(np.max(np.abs(value), where=np.isfinite(value), initial=0.0))
