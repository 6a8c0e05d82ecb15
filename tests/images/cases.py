"""Functions of images that PyTorch has too: operands' shapes, and how ours is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import graphc as gc
from graphc.ir.op import Array
from graphc.ops.norm import BatchNorm
from graphc.ops.row_norm import GroupNorm
from graphc.ops.source import State

Shape = tuple[int, ...]


class Case(NamedTuple):
    """Operands of these shapes, the first with the batch, and the function of them."""

    ours: Callable[..., gc.Value]
    shapes: tuple[Shape, ...]


def _batchnorm(x: gc.Value, gamma: gc.Value, beta: gc.Value) -> gc.Value:
    """By the batch's own statistics; the running ones are not read."""
    starts = [State(gamma.node.type.shape, x.dtype, start) for start in (0.0, 1.0)]  # type: ignore[arg-type]
    mean, var = (x.builder.apply(s, name=n) for s, n in zip(starts, ("mean", "var"), strict=True))
    return gc.apply(BatchNorm(), x, gamma, beta, mean, var)


IMAGE: Shape = (2, 4, 5, 4)
CASES: Mapping[str, Case] = {
    "conv2d": Case(gc.conv, (IMAGE, (3, 4, 3, 2), (3,))),
    "conv2d stride 2, padding 1": Case(
        lambda x, w: gc.conv(x, w, stride=2, padding=1), (IMAGE, (3, 4, 3, 3))
    ),
    "conv2d dilation 2, padding (2, 1)": Case(
        lambda x, w: gc.conv(x, w, dilation=2, padding=(2, 1)), (IMAGE, (2, 4, 3, 2))
    ),
    "conv2d 2 groups": Case(
        lambda x, w, b: gc.conv(x, w, b, groups=2), (IMAGE, (6, 2, 2, 2), (6,))
    ),
    "conv2d depthwise, stride (1, 2)": Case(
        lambda x, w: gc.conv(x, w, stride=(1, 2), padding=1, groups=4), (IMAGE, (4, 1, 3, 3))
    ),
    "conv2d uneven padding": Case(
        lambda x, w: gc.conv(x, w, padding=((0, 2), (1, 0))), (IMAGE, (2, 4, 2, 2))
    ),
    "conv2d same": Case(lambda x, w: gc.conv(x, w, padding="same"), (IMAGE, (2, 4, 2, 3))),
    "conv1d": Case(lambda x, w, b: gc.conv(x, w, b, 2), ((2, 3, 7), (2, 3, 3), (2,))),
    "conv3d": Case(lambda x, w: gc.conv(x, w, padding=1), ((1, 2, 2, 3, 2), (2, 2, 2, 2, 1))),
    "conv_transpose2d": Case(gc.conv_transpose, ((2, 3, 3, 2), (3, 2, 2, 3), (2,))),
    "conv_transpose2d stride 2": Case(
        lambda x, w: gc.conv_transpose(x, w, stride=2, padding=1, output_padding=1),
        ((2, 3, 3, 2), (3, 2, 3, 3)),
    ),
    "conv_transpose2d 2 groups, dilation 2": Case(
        lambda x, w: gc.conv_transpose(x, w, groups=2, dilation=2, padding=1),
        ((2, 4, 3, 2), (4, 3, 2, 2)),
    ),
    "conv_transpose1d": Case(
        lambda x, w, b: gc.conv_transpose(x, w, b, 3), ((2, 2, 4), (2, 3, 2), (3,))
    ),
    "max_pool2d": Case(lambda x: gc.max_pool(x, 2), (IMAGE,)),
    "max_pool2d overlapping, padding 1, ceil": Case(
        lambda x: gc.max_pool(x, 3, 2, padding=1, ceil=True), (IMAGE,)
    ),
    "max_pool2d dilation 2": Case(lambda x: gc.max_pool(x, 2, 1, dilation=2), (IMAGE,)),
    "avg_pool2d ceil": Case(lambda x: gc.avg_pool(x, 2, 2, padding=1, ceil=True), (IMAGE,)),
    "avg_pool2d with padding": Case(
        lambda x: gc.avg_pool(x, 3, 2, padding=1, ceil=True, count_include_pad=True), (IMAGE,)
    ),
    "avg_pool1d": Case(lambda x: gc.avg_pool(x, 3, 1), ((2, 3, 6),)),
    "global_avg_pool": Case(gc.global_avg_pool, (IMAGE,)),
    "global_max_pool": Case(gc.global_max_pool, (IMAGE,)),
    "adaptive_avg_pool": Case(lambda x: gc.adaptive_avg_pool(x, (3, 2)), (IMAGE,)),
    "batchnorm": Case(_batchnorm, (IMAGE, (4,), (4,))),
    "groupnorm": Case(lambda *ins: gc.apply(GroupNorm(2), *ins), (IMAGE, (4,), (4,))),
    "instancenorm": Case(lambda *ins: gc.apply(GroupNorm(4), *ins), (IMAGE, (4,), (4,))),
}


def operands(case: Case) -> list[Array]:
    """Numbers between -1 and 1 that no two operands share, nor two places of one."""
    return [waves(shape, 1.0 + i) for i, shape in enumerate(case.shapes)]


def waves(shape: Shape, phase: float) -> Array:
    """sin(phase + 1.7 k) for the k-th number."""
    return np.sin(phase + 1.7 * np.arange(np.prod(shape))).reshape(shape)


def seen(array: Any) -> tuple[float, float]:
    """Two sums in which every number has a weight of its own."""
    flat = np.asarray(array).reshape(-1)
    return tuple(float(flat @ waves(flat.shape, phase)) for phase in (0.3, 2.1))  # type: ignore[return-value]
