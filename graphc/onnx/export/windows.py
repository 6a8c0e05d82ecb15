"""Writers of convolution, pooling, padding and the norms of images as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graphc.ir.op import Op
from graphc.onnx.export.writer import Writer
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.group_norm import GroupNorm
from graphc.ops.pad import Pad, Pads
from graphc.ops.pool_layer import AvgPoolLayer, GlobalAvgPool, MaxPoolLayer


def _pads(pairs: Pads) -> list[int]:
    """Return all paddings before, then all paddings after."""
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
    found = _ends(w, op, ins)
    if found is None:
        return False
    padding, ceil = found
    w.emit(
        "MaxPool",
        ins,
        out,
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=_pads(padding),
        dilations=list(op.dilation),
        ceil_mode=int(ceil),
    )
    return True


def _ends(
    w: Writer, op: MaxPoolLayer | AvgPoolLayer, ins: Sequence[str]
) -> tuple[Pads, bool] | None:
    """Return padding and ceil mode that make ONNX count as many windows, or None if none do.

    ONNX counts one more window that begins past the image, which graphc and PyTorch do not count.
    """
    x = w.types[ins[0]]
    counts, ceils = op.infer([x]).shape[2:], []
    padding: list[tuple[int, int]] = []
    rows = zip(x.shape[2:], counts, op.kernel, op.stride, op.dilation, op.padding, strict=True)
    for size, count, kernel, stride, dilation, (before, after) in rows:
        if not isinstance(size, int) or not isinstance(count, int):
            return op.padding, op.ceil
        room = size + before + after - ((kernel - 1) * dilation + 1)
        ceils.append(room // stride + 1 < count)
        more = -(-room // stride) + 1 > count
        padding.append((before, after - (room - (count - 1) * stride) if more else after))
    if not op.ceil or tuple(padding) == op.padding:
        return op.padding, op.ceil
    if not any(ceils):
        return op.padding, False
    return (tuple(padding), True) if all(after >= 0 for _, after in padding) else None


def _avg_pool(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write AveragePool without dilation, which ONNX's windows do not have before opset 19."""
    assert isinstance(op, AvgPoolLayer)
    found = _ends(w, op, ins)
    if set(op.dilation) != {1} or found is None:
        return False
    padding, ceil = found
    w.emit(
        "AveragePool",
        ins,
        out,
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=_pads(padding),
        ceil_mode=int(ceil),
        count_include_pad=int(op.count_include_pad),
    )
    return True


def _global_avg_pool(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    w.emit("GlobalAveragePool", ins, out)
    return True


def _groupnorm(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write instance norm: before opset 21 GroupNormalization scales groups, not channels."""
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
"""The writers by graphc's op."""
