"""The fit of the statistics of standardised inputs to the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.base.errors import FeedError, GraphError
from graphc.compiler.plan import Plan
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ops.loops.lengths import with_lengths
from graphc.ops.row_norm import Standardize
from graphc.runtime.executor import Executor
from graphc.runtime.members.population import Population
from graphc.runtime.row_axis import rows_of

_PIECE = 1 << 20
"""The numbers that are read at a time, so that data on disk need not fit in memory."""


def fit_standardize(ex: Executor, data: Any, *, weight: ArrayLike | None = None) -> None:
    """Set the mean and scale of every `gc.standardize` of the net to those of `data`.

    The scale is the standard deviation (divided by the sum of weights, not one less), and 1 where
    that is nothing but the rounding of a constant.  If the input has `gc.lengths`, all steps have
    the statistics of the steps that rows have.

    Parameters
    ----------
    ex
        The executor whose statistics are set.
    data
        Arrays as `gc.fit` takes them; inputs that are not standardised may be missing.
    weight
        A number of 0 or more for each row (N,), 1 by default.

    Raises
    ------
    FeedError
        If the arrays do not fit; then nothing is changed.

    Examples
    --------
    >>> net = gc.Net("scaled")
    >>> h = gc.standardize(net.input("x", (gc.N, 1)), name="features")
    >>> out = net.output("out", h)
    >>> ex = gc.Executor(gc.compile(net, batch=4))
    >>> gc.fit_standardize(ex, np.array([[1.0], [3.0]]))
    >>> ex.predict(np.array([[5.0]])).tolist()
    [[3.0]]
    """
    arrays, rows = ex.rows(data, train=False)
    layers = _layers(ex.plan)
    for node in layers:
        if node.inputs[0] not in arrays:
            raise FeedError(
                f"fit_standardize: input {node.inputs[0]!r} is missing",
                operands=[node.described("standardised")],
                hint="give the same arrays as to gc.fit",
            )
    if values := _fitted(ex.plan, layers, arrays, _weights(weight, rows)):
        ex.state = values


def unfitted(ex: Executor) -> list[Node]:
    """Return the layers that still have the statistics with which they were declared."""
    return [node for node in _layers(ex.plan) if _as_declared(*_values(ex, node))]


def check_fitted(ex: Executor) -> None:
    """Raise GraphError for a layer without statistics, which streamed data cannot give."""
    for node in unfitted(ex):
        raise GraphError(
            f"fit: {node.name!r} has no statistics yet, and streamed data gives none",
            operands=[node.described("standardised")],
            hint="gc.fit_standardize(ex, arrays) with some rows first",
        )


def fit_new(ex: Executor, arrays: Mapping[str, Array]) -> None:
    """Fit the statistics of layers that are unfitted."""
    new = unfitted(ex)
    if new:
        ex.state = _fitted(ex.plan, new, arrays, np.ones(len(arrays[new[0].inputs[0]])))


def names_of_statistics(plan: Plan) -> list[str]:
    """Return the names of the states that hold statistics."""
    return [name for node in _layers(plan) for name in node.inputs[1:]]


def statistics_of(
    plan: Plan, arrays: Mapping[str, Array], weight: NDArray[np.float64]
) -> dict[str, Array]:
    """Return the statistics of weighted rows, by the names of their states."""
    return _fitted(plan, _layers(plan), arrays, weight)


def fit_members(
    population: Population, arrays: Mapping[str, Array], rows: Sequence[NDArray[np.intp]]
) -> None:
    """Fit the statistics of layers that are unfitted in a member to its rows of the arrays."""
    layers = _layers(population.plan)
    values = {name: population.state[name] for name in names_of_statistics(population.plan)}
    found = {
        id(chosen): _fitted(population.plan, layers, arrays, np.ones(len(chosen)), chosen)
        for chosen in rows
    }
    for node in layers:
        names = node.inputs[1:]
        new = _as_declared(*(values[name] for name in names))
        for name in names:
            fitted = np.stack([found[id(chosen)][name] for chosen in rows])
            values[name][new] = fitted[new]
    if values:
        population.state = values


def statistics(
    x: NDArray[Any], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and scale of each entry of a row of x (N, ...), weighted by `weight` (N,).

    A missing number (NaN) counts as the mean of the others.
    """
    total, first = weight.sum(), np.nan_to_num(x[0].astype(np.float64))
    offset = np.zeros(x.shape[1:])  # of the mean from the first row: exactly 0 for a constant
    present = np.full(x.shape[1:], total)
    for rows in _pieces(x):
        offset += np.tensordot(weight[rows], _zeroed(x[rows] - first), 1)
        if (missing := np.isnan(x[rows])).any():
            present -= np.tensordot(weight[rows], missing, 1)
    offset /= np.where(present > 0, present, 1)
    square, largest = np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
    for rows in _pieces(x):
        square += np.tensordot(weight[rows], _zeroed(x[rows] - first - offset) ** 2, 1)
        np.maximum(largest, np.fmax.reduce(np.abs(x[rows]), axis=0, initial=0), out=largest)
    mean, scale = first + offset, np.sqrt(square / total)
    return mean, np.where(scale > np.finfo(x.dtype).eps * largest, scale, 1.0)


def _zeroed(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Set what is missing to 0, in place."""
    differences[np.isnan(differences)] = 0
    return differences


def _pieces(x: NDArray[Any]) -> Iterator[slice]:
    count = max(1, _PIECE // max(1, x[0].size))
    return (slice(start, start + count) for start in range(0, len(x), count))


def _layers(plan: Plan) -> list[Node]:
    """Return the standardising layers whose statistics the plan has."""
    known = plan.state_nodes
    layers = (node for node in plan.declared if isinstance(node.op, Standardize))
    return [node for node in layers if node.inputs[1] in known and node.inputs[2] in known]


def _values(ex: Executor, node: Node) -> Iterator[Array]:
    """Yield the statistics of a layer, as those of one member."""
    return (ex.state[name][None] for name in node.inputs[1:])


def _as_declared(mean: Array, scale: Array) -> NDArray[np.bool_]:
    """Return, for each of several statistics of a layer, whether they are those it began with."""
    inner = tuple(range(1, mean.ndim))
    return np.asarray(~mean.any(axis=inner) & (scale == 1).all(axis=inner))


def _fitted(
    plan: Plan,
    layers: Sequence[Node],
    arrays: Mapping[str, Array],
    weight: NDArray[np.float64],
    rows: NDArray[np.intp] | None = None,
) -> dict[str, Array]:
    """Return the statistics of some rows of the arrays, by the names of their states."""
    values: dict[str, Array] = {}
    for node in layers:
        x, *names = node.inputs
        lengths = next((n.name for n in plan.declared if x in with_lengths(n)), None)
        used = {name: arrays[name] for name in (x, lengths) if name is not None}
        if rows is not None:
            used = {name: rows_of(y, plan.declared[name].type, rows) for name, y in used.items()}
        numbers, by = used[x], weight
        if lengths is not None:
            numbers, by = _steps(numbers, used[lengths], weight)
        shape, dtype = node.type.shape[1:], node.type.dtype
        for name, found in zip(names, statistics(numbers, by), strict=True):
            values[name] = np.broadcast_to(found, shape).astype(dtype)  # type: ignore[arg-type]
    return values


def _steps(
    rows: Array, lengths: Array, weight: NDArray[np.float64]
) -> tuple[Array, NDArray[np.float64]]:
    """Return all steps that rows have, and the weight of each."""
    steps = [row[:count] for row, count in zip(rows, lengths, strict=True)]
    return np.concatenate(steps), np.repeat(weight, lengths)


def _weights(weight: ArrayLike | None, rows: int) -> NDArray[np.float64]:
    """Return one number per row; raise FeedError for anything else."""
    if weight is None:
        return np.ones(rows)
    array = np.asarray(weight)
    numbers = array.dtype.kind in "fiub" and array.shape == (rows,)
    if not numbers or not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise FeedError(
            f"fit_standardize: weight must have {rows} numbers of 0 or more, not all 0",
            hint="leave it out to let every row count as much",
        )
    return array.astype(np.float64)
