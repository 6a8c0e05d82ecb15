"""Writers of the ops that ONNX has, too: each becomes one node and its constants."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np
from onnx import helper

from graphc.ir.op import Op, attributes
from graphc.ir.tensor_type import Batch
from graphc.onnx.export.windows import WINDOWS
from graphc.onnx.export.writer import Emit, Writer, next_of, node
from graphc.ops import OPS
from graphc.ops.activations import (
    Celu,
    Elu,
    HardSigmoid,
    LeakyRelu,
    PRelu,
    Shrink,
    ThresholdedRelu,
)
from graphc.ops.cumulative import Cumsum
from graphc.ops.dropout import Dropout
from graphc.ops.elementwise import Power
from graphc.ops.functions import (
    LogSoftmax,
    Softmax,
)
from graphc.ops.gather import Embedding, Gather
from graphc.ops.index import Argmax, Argmin, OneHot, TopK
from graphc.ops.linalg import AffineLayer, MatMul
from graphc.ops.logic import And, Not, Or, Xor
from graphc.ops.norm import BatchNorm
from graphc.ops.reduce import BroadcastTo, Max, Mean, Min, Reduction, Sum
from graphc.ops.rounding import Fmod, Mod, TruncDiv
from graphc.ops.row_norm import LayerNorm
from graphc.ops.scatter import GatherElements, ScatterElements
from graphc.ops.select import (
    Clip,
)
from graphc.ops.shape import Cast, Reshape, Transpose
from graphc.ops.slicing import Concat, Slice


def _power(w: Writer, op: Power, ins: Sequence[str], out: str) -> str:
    return w.emit("Pow", [*ins, w.constant(op.exponent, w.types[ins[0]].dtype)], out)


def _clip(w: Writer, op: Clip, ins: Sequence[str], out: str) -> str:
    dtype = w.types[ins[0]].dtype
    low = w.constant(op.low, dtype) if op.low > -inf else ""
    high = w.constant(op.high, dtype) if op.high < inf else ""
    return w.emit("Clip", [*ins, low, high], out)


def _logic(w: Writer, op: And | Or | Xor | Not, ins: Sequence[str], out: str) -> str:
    """Write a logical op on bools, or a bitwise one on integers."""
    bits = "" if w.types[ins[0]].dtype == "bool" else "Bitwise"
    return w.emit(bits + type(op).__name__, ins, out)


def _trunc_div(w: Writer, op: TruncDiv, ins: Sequence[str], out: str) -> str | None:
    return None if _may_be_zero(w, ins[1]) else w.emit("Div", ins, out)


def _may_be_zero(w: Writer, divisor: str) -> bool:
    """Return whether an integer divisor may be 0; ONNX's runtimes refuse to divide by 0."""
    numbers = w.constants.get(divisor)
    return numbers is None or not bool(numbers.all())


def _mod(w: Writer, op: Mod, ins: Sequence[str], out: str) -> str | None:
    """Write the remainder of integers with the sign of the divisor; ONNX has none for floats."""
    if w.types[ins[0]].is_float or _may_be_zero(w, ins[1]):
        return None
    return w.emit("Mod", ins, out, fmod=0)


def _fmod(w: Writer, op: Fmod, ins: Sequence[str], out: str) -> str | None:
    if not w.types[ins[0]].is_float and _may_be_zero(w, ins[1]):
        return None
    return w.emit("Mod", ins, out, fmod=1)


def _celu(w: Writer, op: Celu, ins: Sequence[str], out: str) -> str | None:
    return w.emit("Celu", ins, out, alpha=op.alpha) if w.types[ins[0]].dtype == "float32" else None


def _prelu(w: Writer, op: PRelu, ins: Sequence[str], out: str) -> str | None:
    """Write PRelu of a matrix; ONNX broadcasts slopes from the last axis, so others do not fit."""
    return w.emit("PRelu", ins, out) if w.types[ins[0]].rank == 2 else None


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


def _gather_elements(w: Writer, op: GatherElements, ins: Sequence[str], out: str) -> str:
    return w.emit("GatherElements", ins, out, axis=op.axis % w.types[ins[0]].rank)


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
    names = [w.fresh("values"), out]
    return w.emit("TopK", [*ins, w.ints([op.k])], names, axis=op.axis, largest=int(op.largest))


def _one_hot(w: Writer, op: OneHot, ins: Sequence[str], out: str) -> str | None:
    """Write OneHot for the only dtypes that every runtime supports."""
    if (w.types[ins[0]].dtype, op.dtype) != ("int64", "float32"):
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


def _cast(w: Writer, op: Cast, ins: Sequence[str], out: str) -> str:
    return w.emit("Cast", ins, out, to=helper.np_dtype_to_tensor_dtype(np.dtype(op.dtype)))


def _broadcast_to(w: Writer, op: BroadcastTo, ins: Sequence[str], out: str) -> str:
    return w.emit("Expand", [*ins, w.dims(op.shape)], out)


def _matmul(w: Writer, op: MatMul, ins: Sequence[str], out: str) -> str | None:
    if op.trans_a or op.trans_b:
        return None
    return w.emit("MatMul", ins, out)


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
        w.moved.extend(ins[3:])
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


STANDARD: dict[type[Op], Emit] = {
    **{op: node(op.onnx) for op in OPS.values() if op.onnx},
    **dict.fromkeys((And, Or, Xor, Not), _logic),
    Elu: node("Elu", alpha="alpha"),
    ThresholdedRelu: node("ThresholdedRelu", alpha="alpha"),
    LeakyRelu: node("LeakyRelu", alpha="slope"),
    Shrink: node("Shrink", lambd="threshold", bias="bias"),
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
    Power: _power,
    Clip: _clip,
    TruncDiv: _trunc_div,
    Mod: _mod,
    Fmod: _fmod,
    Celu: _celu,
    PRelu: _prelu,
    Gather: _gather,
    GatherElements: _gather_elements,
    ScatterElements: _scatter,
    Embedding: _embedding,
    Cumsum: _cumsum,
    TopK: _top_k,
    OneHot: _one_hot,
    Reshape: lambda w, op, ins, out: w.reshape(ins[0], op.shape, out),
    Transpose: lambda w, op, ins, out: w.emit("Transpose", ins, out, perm=list(op.axes) or None),
    Slice: _slice,
    Cast: _cast,
    BroadcastTo: _broadcast_to,
    MatMul: _matmul,
    AffineLayer: _affine,
    BatchNorm: _batchnorm,
    Dropout: _dropout,
    OPS["layer softmax_loss"]: _softmax_loss,
    **WINDOWS,
}
"""The writers by graphc's op.  Reading such a node gives the op back."""
