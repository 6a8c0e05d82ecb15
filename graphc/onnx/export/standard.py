"""Writers of graphc's ops and layers as ONNX nodes."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from onnx import TensorProto

from graphc.ir.op import Op, attributes
from graphc.ir.tensor_type import Batch
from graphc.onnx.export import Emit, Writer, next_of, node, onnx_dtype
from graphc.ops import OPS
from graphc.ops.activations import Celu, Elu, HardSigmoid, LeakyRelu, PRelu, Shrink, ThresholdedRelu
from graphc.ops.argmax import Argmax, Argmin
from graphc.ops.arithmetic import Fmod, Mod, TruncDiv
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.cumulative import Cumsum
from graphc.ops.dropout import Dropout
from graphc.ops.elementwise import Power
from graphc.ops.functions import LogSoftmax, Softmax
from graphc.ops.gather import Embedding, Gather
from graphc.ops.index import OneHot
from graphc.ops.linalg import AffineLayer, MatMul
from graphc.ops.logic import And, Not, Or, Xor
from graphc.ops.norm import BatchNorm
from graphc.ops.pad import Pad, Pads
from graphc.ops.pool_layer import AvgPoolLayer, GlobalAvgPool, MaxPoolLayer
from graphc.ops.reduce import Max, Mean, Min
from graphc.ops.rounding import RoundBfloat16
from graphc.ops.row_norm import GroupNorm, LayerNorm
from graphc.ops.scatter import GatherElements, ScatterElements
from graphc.ops.select import Clip
from graphc.ops.shape import Cast, Reshape, Transpose
from graphc.ops.slicing import Concat, Slice
from graphc.ops.sorting import TopK
from graphc.ops.sums import BroadcastTo, Reduction, Sum


def _pads(pairs: Pads) -> list[int]:
    """Return all paddings before, then all paddings after."""
    return [pair[side] for side in (0, 1) for pair in pairs]


def _conv(
    w: Writer, op: ConvLayer | ConvTransposeLayer, ins: Sequence[str], out: str, **more: Any
) -> str:
    name = "ConvTranspose" if isinstance(op, ConvTransposeLayer) else "Conv"
    how = _windows(w.types[ins[1]].shape[2:], op.stride, op.padding, dilations=list(op.dilation))
    return w.emit(name, ins, out, group=op.groups, **how, **more)


def _windows(kernel: Sequence[Any], stride: Sequence[int], pads: Pads, **more: Any) -> Any:
    """Return the attributes of windows."""
    how = {"kernel_shape": list(kernel), "strides": list(stride), "pads": _pads(pads)}
    return {**how, **more}


def _avg_pool(w: Writer, op: AvgPoolLayer, ins: Sequence[str], out: str) -> str | None:
    """Write AveragePool without dilation, which ONNX's windows do not have before opset 19."""
    if set(op.dilation) != {1}:
        return None
    return _pool(w, op, ins, out, "AveragePool", count_include_pad=int(op.count_include_pad))


def _pool(
    w: Writer, op: MaxPoolLayer | AvgPoolLayer, ins: Sequence[str], out: str, name: str, **more: Any
) -> str | None:
    found = _matching_padding(w, op, ins)
    if found is None:
        return None
    padding, ceil = found
    how = _windows(op.kernel, op.stride, padding, ceil_mode=int(ceil))
    return w.emit(name, ins, out, **how, **more)


def _matching_padding(
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
    return w.emit("Pad", [*ins, w.ints(_pads(op.pads)), _scalar_like(w, ins[0], op.value)], out)


def _clip(w: Writer, op: Clip, ins: Sequence[str], out: str) -> str:
    low = _scalar_like(w, ins[0], op.low) if op.low > -inf else ""
    high = _scalar_like(w, ins[0], op.high) if op.high < inf else ""
    return w.emit("Clip", [*ins, low, high], out)


def _logic(w: Writer, op: And | Or | Xor | Not, ins: Sequence[str], out: str) -> str:
    """Write a logical op on bools, or a bitwise one on integers."""
    bits = "" if w.types[ins[0]].dtype == "bool" else "Bitwise"
    return w.emit(bits + type(op).__name__, ins, out)


def _divided(w: Writer, ins: Sequence[str], name: str, out: str, **how: Any) -> str | None:
    """Write a division, unless integers may be divided by 0, which ONNX's runtimes refuse."""
    numbers = w.constants.get(ins[1])
    if not w.types[ins[0]].is_float and (numbers is None or not numbers.all()):
        return None
    return w.emit(name, ins, out, **how)


def _scalar_like(w: Writer, x: str, number: float) -> str:
    """Write a number in the dtype of x."""
    return w.constant(number, w.types[x].dtype)


def _reduction(name: str) -> Emit:
    def emit(w: Writer, op: Reduction, ins: Sequence[str], out: str) -> str:
        noop = None if op.axes else 1
        axes = w.ints(op.axes)
        return w.emit(name, [*ins, axes], out, keepdims=int(op.keepdims), noop_with_empty_axes=noop)

    return emit


def _gather(w: Writer, op: Gather, ins: Sequence[str], out: str) -> str | None:
    """Write the axis counted from the front: some of ONNX's tools take no negative ones here."""
    rank = w.types[ins[0]].rank
    if op.axis == 0 and rank == 2:
        return None  # this is the node that an embedding is written as
    return w.emit("Gather", ins, out, axis=op.axis % rank)


def _scatter(w: Writer, op: ScatterElements, ins: Sequence[str], out: str) -> str:
    axis = op.axis % w.types[ins[0]].rank
    return w.emit("ScatterElements", ins, out, axis=axis, reduction=op.reduction)


def _embedding(w: Writer, op: Op, ins: Sequence[str], out: str) -> str:
    roles = dict(zip(op.roles, ins, strict=True))
    return w.emit("Gather", [roles["weight"], roles["ids"]], out)


def _cumsum(w: Writer, op: Cumsum, ins: Sequence[str], out: str) -> str:
    how = {"exclusive": int(op.exclusive), "reverse": int(op.reverse)}
    return w.emit("CumSum", [*ins, w.constant(op.axis, "int64")], out, **how)  # type: ignore[arg-type]


def _top_k(w: Writer, op: TopK, ins: Sequence[str], out: str) -> str:
    """Write the indices of the top k; another node gathers their values."""
    names = [w.fresh_name("values"), out]
    return w.emit("TopK", [*ins, w.ints([op.k])], names, axis=op.axis, largest=int(op.largest))


def _round_bfloat16(w: Writer, op: RoundBfloat16, ins: Sequence[str], out: str) -> str:
    if w.dtypes[ins[0]] != "bfloat16":
        ins = [w.emit("Cast", ins, to=TensorProto.BFLOAT16)]
    return w.emit("Cast", ins, out, to=TensorProto.FLOAT)


def _one_hot(w: Writer, op: OneHot, ins: Sequence[str], out: str) -> str | None:
    """Write OneHot for the only dtypes that every runtime supports."""
    standard = (w.types[ins[0]].dtype, op.dtype) == ("int64", "float32")
    if not standard or not isinstance(op.depth, int):
        return None
    return w.emit(
        "OneHot", [*ins, w.constant(op.depth, "int64"), w.constant([0, 1], op.dtype)], out
    )


def _slice(w: Writer, op: Slice, ins: Sequence[str], out: str) -> str | None:
    if any(isinstance(end, Batch) for cut in op.cuts for end in cut):
        return None
    axes, starts, stops, steps = (list(part) for part in zip(*op.cuts, strict=True))
    # With a negative step, a stop of -1 is before the first entry; ONNX counts it from the end.
    stops = [-(2**31) if stop == -1 else stop for stop in stops]
    places = [w.ints(part) for part in (starts, stops, axes, steps)]
    return w.emit("Slice", [*ins, *places], out)


def _affine(w: Writer, op: AffineLayer, ins: Sequence[str], out: str) -> str | None:
    """Write Gemm, after Flatten unless a sample is a vector."""
    rank = w.types[ins[0]].rank
    if len(ins) != 3 or op.last_axis:
        return None
    x = ins[0] if rank == 2 else w.emit("Flatten", [ins[0]], axis=1)
    return w.emit("Gemm", [x, *ins[1:]], out)


def _batchnorm(w: Writer, op: BatchNorm, ins: Sequence[str], out: str) -> str | None:
    if op.frozen:  # ONNX cannot express that it stays frozen in training
        return None
    how: dict[str, Any] = {"epsilon": op.eps, "momentum": op.running_decay}
    if w.train:
        w.updated.extend(ins[3:])
        outs = [out, *map(next_of, ins[3:])]
        return w.emit("BatchNormalization", ins, outs, training_mode=1, **how)
    return w.emit("BatchNormalization", ins, out, **how)


def _dropout(w: Writer, op: Dropout, ins: Sequence[str], out: str) -> str:
    ratio = w.constant(1 - op.keep_prob, "float32")
    return w.emit("Dropout", [ins[0], ratio, w.constant(w.train, "bool")], out)


def _softmax_loss(w: Writer, op: Op, ins: Sequence[str], out: str) -> str | None:
    how = attributes(op)
    reduction = how.pop("reduction")
    if len(ins) != 2 or any(how.values()):
        return None
    return w.emit("SoftmaxCrossEntropyLoss", ins, out, reduction=reduction)


ONE_TO_ONE: dict[type[Op], tuple[str, dict[str, str]]] = {
    **{op: (op.onnx, {}) for op in OPS.values() if op.onnx},
    Celu: ("Celu", {"alpha": "alpha"}),
    Elu: ("Elu", {"alpha": "alpha"}),
    GlobalAvgPool: ("GlobalAveragePool", {}),
    LeakyRelu: ("LeakyRelu", {"alpha": "slope"}),
    Shrink: ("Shrink", {"lambd": "threshold", "bias": "bias"}),
    ThresholdedRelu: ("ThresholdedRelu", {"alpha": "alpha"}),
}
"""The ONNX op that an op is, and its field for each ONNX attribute; import and export read it."""

STANDARD: dict[type[Op], Emit] = {
    **{op: node(name, **fields) for op, (name, fields) in ONE_TO_ONE.items()},
    **dict.fromkeys((And, Or, Xor, Not), _logic),
    Softmax: node("Softmax", axis="axis"),
    LogSoftmax: node("LogSoftmax", axis="axis"),
    Concat: node("Concat", axis="axis"),
    HardSigmoid: node("HardSigmoid", alpha=1 / 6, beta=0.5),
    LayerNorm: node("LayerNormalization", axis=-1, epsilon="eps"),
    Argmax: node("ArgMax", axis="axis", keepdims=0),
    Argmin: node("ArgMin", axis="axis", keepdims=0),
    Sum: _reduction("ReduceSum"),
    Mean: _reduction("ReduceMean"),
    Max: _reduction("ReduceMax"),
    Min: _reduction("ReduceMin"),
    Power: lambda w, op, ins, out: w.emit("Pow", [*ins, _scalar_like(w, ins[0], op.exponent)], out),
    Clip: _clip,
    TruncDiv: lambda w, op, ins, out: _divided(w, ins, "Div", out),
    # ONNX has no remainder of floats with the sign of the divisor.
    Mod: lambda w, op, ins, out: (
        None if w.types[ins[0]].is_float else _divided(w, ins, "Mod", out, fmod=0)
    ),
    Fmod: lambda w, op, ins, out: _divided(w, ins, "Mod", out, fmod=1),
    Celu: lambda w, op, ins, out: (
        w.emit("Celu", ins, out, alpha=op.alpha) if w.types[ins[0]].dtype == "float32" else None
    ),
    # ONNX broadcasts slopes from the last axis, so only those of a matrix fit.
    PRelu: lambda w, op, ins, out: w.emit("PRelu", ins, out) if w.types[ins[0]].rank == 2 else None,
    Gather: _gather,
    GatherElements: lambda w, op, ins, out: w.emit(
        "GatherElements", ins, out, axis=op.axis % w.types[ins[0]].rank
    ),
    ScatterElements: _scatter,
    Embedding: _embedding,
    Cumsum: _cumsum,
    TopK: _top_k,
    OneHot: _one_hot,
    Reshape: lambda w, op, ins, out: w.reshape(ins[0], op.shape, out),
    Transpose: lambda w, op, ins, out: w.emit("Transpose", ins, out, perm=list(op.axes) or None),
    Slice: _slice,
    RoundBfloat16: _round_bfloat16,
    Cast: lambda w, op, ins, out: w.emit("Cast", ins, out, to=onnx_dtype(op.dtype)),
    BroadcastTo: lambda w, op, ins, out: w.emit("Expand", [*ins, w.dims(op.shape)], out),
    MatMul: lambda w, op, ins, out: (
        w.emit("MatMul", ins, out) if op == MatMul() and w.types[ins[0]].is_float else None
    ),
    AffineLayer: _affine,
    BatchNorm: _batchnorm,
    Dropout: _dropout,
    OPS["layer softmax_loss"]: _softmax_loss,
    ConvLayer: _conv,
    ConvTransposeLayer: lambda w, op, ins, out: _conv(
        w, op, ins, out, output_padding=list(op.more)
    ),
    MaxPoolLayer: lambda w, op, ins, out: _pool(
        w, op, ins, out, "MaxPool", dilations=list(op.dilation)
    ),
    AvgPoolLayer: _avg_pool,
    GroupNorm: _groupnorm,
    Pad: _pad,
}
"""The writers by graphc's op.  Reading such a node gives the op back."""
