"""Writers of the ops that ONNX has, too: each becomes one node and its constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import helper

from graphc.ir.op import Op, attributes
from graphc.ir.tensor_type import Batch
from graphc.onnx.export.elements import ELEMENTS, Emit
from graphc.onnx.export.windows import WINDOWS
from graphc.onnx.export.writer import Writer, next_of
from graphc.ops import OPS
from graphc.ops.affine import Affine, AffineLayer
from graphc.ops.concat import Concat
from graphc.ops.cumulative import Cumsum
from graphc.ops.dropout import Dropout
from graphc.ops.embedding import Embedding
from graphc.ops.functions import LogSoftmax, Softmax
from graphc.ops.gather import Gather
from graphc.ops.index import Argmax, Argmin, OneHot
from graphc.ops.linalg import MatMul
from graphc.ops.norm import BatchNorm
from graphc.ops.order import TopK
from graphc.ops.reduce import BroadcastTo, Max, Mean, Min, Reduction, Sum
from graphc.ops.row_norm import LayerNorm
from graphc.ops.scatter import GatherElements, ScatterElements
from graphc.ops.shape import Cast, Reshape, Transpose
from graphc.ops.slicing import Slice


def _reduction(name: str) -> Emit:
    def emit(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
        assert isinstance(op, Reduction)
        noop = None if op.axes else 1
        axes = w.ints(op.axes)
        w.emit(name, [*ins, axes], out, keepdims=int(op.keepdims), noop_with_empty_axes=noop)
        return True

    return emit


def _along(name: str) -> Emit:
    def emit(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
        assert isinstance(op, (Softmax, LogSoftmax))
        w.emit(name, ins, out, axis=op.axis)
        return True

    return emit


def _arg(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, (Argmax, Argmin))
    w.emit(f"Arg{op.name[3:].capitalize()}", ins, out, axis=op.axis, keepdims=0)
    return True


def _gather(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write the axis counted from the front: some of ONNX's tools take no negative ones here."""
    assert isinstance(op, (Gather, GatherElements))
    if isinstance(op, Gather) and op.axis == 0 and w.types[ins[0]].rank == 2:
        return False  # this is the node that an embedding is written as
    w.emit(type(op).__name__, ins, out, axis=op.axis % w.types[ins[0]].rank)
    return True


def _scatter(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, ScatterElements)
    axis = op.axis % w.types[ins[0]].rank
    w.emit("ScatterElements", ins, out, axis=axis, reduction=op.reduction)
    return True


def _embedding(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    roles = dict(zip(op.roles, ins, strict=True))
    w.emit("Gather", [roles["weight"], roles["ids"]], out)
    return True


def _cumsum(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Cumsum)
    how = {"exclusive": int(op.exclusive), "reverse": int(op.reverse)}
    w.emit("CumSum", [*ins, w.constant(op.axis, "int64")], out, **how)  # type: ignore[arg-type]
    return True


def _top_k(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write the indices of the top k; another node gathers their values."""
    assert isinstance(op, TopK)
    names = [w.fresh("values"), out]
    w.emit("TopK", [*ins, w.ints([op.k])], names, axis=op.axis, largest=int(op.largest))
    return True


def _one_hot(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write OneHot for the only dtypes that every runtime supports."""
    assert isinstance(op, OneHot)
    if (w.types[ins[0]].dtype, op.dtype) != ("int64", "float32"):
        return False
    w.emit("OneHot", [*ins, w.constant(op.depth, "int64"), w.constant([0, 1], op.dtype)], out)
    return True


def _reshape(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Reshape)
    w.reshape(ins[0], op.shape, out)
    return True


def _transpose(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Transpose)
    w.emit("Transpose", ins, out, perm=list(op.axes) or None)
    return True


def _concat(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Concat)
    w.emit("Concat", ins, out, axis=op.axis)
    return True


def _slice(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Slice)
    if any(isinstance(end, Batch) for cut in op.cuts for end in cut):
        return False
    axes, starts, stops, steps = (list(part) for part in zip(*op.cuts, strict=True))
    # With a negative step, a stop of -1 is before the first entry; ONNX counts it from the end.
    stops = [-(2**31) if stop == -1 else stop for stop in stops]
    places = [w.ints(part) for part in (starts, stops, axes, steps)]
    w.emit("Slice", [*ins, *places], out)
    return True


def _cast(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Cast)
    w.emit("Cast", ins, out, to=helper.np_dtype_to_tensor_dtype(np.dtype(op.dtype)))
    return True


def _broadcast_to(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, BroadcastTo)
    w.emit("Expand", [*ins, w.dims(op.shape)], out)
    return True


def _matmul(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, MatMul)
    if op.trans_a or op.trans_b:
        return False
    w.emit("MatMul", ins, out)
    return True


def _affine_op(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    w.emit("Gemm", ins, out)
    return True


def _affine(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write Gemm, after Flatten unless a sample is a vector."""
    assert isinstance(op, AffineLayer)
    rank = w.types[ins[0]].rank
    if len(ins) != 3 or op.last_axis:
        return False
    x = ins[0] if rank == 2 else w.emit("Flatten", [ins[0]], axis=1)
    w.emit("Gemm", [x, *ins[1:]], out)
    return True


def _batchnorm(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, BatchNorm)
    if op.frozen:  # ONNX cannot express that it stays frozen in training
        return False
    how: dict[str, Any] = {"epsilon": op.eps, "momentum": op.running_decay}
    if w.train:
        outs = [out, *map(next_of, ins[3:])]
        w.emit("BatchNormalization", ins, outs, training_mode=1, **how)
        w.moved.extend(ins[3:])
    else:
        w.emit("BatchNormalization", ins, out, **how)
    return True


def _layernorm(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, LayerNorm)
    w.emit("LayerNormalization", ins, out, axis=-1, epsilon=op.eps)
    return True


def _dropout(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Dropout)
    ratio = w.constant(1 - op.keep_prob, "float32")
    w.emit("Dropout", [ins[0], ratio, w.constant(w.train, "bool")], out)
    return True


def _softmax_loss(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    how = attributes(op)
    reduction = how.pop("reduction")
    if len(ins) != 2 or any(how.values()):
        return False
    w.emit("SoftmaxCrossEntropyLoss", ins, out, reduction=reduction)
    return True


STANDARD: dict[type[Op], Emit] = {
    **ELEMENTS,
    Sum: _reduction("ReduceSum"),
    Mean: _reduction("ReduceMean"),
    Max: _reduction("ReduceMax"),
    Softmax: _along("Softmax"),
    LogSoftmax: _along("LogSoftmax"),
    Min: _reduction("ReduceMin"),
    **dict.fromkeys((Argmax, Argmin), _arg),
    **dict.fromkeys((Gather, GatherElements), _gather),
    ScatterElements: _scatter,
    Embedding: _embedding,
    Cumsum: _cumsum,
    TopK: _top_k,
    OneHot: _one_hot,
    Reshape: _reshape,
    Transpose: _transpose,
    Concat: _concat,
    Slice: _slice,
    Cast: _cast,
    BroadcastTo: _broadcast_to,
    MatMul: _matmul,
    Affine: _affine_op,
    AffineLayer: _affine,
    BatchNorm: _batchnorm,
    LayerNorm: _layernorm,
    Dropout: _dropout,
    OPS["layer softmax_loss"]: _softmax_loss,
    **WINDOWS,
}
"""The writers by graphc's op.  Reading such a node gives the op back."""
