"""Any number of rows, in pieces of at most the planned batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.errors import FeedError
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.plan import Program
from graphc.tensor_type import Batch, TensorType

if TYPE_CHECKING:
    from graphc.executor import Executor


def predict(ex: Executor, arrays: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """The outputs of all rows: an array, or a dict when there are several."""
    losses = ex.plan.losses
    results = _in_pieces(ex, arrays, named)
    parts = [{k: v for k, v in out.items() if k not in losses} for _, out in results]
    found = _joined(ex.plan.programs["infer"], parts)
    if not found:
        raise FeedError(
            "predict: what was fed determines no output with rows",
            loc=caller_loc(),
            hint="ex.evaluate gives losses, ex.forward everything for one batch",
        )
    return next(iter(found.values())) if len(found) == 1 else found


def evaluate(ex: Executor, arrays: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, float]:
    """The mean over all rows of each loss and of each other scalar output."""
    results = _in_pieces(ex, arrays, named)
    rows = sum(n for n, _ in results)
    totals: dict[str, float] = {}
    for n, out in results:
        for name, array in out.items():
            if array.ndim == 0:
                totals[name] = totals.get(name, 0.0) + n * float(array)
    if not totals:
        raise FeedError(
            "evaluate: what was fed determines no loss and no other scalar output",
            loc=caller_loc(),
            hint="feed the labels, too: ex.evaluate(x, y)",
        )
    return {name: total / rows for name, total in totals.items()}


def _in_pieces(
    ex: Executor, arrays: tuple[Any, ...], named: Mapping[str, Any]
) -> list[tuple[int, dict[str, Array]]]:
    """Inference on pieces of at most the planned batch: their rows and their outputs."""
    feeds = by_position(ex.plan.input_names, arrays, named)
    checked, rows = ex.rows(feeds, train=False)
    parts = _pieces(ex.plan.programs["infer"], checked, rows, ex.plan.batch)
    return [(n, ex.forward(part)) for n, part in parts]


def by_position(
    inputs: Sequence[str], arrays: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """Arrays by position, in one tuple or in one mapping, as feeds by the names of inputs."""
    if len(arrays) == 1 and isinstance(arrays[0], Mapping):
        return {**arrays[0], **named}
    if len(arrays) == 1 and isinstance(arrays[0], tuple):
        arrays = arrays[0]
    if len(arrays) > len(inputs):
        raise FeedError(
            f"{len(arrays)} arrays were given, the net has {len(inputs)} inputs",
            loc=caller_loc(),
            hint=f"they are {', '.join(inputs)}, in this order" if inputs else "",
        )
    return {**dict(zip(inputs, arrays, strict=False)), **named}


def _pieces(
    program: Program, arrays: Mapping[str, Array], rows: int, size: int
) -> Iterator[tuple[int, dict[str, Array]]]:
    """The number of rows and the feeds of each piece; arrays without a batch go into all."""
    for start in range(0, rows, size):
        stop = min(start + size, rows)
        yield (
            stop - start,
            {
                name: _rows(array, program.feeds[name], start, stop)
                for name, array in arrays.items()
            },
        )


def _joined(program: Program, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Each output of all pieces, along its batch dimension.

    Outputs without one have no rows to join; they stay where there is but one piece to make.
    """
    found: dict[str, Array] = {}
    batched = any(type.batched for type in program.feeds.values())
    for name in parts[0]:
        type = program.buffers[program.outputs[name]].type
        if type.batched:
            axis, _ = _batch_axis(type)
            arrays = [part[name] for part in parts]
            found[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
        elif not batched:
            found[name] = parts[0][name]
    return found


def _batch_axis(type: TensorType) -> tuple[int, int]:
    """The axis of the batch and its factor, which is 0 where there is none."""
    for axis, dim in enumerate(type.shape):
        if isinstance(dim, Batch):
            return axis, dim.factor
    return 0, 0


def _rows(array: Array, type: TensorType, start: int, stop: int) -> Array:
    axis, factor = _batch_axis(type)
    if factor == 0:
        return array
    index = [slice(None)] * array.ndim
    index[axis] = slice(start * factor, stop * factor)
    return array[tuple(index)]
