"""The function `quantize`: an executor for inference that multiplies in int8."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from graphc.base.arguments import takes
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.graph import Graph, joint_results
from graphc.runtime.executor import Executor
from graphc.runtime.freeze import built, check_executor, frozen_ops
from graphc.runtime.rows import predictions
from passes.quantize_products import QuantizeProducts, quantizable


@takes("gc.quantize(ex, x_train)")
def quantize(ex: Executor, data: Any, *, batch: int | None = None) -> Executor:
    """Build the weights of an executor, in int8, into a new one that only infers.

    Every affine map, matrix product and convolution by a trained weight multiplies int8 by int8,
    but for narrow groups, such as depthwise ones, and for those in loops.  The sums are of int32,
    so they are exact, and the same on every backend.

    Parameters
    ----------
    ex
        The trained executor, which stays as it is.
    data
        Rows like those of later use, some hundreds: the inputs in declared order, as an array or
        a tuple, or a mapping by name.  The largest magnitude of each value on them is its range;
        what lies beyond is clipped.  A row with a number that is not finite gives NaN.
    batch
        The largest number of rows of one run; None means that of `ex`.

    Returns
    -------
    Executor
        One whose plan has int8 constants for weights.

    Raises
    ------
    GraphError
        If nothing is multiplied by weights, or a value is not finite on the data.
    FeedError
        If the data do not fit the inputs.

    Examples
    --------
    >>> net = gc.Net("line")
    >>> line = net.output("line", gc.affine(net.input("x", (gc.N, 2)), 3))
    >>> ex = gc.Executor(gc.compile(net, batch=32))
    >>> x = np.random.default_rng(0).standard_normal((100, 2))
    >>> bool(np.abs(gc.quantize(ex, x).predict(x) - ex.predict(x)).max() < 0.1)
    True
    """
    check_executor("quantize", ex, "gc.quantize(ex, x_train) with ex = gc.Executor(plan)")
    graph = frozen_ops(ex)
    sources = [found.source for node in graph if (found := quantizable(graph, node)) is not None]
    if not sources:
        raise GraphError(
            f"quantize: net {graph.name!r} multiplies nothing by weights in float"
            f"{' outside loops' if joint_results(graph) else ''}",
            loc=caller_loc(),
            hint="affine, matmul and convolutions by constant weights are quantized, once",
        )
    ranges = _ranges(values_of(ex, graph, sources), data)
    for name, largest in ranges.items():
        if not np.isfinite(largest):
            raise GraphError(
                f"quantize: {name!r} is not finite on the data",
                operands=[graph[name].described("value")],
                loc=caller_loc(),
                hint="look at ex.predict on these rows",
            )
    return built(ex, QuantizeProducts(ranges)(graph), batch or ex.plan.batch)


def values_of(ex: Executor, graph: Graph, names: Iterable[str]) -> Executor:
    """Return an executor whose outputs are some nodes of a graph without state."""
    outputs = {name: name for name in names}
    return built(ex, Graph(graph.name, graph, outputs=outputs), ex.plan.batch)


def _ranges(values: Executor, data: Any) -> dict[str, float]:
    """Return the largest magnitude of each output over all rows; NaN stays NaN."""
    ranges: dict[str, float] = {}
    for rows, found in predictions(values, (data,), {})[1]:
        if not rows:
            raise GraphError("quantize: the data have no rows", loc=caller_loc())
        for name, array in found.items():
            ranges[name] = float(np.maximum(ranges.get(name, 0.0), np.abs(array).max(initial=0.0)))
    return ranges
