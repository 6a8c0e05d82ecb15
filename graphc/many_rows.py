"""Any number of rows, in pieces of at most the planned batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import FeedError
from graphc.loc import caller_loc
from graphc.op import Array
from graphc.plan import Program
from graphc.tensor_type import Batch, TensorType


def by_name(
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


def pieces(
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


def joined(program: Program, parts: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Each output of all pieces, along its batch dimension.

    Outputs without one have no rows to join; they stay where there is but one piece to make.
    """
    found: dict[str, Array] = {}
    batched = any(type.batched for type in program.feeds.values())
    for name in parts[0]:
        type = program.buffers[program.outputs[name]].type
        if type.batched:
            axis, _ = batch_axis(type)
            arrays = [part[name] for part in parts]
            found[name] = arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis)
        elif not batched:
            found[name] = parts[0][name]
    return found


def batch_axis(type: TensorType) -> tuple[int, int]:
    """The axis of the batch and its factor, which is 0 where there is none."""
    for axis, dim in enumerate(type.shape):
        if isinstance(dim, Batch):
            return axis, dim.factor
    return 0, 0


def _rows(array: Array, type: TensorType, start: int, stop: int) -> Array:
    axis, factor = batch_axis(type)
    if factor == 0:
        return array
    index = [slice(None)] * array.ndim
    index[axis] = slice(start * factor, stop * factor)
    return array[tuple(index)]
