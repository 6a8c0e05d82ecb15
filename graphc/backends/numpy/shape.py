"""Kernels that move numbers: copies between views."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ops.concat import Concat
from graphc.ops.pad import Pad
from graphc.ops.shape import Transpose
from graphc.ops.slicing import Slice, SliceGrad, cut_index


def transpose(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that copy x in the new order of axes."""
    assert isinstance(op, Transpose)
    return (partial(np.copyto, out, ins[0].transpose(op.axes)),)


def concat(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return one call for each operand, which copies it."""
    assert isinstance(op, Concat)
    ends = np.cumsum([x.shape[op.axis] for x in ins])
    parts = np.split(out, ends[:-1], axis=op.axis)
    return [partial(np.copyto, part, x) for part, x in zip(parts, ins, strict=True)]


def slice_(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that copy the part."""
    assert isinstance(op, Slice)
    return (partial(np.copyto, out, ins[0][op.index(ins[0].ndim)]),)


def slice_grad(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that write zeros, then dout at the positions of the cuts."""
    assert isinstance(op, SliceGrad)
    part = out[cut_index(op.cuts, out.ndim)]
    return partial(out.fill, 0), partial(np.copyto, part, ins[0])


def pad(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that copy x to the inside, and fill the rest with the value."""
    assert isinstance(op, Pad)
    value, rest, calls = number(op.value, out), out, list[Call]()
    for axis, (before, after) in enumerate(op.pads):
        along = rest.swapaxes(0, axis)
        edges = along[:before], along[len(along) - after :]
        calls += [partial(np.copyto, edge, value) for edge in edges if edge.size]
        rest = along[before : len(along) - after].swapaxes(0, axis)
    return [*calls, partial(np.copyto, rest, ins[0])]


def cast(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that copy x in another dtype."""
    return (partial(np.copyto, out, ins[0], casting="unsafe"),)


def broadcast_to(
    op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
) -> Sequence[Call]:
    """Return calls that copy x, repeated along axes of size 1."""
    return (partial(np.copyto, out, ins[0]),)


SHAPE: dict[str, Kernel] = {
    "transpose": transpose,
    "concat": concat,
    "slice": slice_,
    "slice_grad": slice_grad,
    "pad": pad,
    "cast": cast,
    "broadcast_to": broadcast_to,
}
