"""Bodies of ONNX functions for graphc's ops that ONNX does not have.

Other layers need no body here: theirs is the graph that they expand to.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from graphc.ir.op import Op, attributes
from graphc.ir.tensor_type import Dim
from graphc.onnx.export import Emit, Writer, node, onnx_dtype
from graphc.ops.arithmetic import Quantize
from graphc.ops.diagonals import Band
from graphc.ops.index import OneHot
from graphc.ops.index_tuples import FlatIndex
from graphc.ops.linalg import MatMul
from graphc.ops.norm import Normalize
from graphc.ops.pool import SumPool
from graphc.ops.random_numbers import Noise
from graphc.ops.slicing import Slice


def _transposed(w: Writer, x: str, transpose: bool) -> str:
    if not transpose:
        return x
    rank = w.types[x].rank
    return w.emit("Transpose", [x], perm=[*range(rank - 2), rank - 1, rank - 2])


def _matmul(w: Writer, op: MatMul, ins: Sequence[str], out: str) -> str:
    sides = [_transposed(w, ins[0], op.trans_a), _transposed(w, ins[1], op.trans_b)]
    return w.emit("MatMulInteger" if w.types[ins[0]].dtype == "int8" else "MatMul", sides, out)


def _quantize(w: Writer, op: Quantize, ins: Sequence[str], out: str) -> str:
    dtype = w.types[ins[0]].dtype
    steps = w.emit("Round", [w.emit("Mul", [ins[0], w.constant(1 / op.step, dtype)])])
    ends = (w.constant(end, dtype) for end in (-127, 127))
    return w.emit("Cast", [w.emit("Clip", [steps, *ends])], out, to=onnx_dtype("int8"))


def _pick(w: Writer, scores: str, labels: str, out: str | None = None) -> str:
    """Write the number at each row's label."""
    places = w.emit("Unsqueeze", [w.emit("Cast", [labels], to=_INT64), w.ints([1])])
    column = w.emit("GatherElements", [scores, places], axis=1)
    return w.emit("Squeeze", [column, w.ints([1])], out)


_INT64, _BOOL = 7, 9
"""ONNX's codes of these two dtypes."""


def _causal_softmax(w: Writer, op: SumPool, ins: Sequence[str], out: str) -> str:
    """Write a softmax of each row over the entries up to the diagonal."""
    (x,) = ins
    ones = w.emit("Cast", [w.emit("Equal", [x, x])], to=_INT64)
    later = w.emit("Cast", [w.emit("Trilu", [ones, w.constant(1, "int64")], upper=1)], to=_BOOL)
    masked = w.emit("Where", [later, w.constant(-np.inf, w.types[x].dtype), x])
    return w.emit("Softmax", [masked], out, axis=-1)


def _is_class(w: Writer, labels: str, classes: Dim) -> str:
    """Write whether each label is the class of the column."""
    column = w.emit("Unsqueeze", [w.emit("Cast", [labels], to=_INT64), w.ints([-1])])
    return w.emit("Equal", [column, w.numbers(classes)])


def _one_hot(w: Writer, op: OneHot, ins: Sequence[str], out: str) -> str:
    return w.emit("Cast", [_is_class(w, ins[0], op.depth)], out, to=onnx_dtype(op.dtype))


def _band(w: Writer, op: Band, ins: Sequence[str], out: str) -> str:
    """Write whether each place of a matrix is between two diagonals."""
    *lead, rows, columns = w.types[ins[0]].shape
    row = w.emit("Unsqueeze", [w.numbers(rows), w.ints([1])])
    beyond = w.emit("Sub", [w.numbers(columns), row])
    kinds = ("GreaterOrEqual", op.first), ("LessOrEqual", op.last)
    limits = [(kind, w.constant(at, "int64")) for kind, at in kinds if at is not None]
    found = [w.emit(kind, [beyond, at]) for kind, at in limits]
    found = found or [w.emit("Equal", [beyond, beyond])]
    inside = found[0] if len(found) == 1 else w.emit("And", found)
    return w.emit("Expand", [inside, w.dims((*lead, rows, columns))], out)


def _svm_rows(w: Writer, op: Op, ins: Sequence[str], out: str) -> str:
    """Write the sum over all classes' margins, without that of the label itself."""
    scores, labels = ins
    type = w.types[scores]
    classes = type.shape[1]
    own = w.emit("Unsqueeze", [_pick(w, scores, labels), w.ints([1])])
    above = w.emit("Add", [w.emit("Sub", [scores, own]), w.constant(1, type.dtype)])
    zero = w.constant(0, type.dtype)
    margins = w.emit("Where", [_is_class(w, labels, classes), zero, w.emit("Relu", [above])])
    return w.emit("ReduceSum", [margins, w.ints([1])], out, keepdims=0)


def _label_hit(w: Writer, op: Op, ins: Sequence[str], out: str) -> str:
    """Write whether a label is the class of the column; never for the ignored class."""
    how, none = attributes(op), np.iinfo(np.int64).min
    if isinstance(how["classes"], int):
        numbers = np.arange(how["classes"])
        numbers[numbers == how["ignore"]] = none
        classes = w.constant(numbers, "int64")
    else:
        classes = w.numbers(how["classes"])
        if how["ignore"] is not None:
            ignored = w.emit("Equal", [classes, w.constant(how["ignore"], "int64")])
            classes = w.emit("Where", [ignored, w.constant(none, "int64"), classes])
    labels = w.emit("Unsqueeze", [w.emit("Cast", ins, to=_INT64), w.ints([1])])
    return w.emit("Equal", [labels, classes], out)


def _sum_pool(w: Writer, op: SumPool, ins: Sequence[str], out: str) -> str:
    """Write sums over windows of channels-last images: one slice per pixel, all added."""
    type = w.types[ins[0]]
    counts = [size for size in op.result(type).shape[1:-1] if isinstance(size, int)]
    axes, steps = w.ints(range(1, type.rank - 1)), w.ints(op.stride)
    pixels = []
    for places in np.ndindex(*op.kernel):
        first = [place * apart for place, apart in zip(places, op.dilation, strict=True)]
        spans = [step * (count - 1) for step, count in zip(op.stride, counts, strict=True)]
        end = [start + span + 1 for start, span in zip(first, spans, strict=True)]
        pixels.append(w.emit("Slice", [ins[0], w.ints(first), w.ints(end), axes, steps]))
    return w.emit("Sum", pixels, out)


def _normalize(w: Writer, op: Normalize, ins: Sequence[str], out: str) -> str:
    x, mean, var, gamma, beta = ins
    return w.emit("BatchNormalization", [x, gamma, beta, mean, var], out, epsilon=op.eps)


def _slice(w: Writer, op: Slice, ins: Sequence[str], out: str) -> str:
    """Write a slice whose ends are multiples of the batch."""
    axes = w.ints([cut[0] for cut in op.cuts])
    steps = w.ints([cut[3] for cut in op.cuts])
    starts, stops = (w.dims(tuple(cut[i] for cut in op.cuts)) for i in (1, 2))
    return w.emit("Slice", [*ins, starts, stops, axes, steps], out)


def _flat_index(w: Writer, op: FlatIndex, ins: Sequence[str], out: str) -> str:
    """Write indices along the last axis as one flat index into all elements."""
    indices = w.emit("Cast", ins, to=_INT64)
    strides = [prod(op.sizes[i + 1 :]) for i in range(len(op.sizes))]
    places = w.emit("Mul", [indices, w.constant(strides, "int64")])
    return w.emit("ReduceSum", [places, w.ints([-1])], out, keepdims=0)


def _floor_div(w: Writer, op: Op, ins: Sequence[str], out: str) -> str:
    """Write a / b rounded down; integers subtract the remainder, which has the sign of b, first."""
    if w.types[ins[0]].is_float:
        return w.emit("Floor", [w.emit("Div", ins)], out)
    safe = _safe(w, ins[1])
    rest = w.emit("Mod", [ins[0], safe])
    return _or_zero(w, w.emit("Div", [w.emit("Sub", [ins[0], rest]), safe]), ins[1], out)


def _mod(w: Writer, op: Op, ins: Sequence[str], out: str) -> str:
    if not w.types[ins[0]].is_float:
        return w.emit("Mod", [ins[0], _safe(w, ins[1])], out)
    floored = w.emit("Floor", [w.emit("Div", ins)])
    return w.emit("Sub", [ins[0], w.emit("Mul", [floored, ins[1]])], out)


def _safe(w: Writer, divisor: str) -> str:
    """Write integers with each 0 replaced by 1, since runtimes refuse to divide by 0."""
    return w.emit("Where", [_zeros(w, divisor), _one(w, divisor), divisor])


def _or_zero(w: Writer, quotient: str, divisor: str, out: str) -> str:
    """Write 0 where the divisor is 0, and the quotient at all other elements."""
    zero = w.constant(0, w.types[divisor].dtype)
    return w.emit("Where", [_zeros(w, divisor), zero, quotient], out)


def _one(w: Writer, x: str) -> str:
    """Write a constant 1 in the dtype of x; return its name."""
    return w.constant(1, w.types[x].dtype)


def _zeros(w: Writer, numbers: str) -> str:
    return w.emit("Equal", [numbers, w.constant(0, w.types[numbers].dtype)])


def _noise(w: Writer, op: Noise, ins: Sequence[str], out: str) -> str:
    """Write the mean of random numbers or, in training, numbers that each runtime draws."""
    mean = w.constant(op.drawn.mean, op.dtype)
    means = w.emit("Expand", [mean, w.dims(op.shape)], None if w.train else out)
    return w.emit(f"Random{op.kind.capitalize()}Like", [means], out) if w.train else means


BODIES: dict[str, Emit] = {
    "not_equal": lambda w, op, ins, out: w.emit("Not", [w.emit("Equal", ins)], out),
    "stop_gradient": node("Identity"),
    "matmul": _matmul,
    "quantize": _quantize,
    "gather": node("Gather", axis="axis"),
    "one_hot": _one_hot,
    "pick": lambda w, op, ins, out: _pick(w, ins[0], ins[1], out),
    "softmax_rows": lambda w, op, ins, out: w.emit(
        "Neg", [_pick(w, w.emit("LogSoftmax", [ins[0]], axis=1), ins[1])], out
    ),
    "svm_rows": _svm_rows,
    "label_hit": _label_hit,
    "band": _band,
    "causal_softmax": _causal_softmax,
    "normalize": _normalize,
    "sum_pool": _sum_pool,
    "slice": _slice,
    "flat_index": _flat_index,
    "floor_div": _floor_div,
    "trunc_div": lambda w, op, ins, out: _or_zero(
        w, w.emit("Div", [ins[0], _safe(w, ins[1])]), ins[1], out
    ),
    "mod": _mod,
    "fmod": lambda w, op, ins, out: w.emit("Mod", [ins[0], _safe(w, ins[1])], out, fmod=1),
    "layer noise": _noise,
    "log1p": lambda w, op, ins, out: w.emit("Log", [w.emit("Add", [ins[0], _one(w, ins[0])])], out),
    "expm1": lambda w, op, ins, out: w.emit("Sub", [w.emit("Exp", ins), _one(w, ins[0])], out),
}
"""The bodies by the word of graphc's op in texts."""
