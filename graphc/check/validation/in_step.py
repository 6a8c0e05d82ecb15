"""Runs the shards of a batch in step by the reference rules, with real sums over shards."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from graphc.check.validation.draws import Draw, given_of
from graphc.check.validation.run import Results, result_names, value_of
from graphc.compiler.loss_share import SUM
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.ops.exchange import Receive, ShardInput, Total
from graphc.runtime.row_axis import RowAxis

Values = dict[str, Array]
Part = tuple[int, int]
"""The rows of a shard, as (first, end)."""

MOST = 4
"""The most shards that a batch is cut into."""


def parts_of(rows: int) -> list[Part]:
    """Return shards of different sizes: each has half of the rows left, the last has all."""
    found: list[Part] = []
    start = 0
    while start < rows:
        last = len(found) == MOST - 1
        stop = rows if last else start + (rows - start + 1) // 2
        found.append((start, stop))
        start = stop
    return found


def share(kind: str, part: Part, rows: int) -> float:
    """Return the share by which a loss of that kind counts; see graphc/compiler/loss_share.py."""
    return 1.0 if kind == SUM else (part[1] - part[0]) / rows


def given_in_step(graph: Graph, draw: Draw, parts: Sequence[Part]) -> list[Values]:
    """Return for each shard its rows of every input, all of each state, and its numbers."""
    whole = {k: v for k, v in given_of(graph, draw).items() if not _of_shard(graph[k])}
    numbers = [node for node in graph if _of_shard(node)]
    return [
        {name: rows_of(graph[name].type, array, part) for name, array in whole.items()}
        | {node.name: _number(node, part, draw.rows) for node in numbers}
        for part in parts
    ]


def _of_shard(node: Node) -> bool:
    return isinstance(node.op, ShardInput)


def _number(node: Node, part: Part, rows: int) -> Array:
    """Return the number that a node's name asks for: `shard.first_row` or `shard.share.KIND.DTYPE`.

    The divisor of a mean may be any number, the same for each row.
    """
    what, _, kind = node.name.removeprefix("shard.").partition(".")
    number = part[0] if what == "first_row" else share(kind.rpartition(".")[0], part, rows)
    return np.asarray(number, node.type.dtype)


def values_in_step(
    graph: Graph, parts: Sequence[Part], given: Sequence[Values], whole: Collection[str] = ()
) -> list[Values]:
    """Return the value of every node on each shard; sums over shards are the same on all.

    The nodes named in `whole` read the rows of all shards, as they would in the batch.
    """
    found: list[Values] = [{} for _ in parts]
    with np.errstate(all="ignore"):
        for node in graph:
            if node.name in whole:
                value = _of_all(graph, node, parts, found)
                for part, values in zip(parts, found, strict=True):
                    values[node.name] = rows_of(node.type, value, part)
                continue
            for (start, stop), values, arrays in zip(parts, found, given, strict=True):
                if node.name in arrays:
                    values[node.name] = arrays[node.name]
                else:
                    ins = [values[name] for name in node.inputs]
                    value = value_of(node, ins, stop - start, True)
                    values[node.name] = np.asarray(value, order="C")
            if isinstance(node.op, (Total, Receive)):
                total = np.asarray(sum(values[node.name] for values in found))
                for values in found:
                    values[node.name] = total
    return found


def _of_all(
    graph: Graph, node: Node, parts: Sequence[Part], found: Sequence[Mapping[str, Array]]
) -> Array:
    """Return a node's value for the rows of all shards; operands without rows are shared."""
    ins = [
        _joined(graph, name, found) if graph[name].type.batched else found[0][name]
        for name in node.inputs
    ]
    return np.asarray(value_of(node, ins, parts[-1][1], True), order="C")


def rows_of(type: TensorType, array: Array, part: Part) -> Array:
    """Return the shard's rows of an array; all of it if it has no rows."""
    axis = RowAxis.of(type)
    return array if axis is None else np.ascontiguousarray(axis.rows(array, *part))


def _joined(graph: Graph, name: str, found: Sequence[Mapping[str, Array]]) -> Array:
    """Return the rows of all shards in one array; of a value without rows, each shard's."""
    axis = RowAxis.of(graph[name].type)
    arrays = [values[name] for values in found]
    return np.stack(arrays) if axis is None else np.concatenate(arrays, axis.axis)


def joined_results(graph: Graph, found: Sequence[Values]) -> Results:
    """Return the results of all shards; for results without rows, those of each shard."""
    return {key: _joined(graph, name, found) for key, name in result_names(graph).items()}
