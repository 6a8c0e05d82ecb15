"""The fit of the statistics of standardised inputs to the training set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.base.errors import FeedError
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ops.lengths import with_lengths
from graphc.ops.row_norm import Standardize
from graphc.runtime.executor import Executor

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
    layers = _layers(ex)
    for node in layers:
        if node.inputs[0] not in arrays:
            raise FeedError(
                f"fit_standardize: input {node.inputs[0]!r} is missing",
                operands=[node.described("standardised")],
                hint="give the same arrays as to gc.fit",
            )
    _set(ex, layers, arrays, _weights(weight, rows))


def unfitted(ex: Executor) -> list[Node]:
    """Return the layers that still have the statistics with which they were declared."""
    return [node for node in _layers(ex) if _as_declared(ex, node)]


def fit_new(ex: Executor, arrays: Mapping[str, Array]) -> None:
    """Fit the statistics of layers that are unfitted."""
    new = unfitted(ex)
    if new:
        _set(ex, new, arrays, np.ones(len(arrays[new[0].inputs[0]])))


def statistics(
    x: NDArray[Any], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and scale of each entry of a row of x (N, ...), weighted by `weight` (N,)."""
    total, first = weight.sum(), x[0].astype(np.float64)
    offset = np.zeros(x.shape[1:])  # of the mean from the first row: exactly 0 for a constant
    for rows in _pieces(x):
        offset += np.tensordot(weight[rows], x[rows] - first, 1)
    offset /= total
    square, largest = np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
    for rows in _pieces(x):
        square += np.tensordot(weight[rows], (x[rows] - first - offset) ** 2, 1)
        np.maximum(largest, np.abs(x[rows]).max(axis=0), out=largest)
    mean, scale = first + offset, np.sqrt(square / total)
    return mean, np.where(scale > np.finfo(x.dtype).eps * largest, scale, 1.0)


def _pieces(x: NDArray[Any]) -> Iterator[slice]:
    count = max(1, _PIECE // max(1, x[0].size))
    return (slice(start, start + count) for start in range(0, len(x), count))


def _layers(ex: Executor) -> list[Node]:
    """Return the standardising layers whose statistics the plan has."""
    known = ex.plan.state_nodes
    layers = (node for node in ex.plan.declared if isinstance(node.op, Standardize))
    return [node for node in layers if node.inputs[1] in known and node.inputs[2] in known]


def _as_declared(ex: Executor, node: Node) -> bool:
    _, mean, scale = node.inputs
    return not ex.state[mean].any() and bool((ex.state[scale] == 1).all())


def _set(
    ex: Executor, layers: list[Node], arrays: Mapping[str, Array], weight: NDArray[np.float64]
) -> None:
    values: dict[str, Array] = {}
    for node in layers:
        _, mean, scale = node.inputs
        fitted = statistics(*_entries(ex, node.inputs[0], arrays, weight))
        shape, dtype = node.type.shape[1:], node.type.dtype
        values |= {
            name: np.broadcast_to(found, shape).astype(dtype)  # type: ignore[arg-type]
            for name, found in zip((mean, scale), fitted, strict=True)
        }
    if values:
        ex.state = values


def _entries(
    ex: Executor, x: str, arrays: Mapping[str, Array], weight: NDArray[np.float64]
) -> tuple[Array, NDArray[np.float64]]:
    """Return the rows of an input and their weights; if it has lengths, the steps of all rows."""
    found = next((n.name for n in ex.plan.declared if x in with_lengths(n)), None)
    if found is None:
        return arrays[x], weight
    lengths = arrays[found]
    steps = [row[:count] for row, count in zip(arrays[x], lengths, strict=True)]
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
