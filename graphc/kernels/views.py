"""Columns of a matrix as a matrix of their own: the same bytes, with a larger pitch."""

from __future__ import annotations

from dataclasses import dataclass

from graphc.ir.op import Op
from graphc.ir.tensor_type import Shape, TensorType, count, normal_axis
from graphc.ops.slicing import Concat, Cut, Slice, SliceGrad


@dataclass(frozen=True, slots=True)
class View:
    """Columns of `root` from `start` on; rows are `pitch` elements apart."""

    root: str
    start: int
    pitch: int


@dataclass(frozen=True, slots=True)
class Part:
    """Columns `start` to before `stop` of a result, and the operand copied there; None is 0."""

    start: int
    stop: int
    operand: str | None


def sliced_columns(op: Op, x: TensorType) -> tuple[int, int] | None:
    """Return the first and the end of the neighbouring columns that a slice takes, or None."""
    return _columns(op.cuts, x.shape) if isinstance(op, Slice) else None


def joined_columns(op: Op, names: tuple[str, ...], ins: list[TensorType]) -> list[Part] | None:
    """Return the columns of each operand of an op that puts them side by side, or None."""
    if isinstance(op, Concat):
        return _concatenated(op, names, ins)
    if not isinstance(op, SliceGrad):
        return None
    columns, width = _columns(op.cuts, op.shape), count(op.shape[1:])
    if columns is None or not isinstance(width, int):
        return None
    start, stop = columns
    parts = [Part(0, start, None), Part(start, stop, names[0]), Part(stop, width, None)]
    return [part for part in parts if part.start < part.stop]


def _concatenated(op: Concat, names: tuple[str, ...], ins: list[TensorType]) -> list[Part] | None:
    if ins[0].rank < 2 or normal_axis(op.axis, ins[0].rank) != 1:
        return None
    parts: list[Part] = []
    start = 0
    for name, type in zip(names, ins, strict=True):
        width = count(type.shape[1:])
        if not isinstance(width, int):
            return None
        parts.append(Part(start, start + width, name))
        start += width
    return parts


def _columns(cuts: tuple[Cut, ...], shape: Shape) -> tuple[int, int] | None:
    if len(cuts) != 1 or len(shape) < 2:
        return None
    axis, start, stop, step = cuts[0]
    rest = count(shape[2:])
    if axis != 1 or step != 1 or not isinstance(rest, int):
        return None
    if not isinstance(start, int) or not isinstance(stop, int):
        return None
    return start * rest, stop * rest
