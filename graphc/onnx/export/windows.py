"""Convolution, pooling, padding and the norms of images as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.onnx.export.writer import Writer
from graphc.op import Op
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.group_norm import GroupNorm
from graphc.ops.pad import Pad, Pads
from graphc.ops.pool_layer import AvgPoolLayer, GlobalAvgPool, MaxPoolLayer


def _pads(pairs: Pads) -> list[int]:
    """All that stand before, then all that stand behind."""
    return [pair[side] for side in (0, 1) for pair in pairs]


def _conv(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, ConvLayer)
    w.emit(
        "Conv",
        ins,
        out,
        kernel_shape=list(w.types[ins[1]].shape[2:]),
        strides=list(op.stride),
        pads=_pads(op.padding),
        dilations=list(op.dilation),
        group=op.groups,
    )
    return True


def _conv_transpose(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, ConvTransposeLayer)
    w.emit(
        "ConvTranspose",
        ins,
        out,
        kernel_shape=list(w.types[ins[1]].shape[2:]),
        strides=list(op.stride),
        pads=_pads(op.padding),
        dilations=list(op.dilation),
        output_padding=list(op.more),
        group=op.groups,
    )
    return True


def _max_pool(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, MaxPoolLayer)
    w.emit(
        "MaxPool",
        ins,
        out,
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=_pads(op.padding),
        dilations=list(op.dilation),
        ceil_mode=int(op.ceil),
    )
    return True


def _avg_pool(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Before opset 19, ONNX's windows are not dilated."""
    assert isinstance(op, AvgPoolLayer)
    if set(op.dilation) != {1}:
        return False
    w.emit(
        "AveragePool",
        ins,
        out,
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=_pads(op.padding),
        ceil_mode=int(op.ceil),
        count_include_pad=int(op.count_include_pad),
    )
    return True


def _global_avg_pool(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    w.emit("GlobalAveragePool", ins, out)
    return True


def _groupnorm(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """ONNX's GroupNormalization scales groups, not channels, before opset 21."""
    assert isinstance(op, GroupNorm)
    if op.groups != w.types[ins[0]].shape[1]:
        return False
    w.emit("InstanceNormalization", ins, out, epsilon=op.eps)
    return True


def _pad(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Pad)
    value = w.constant(op.value, w.types[ins[0]].dtype)
    w.emit("Pad", [*ins, w.ints(_pads(op.pads)), value], out)
    return True


WINDOWS: dict[type[Op], Callable[[Writer, Op, Sequence[str], str], bool]] = {
    ConvLayer: _conv,
    ConvTransposeLayer: _conv_transpose,
    MaxPoolLayer: _max_pool,
    AvgPoolLayer: _avg_pool,
    GlobalAvgPool: _global_avg_pool,
    GroupNorm: _groupnorm,
    Pad: _pad,
}
"""By graphc's op."""
