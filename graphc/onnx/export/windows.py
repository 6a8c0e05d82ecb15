"""Writers of convolution, pooling, padding and the norms of images as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.ir.op import Op
from graphc.onnx.export.writer import Emit, Writer, node
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.pad import Pad, Pads
from graphc.ops.pool_layer import AvgPoolLayer, GlobalAvgPool, MaxPoolLayer
from graphc.ops.row_norm import GroupNorm


def _pads(pairs: Pads) -> list[int]:
    """Return all paddings before, then all paddings after."""
    return [pair[side] for side in (0, 1) for pair in pairs]


def _conv(
    w: Writer,
    op: ConvLayer | ConvTransposeLayer,
    ins: Sequence[str],
    out: str,
    name: str = "Conv",
    **more: Any,
) -> str:
    return w.emit(
        name,
        ins,
        out,
        kernel_shape=list(w.types[ins[1]].shape[2:]),
        strides=list(op.stride),
        pads=_pads(op.padding),
        dilations=list(op.dilation),
        group=op.groups,
        **more,
    )


def _conv_transpose(w: Writer, op: ConvTransposeLayer, ins: Sequence[str], out: str) -> str:
    return _conv(w, op, ins, out, "ConvTranspose", output_padding=list(op.more))


def _max_pool(w: Writer, op: MaxPoolLayer, ins: Sequence[str], out: str) -> str | None:
    return _pool(w, op, ins, out, "MaxPool", dilations=list(op.dilation))


def _avg_pool(w: Writer, op: AvgPoolLayer, ins: Sequence[str], out: str) -> str | None:
    """Write AveragePool without dilation, which ONNX's windows do not have before opset 19."""
    if set(op.dilation) != {1}:
        return None
    return _pool(w, op, ins, out, "AveragePool", count_include_pad=int(op.count_include_pad))


def _pool(
    w: Writer, op: MaxPoolLayer | AvgPoolLayer, ins: Sequence[str], out: str, name: str, **more: Any
) -> str | None:
    found = _ends(w, op, ins)
    if found is None:
        return None
    padding, ceil = found
    return w.emit(
        name,
        ins,
        out,
        kernel_shape=list(op.kernel),
        strides=list(op.stride),
        pads=_pads(padding),
        ceil_mode=int(ceil),
        **more,
    )


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


def _groupnorm(w: Writer, op: GroupNorm, ins: Sequence[str], out: str) -> str | None:
    """Write instance norm: before opset 21 GroupNormalization scales groups, not channels."""
    if op.groups != w.types[ins[0]].shape[1]:
        return None
    return w.emit("InstanceNormalization", ins, out, epsilon=op.eps)


def _pad(w: Writer, op: Pad, ins: Sequence[str], out: str) -> str:
    value = w.constant(op.value, w.types[ins[0]].dtype)
    return w.emit("Pad", [*ins, w.ints(_pads(op.pads)), value], out)


WINDOWS: dict[type[Op], Emit] = {
    ConvLayer: _conv,
    ConvTransposeLayer: _conv_transpose,
    MaxPoolLayer: _max_pool,
    AvgPoolLayer: _avg_pool,
    GlobalAvgPool: node("GlobalAveragePool"),
    GroupNorm: _groupnorm,
    Pad: _pad,
}
"""The writers by graphc's op."""
