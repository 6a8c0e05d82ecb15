"""Examples of every op, in float64 and in float32."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from graphc.ir.op import Op, attributes
from graphc.ir.tensor_type import FLOATS, N, Shape, TensorType
from graphc.ops.activations import (
    Celu,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mish,
    PRelu,
    Selu,
    Shrink,
    Silu,
    Softsign,
    ThresholdedRelu,
)
from graphc.ops.argmax import Argmax, Argmin
from graphc.ops.arithmetic import (
    Ceil,
    Floor,
    FloorDiv,
    Fmod,
    Mod,
    Pow,
    Quantize,
    Round,
    TruncDiv,
)
from graphc.ops.attention import CausalSoftmax
from graphc.ops.conv import Conv, ConvDw, ConvDx
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.cumulative import Cumsum
from graphc.ops.diagonals import Band
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power, Sub
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.functions import (
    Abs,
    Erf,
    Exp,
    Expm1,
    Log,
    Log1p,
    LogSoftmax,
    Sigmoid,
    Sign,
    Softmax,
    Softplus,
    Sqrt,
    Tanh,
)
from graphc.ops.fused import AffineRelu, After, MatMulReluGrad
from graphc.ops.fused_norm import NormalizeDgamma, NormalizeDx
from graphc.ops.gather import Embedding, Gather, GatherGrad
from graphc.ops.index import OneHot, Pick
from graphc.ops.index_tuples import FlatIndex
from graphc.ops.linalg import Affine, AffineLayer, MatMul
from graphc.ops.logic import And, Not, Or, Xor
from graphc.ops.loops.lengths import WithinLengths
from graphc.ops.losses.classes import NllLoss, SoftmaxLoss, SoftNllLoss, SvmLoss, WeightedNllLoss
from graphc.ops.losses.elements import (
    HingeLoss,
    HuberLoss,
    LogCoshLoss,
    MaeLoss,
    MseLoss,
    PoissonLoss,
    SigmoidLoss,
)
from graphc.ops.losses.labels import LabelHit, SoftmaxRows, SoftmaxRowsGrad, SvmRows, SvmRowsGrad
from graphc.ops.losses.rows import CosineLoss, KlLoss
from graphc.ops.moments import AdamMean, AdamSquare, AdamStep
from graphc.ops.norm import BatchNorm, BatchNormDgamma, BatchNormDx, BatchNormTrain, Normalize
from graphc.ops.optim import (
    Average,
    Cleared,
    ClipScale,
    Momentum,
    NesterovStep,
    SgdStep,
    SquareSum,
    Track,
)
from graphc.ops.pad import Pad
from graphc.ops.pool import (
    MaxPool,
    MaxPoolGrad,
    MaxPoolIndex,
    MaxPoolPick,
    SumPool,
    SumPoolGrad,
)
from graphc.ops.pool_layer import AvgPoolLayer, GlobalAvgPool, MaxPoolLayer
from graphc.ops.random_numbers import Noise
from graphc.ops.rate import Corrected, CosineRate, NadamMomentum, StepRate, WarmUpRate
from graphc.ops.reduce import Max, Mean, MeanGrad, Min
from graphc.ops.rounding import RoundBfloat16, ToBfloat16
from graphc.ops.row_norm import GroupNorm, LayerNorm, RmsNorm, Standardize
from graphc.ops.scatter import REDUCTIONS, GatherElements, LastWrite, ScatterElements
from graphc.ops.select import (
    Clip,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Maximum,
    Minimum,
    NotEqual,
    Relu,
    ReluGrad,
    Where,
)
from graphc.ops.shape import Cast, Reshape, StopGradient, Transpose
from graphc.ops.slicing import Concat, Slice, SliceGrad
from graphc.ops.sorting import TopK
from graphc.ops.sums import BroadcastTo, Sum
from graphc.ops.trigonometry import Acos, Acosh, Asin, Asinh, Atan, Atanh, Cos, Cosh, Sin, Sinh, Tan
from tests.ops.example import (
    ABOVE,
    BROKEN,
    GRID,
    INSIDE,
    NONZERO,
    POSITIVE,
    SIGNED,
    SMALL,
    Example,
    t,
    whole,
)


def _unary(op: Op, *fill: str) -> Iterator[Example]:
    for type in (t(), t(1), t(N, 3), t(2, N, 7), t(3, 1, 2, 2)):
        yield Example(op, (type,), fill)


PAIRS = (
    (t(), t()),
    (t(N, 3), t(N, 3)),
    (t(N, 3), t(3)),
    (t(3), t(N, 3)),
    (t(N, 1), t(1, 7)),
    (t(N, 3), t()),
    (t(1), t(N, 2, 3)),
    (t(2, 1, 3), t(7, 1)),
)


def _binary(op: Op, *fill: str) -> Iterator[Example]:
    for pair in PAIRS:
        yield Example(op, pair, fill)


def _elementwise() -> Iterator[Example]:
    op: Op
    for op in (Add(), Sub(), Mul(), Maximum(), Minimum()):
        yield from _binary(op)
    yield from _binary(Div(), GRID, POSITIVE)
    for op in (Less(), LessEqual(), Greater(), GreaterEqual(), Equal(), NotEqual()):
        yield from _binary(op, SMALL, SMALL)
    for op in (Neg(), Exp(), Abs(), Sign(), Tanh(), Sigmoid(), Relu(), Clip(-0.5, 0.5)):
        yield from _unary(op)
    for op in (Erf(), Softplus()):
        yield from _unary(op)
    yield from _unary(Clip(-np.inf, 0.5))
    for op in (Log(), Sqrt(), *(Power(e) for e in (-1.0, 0.5, 1.7, -2.5, 3.0))):
        yield from _unary(op, POSITIVE)
    for op in (Power(0.0), Power(1.0), Power(2.0), Power(3.0)):
        yield from _unary(op)
    for type in (t(), t(N, 3), t(2, N, 3)):
        yield Example(ReluGrad(), (type, type))
    for c, a, b in ((t(N, 3), t(3), t()), (t(3), t(N, 1), t(N, 3)), (t(), t(), t(N))):
        yield Example(Where(), (c.with_dtype("bool"), a, b), (2,))


def _more_elementwise() -> Iterator[Example]:
    op: Op
    yield from _unary(Round())
    yield from _unary(Quantize(0.25))
    yield from _unary(Quantize(0.01))
    yield from _unary(Quantize(0.0005))  # beyond the largest, at both ends
    for op in (ToBfloat16(), RoundBfloat16()):
        yield Example(op, (t(N, 3, dtype="float32"),))
    for op in (Floor(), Ceil()):
        yield from _unary(op, BROKEN)
    for op in (Sin(), Cos(), Atan(), Sinh(), Cosh(), Asinh(), Expm1()):
        yield from _unary(op, INSIDE)
    for op in (Tan(), Asin(), Acos(), Atanh(), Log1p()):
        yield from _unary(op, INSIDE)
    yield from _unary(Acosh(), ABOVE)
    yield from _binary(Pow(), POSITIVE, INSIDE)
    for op in (Mod(), Fmod()):
        yield from _binary(op, INSIDE, ABOVE)


def _whole_numbers() -> Iterator[Example]:
    """Widths of integers do not follow the floats', so both are here."""
    op: Op
    for dtype in ("int64", "int32"):
        for pair in (*PAIRS[1:5], PAIRS[-1]):
            a, b = (x.with_dtype(dtype) for x in pair)
            for op in (Add(), Sub(), Mul(), Maximum(), Minimum(), Less(), Equal()):
                yield Example(op, (a, b), (SIGNED, SIGNED))
            for op in (FloorDiv(), TruncDiv(), Mod(), Fmod()):
                yield Example(op, (a, b), (SIGNED, NONZERO))
        for op in (Neg(), Abs(), Sign()):
            yield Example(op, (whole(N, 3, dtype=dtype),), (SIGNED,))


def _logic() -> Iterator[Example]:
    op: Op
    for dtype in ("bool", "int32"):
        for pair in PAIRS[1:5]:
            a, b = (x.with_dtype(dtype) for x in pair)
            for op in (And(), Or(), Xor()):
                yield Example(op, (a, b), (2, 2) if dtype == "bool" else (99, 99))
        for shape in ((), (N, 3)):
            yield Example(Not(), (whole(*shape, dtype=dtype),), (2,))


def _activations() -> Iterator[Example]:
    for op in (
        LeakyRelu(0.1),
        Elu(0.7),
        Selu(),
        Gelu(),
        Gelu("tanh"),
        Silu(),
        Mish(),
        Softsign(),
        HardSigmoid(),
        HardSwish(),
        Celu(0.7),
        ThresholdedRelu(0.5),
        Shrink(0.5, 0.25),
    ):
        for type in (t(), t(N, 3), t(3, 1, 2, 2)):
            yield Example(op, (type,))
    for x in (t(N, 3), t(N, 2, 3, 2)):
        yield Example(PRelu(), (x, t(x.shape[1])))


BETWEEN = (
    (t(N, 1, 3), (N, 2, 3)),
    (t(N, 1, 1, 3), (N, 2, 3, 3)),
    (t(1, 2, 1, 3), (N, 2, 2, 3)),
    (t(3, 1, 2), (N, 3, 2, 2)),
    (t(N, 1, 2, 1), (N, 2, 2, 20)),
    (t(N, 2, 1, 2, 1), (N, 2, 3, 2, 17)),
    (t(2, 1, 3), (2, N, 3)),
)
"""Operands that are repeated over axes between others, and shapes that they are repeated to."""


def _reductions() -> Iterator[Example]:
    for kind in (Sum, Mean, Max, Min):
        yield Example(kind(()), (t(),))
        yield Example(kind(()), (t(N, 3),))
        yield Example(kind((0,)), (t(N),))
        yield Example(kind((0,), True), (t(N),))
        for over in ((0,), (1,), (0, 1)):
            for keep in (False, True):
                yield Example(kind(over, keep), (t(N, 7),))
                yield Example(kind(over, keep), (t(3, N, 2),))
        yield Example(kind((1,)), (t(7, N),))
        yield Example(kind((1,)), (t(N, 3, 18),))
        yield Example(kind((1, 2), True), (t(N, 3, 2, 2),))
        yield Example(kind((0, 2)), (t(3, N, 2),))
        yield Example(kind((2,)), (t(3, 1, N),))
        yield Example(kind((1,), True), (t(1, 1),))
    for shape, axes, dout in (
        ((N, 3), (0,), t(1, 3)),
        ((N, 3), (0, 1), t(1, 1)),
        ((2, N, 3), (1, 2), t(2, 1, 1)),
        ((N, 2, 3, 2), (1, 2), t(N, 1, 1, 2)),
        ((N, 3, 2), (0, 2), t(1, 3, 1)),
        ((N, 2, 1, 18), (1,), t(N, 1, 1, 18)),
        ((N,), (0,), t(1)),
        ((), (), t()),
    ):
        yield Example(MeanGrad(shape, axes), (dout,))
    for x, shape in ((t(), (N, 3)), (t(3), (N, 3)), (t(N, 1), (N, 7)), (t(1, 1), (2, N, 3))):
        yield Example(BroadcastTo(shape), (x,))
    for (x, shape), dtype in product(BETWEEN, ("float64", "int64", "int32", "bool")):
        yield Example(BroadcastTo(shape), (x.with_dtype(dtype),))
    for x, axis in ((t(N, 7), -1), (t(N, 7), 0), (t(2, N, 3), 1), (t(N), 0), (t(1, 1), 1)):
        yield Example(Argmax(axis), (x,))
        yield Example(Argmin(axis), (x,))
    for axis in (-1, 0, 1):
        for x in (t(N, 7), t(2, N, 3), t(1, 1)):
            yield Example(Softmax(axis), (x,))
            yield Example(LogSoftmax(axis), (x,))


def _along_axes() -> Iterator[Example]:
    for x, axis in ((t(N, 7), -1), (t(N, 7), 0), (t(2, 3, N), 1), (t(N), 0), (t(N, 1), 1)):
        for exclusive in (False, True):
            for reverse in (False, True):
                yield Example(Cumsum(axis, exclusive, reverse), (x,))
    for x, axis, k in ((t(N, 7), -1, 3), (t(7, N), 0, 7), (t(2, 3, N), 1, 2), (t(1), 0, 1)):
        for largest in (False, True):
            yield Example(TopK(k, axis, largest), (x,), (SMALL,))
    for axes in ((0,), (1,), (0, 1), ()):
        for kind in (Sum, Max, Min):
            for dtype in ("int64", "int32"):
                yield Example(kind(axes, True), (whole(N, 7, dtype=dtype),), (SIGNED,))
    for kind in (Max, Min):
        yield Example(kind((1,)), (whole(N, 7, dtype="bool"),), (2,))
    yield Example(Cumsum(1), (whole(N, 7, dtype="int32"),), (SIGNED,))
    yield Example(TopK(2), (whole(N, 7, dtype="int32"),), (SIGNED,))


def _by_index() -> Iterator[Example]:
    for dtype in ("int64", "int32"):
        for shape in ((N,), (N, 3), ()):
            yield Example(OneHot(7, "float64"), (whole(*shape, dtype=dtype),), (7,))
        for classes in (1, 3, 7, 70):
            labels = whole(N, dtype=dtype)
            yield Example(Pick(), (t(N, classes), labels), (GRID, classes))
            for op in (SoftmaxRows(), SvmRows()):
                yield Example(op, (t(N, classes), labels), (GRID, classes))
            for grad in (SoftmaxRowsGrad(), SvmRowsGrad()):
                yield Example(grad, (t(N, classes), labels, t(N)), (GRID, classes))


def _gathers() -> Iterator[Example]:
    for x, indices, axis in (
        (t(7, 3), whole(N), 0),
        (t(7, 3), whole(N, 2, dtype="int32"), 0),
        (t(7), whole(), 0),
        (t(N, 3), whole(7), -1),
        (t(N, 2, 3), whole(2, 3), 1),
        (t(3, 2, N), whole(7), 0),
    ):
        size = x.shape[axis]
        assert isinstance(size, int)
        op = Gather(axis)
        yield Example(op, (x, indices), (GRID, size))
        grad = GatherGrad(x.shape, axis)
        yield Example(grad, (indices, op.infer([x, indices])), (size,))
    yield Example(Embedding(), (t(7, 3), whole(N, 2)), (GRID, 7))
    yield from _elements()
    for shape, sizes in (((N, 2), (3, 3)), ((1,), (7,)), ((2, N, 3), (3, 7, 4))):
        yield Example(FlatIndex(sizes), (whole(*shape),), (min(sizes),))


def _elements() -> Iterator[Example]:
    for x, indices, axis in (
        (t(N, 7), whole(N, 3), 1),
        (t(N, 3, 2), whole(N, 7, 2, dtype="int32"), 1),
        (t(7), whole(7), -1),
    ):
        size = x.shape[axis]
        assert isinstance(size, int)
        yield Example(GatherElements(axis), (x, indices), (GRID, size))
        yield Example(LastWrite(size, axis), (indices,), (size,))
        for reduction in REDUCTIONS if x.rank > 1 else ("none", "add"):
            op = ScatterElements(axis, reduction)
            yield Example(op, (x, indices, x.with_shape(indices.shape)), (GRID, size))


def _shapes() -> Iterator[Example]:
    shape: Shape
    for x, shape in ((t(N, 6), (N, 3, 2)), (t(N, 3, 2), (N * 3, 2)), (t(), (1, 1)), (t(1), ())):
        yield Example(Reshape(shape), (x,))
    for type in (t(), t(N, 3)):
        yield Example(StopGradient(), (type,))
        yield Example(After(), (type, t(3, 7)))
        yield Example(Total(), (type,))
    yield Example(Send(0, 1, 64), (t(3, 7),))
    yield Example(Receive(0, 1), (t(3, 7),))
    for x, axes in ((t(N, 3), (1, 0)), (t(2, N, 3), (2, 0, 1)), (t(N), (0,)), (t(), ())):
        yield Example(Transpose(axes), (x,))
    yield Example(Concat(0), (t(N, 3), t(N * 2, 3)))
    yield Example(Concat(-1), (t(N, 3), t(N, 1), t(N, 7)))
    yield Example(Concat(1), (t(2, 3, N), t(2, 1, N)))
    yield Example(Concat(0), (t(3),))
    for cuts, x in (
        (((1, 1, 3, 1),), t(N, 7)),
        (((1, 0, 7, 3), (2, 1, 2, 1)), t(N, 7, 3)),
        (((0, N, N * 3, 1),), t(N * 3, 2)),
        (((0, 2, 3, 1),), t(3)),
        (((1, 6, -1, -1),), t(N, 7)),
        (((1, 5, 0, -2), (2, 2, -1, -1)), t(N, 7, 3)),
    ):
        op = Slice(cuts)
        yield Example(op, (x,))
        yield Example(SliceGrad(x.shape, cuts), (op.infer([x]),))
    for source, target in (("float64", "int64"), ("int32", "float64"), ("float64", "bool")):
        for shape in ((), (N, 3)):
            yield Example(Cast(target), (t(*shape, dtype=source),), (SMALL,))
    yield Example(Cast("float64"), (t(N, 3, dtype="bool"),), (2,))


def _products() -> Iterator[Example]:
    for shape in ((3, 7), (N, 3, 3), (2, N, 3, 1), (1, 7, 3)):
        yield Example(CausalSoftmax(shape[-2]), (t(*shape),))
    for ta in (False, True):
        for tb in (False, True):
            for m, k, n in ((N, 3, 7), (3, N, 1), (1, 1, 1), (7, 1, N)):
                a, b = t(*((k, m) if ta else (m, k))), t(*((n, k) if tb else (k, n)))
                yield Example(MatMul(ta, tb), (a, b))
    for a, b, ta, tb in (
        (t(N, 2, 3), t(3, 7), False, False),
        (t(N, 3, 2), t(3, 7), True, False),
        (t(N, 2, 3), t(N, 3, 7), False, False),
        (t(2, 3), t(N, 7, 3), False, True),
        (t(2, 1, N, 3), t(3, 3, 2), False, False),
    ):
        yield Example(MatMul(ta, tb), (a, b))
    for a, b, ta, tb in (
        (whole(N, 3, dtype="int8"), whole(3, 7, dtype="int8"), False, False),
        (whole(N, 2, 9, dtype="int8"), whole(9, 17, dtype="int8"), False, False),
        (whole(3, N, dtype="int8"), whole(7, 3, dtype="int8"), True, True),
        (whole(N, 2, 3, dtype="int8"), whole(N, 3, 7, dtype="int8"), False, False),
    ):
        yield Example(MatMul(ta, tb), (a, b), (SIGNED, SIGNED))
    for rows, features, units in ((N, 3, 7), (N, 1, 1), (1, 7, 3)):
        operands = t(rows, features), t(features, units), t(units)
        yield Example(Affine(), operands)
        yield Example(AffineRelu(), operands)
        yield Example(AffineLayer(), operands)
    yield Example(AffineLayer(), (t(N, 2, 3), t(6, 7), t(7)))
    yield Example(AffineLayer(), (t(N, 2, 3), t(6, 7)))
    yield Example(AffineLayer(True), (t(N, 2, 3), t(3, 7), t(7)))
    for ta, tb in ((False, True), (False, False), (True, False)):
        a, b = t(*((3, N) if ta else (N, 3))), t(*((7, 3) if tb else (3, 7)))
        yield Example(MatMulReluGrad(ta, tb), (a, b, t(N, 7)))


def _pairs() -> Iterator[Example]:
    """Values with the batch dimension twice."""
    op: Op
    for shape in ((N, N), (3, 5), (2, N, N)):
        for first, last in ((0, 0), (None, 1), (-1, None), (-2, 0), (None, None)):
            yield Example(Band(first, last), (t(*shape),))
    for a, b in ((t(N, 1), t(1, N)), (t(N, N), t(N, 1)), (t(1, N), t(N, N)), (t(N, N), t(N, N))):
        yield Example(Mul(), (a, b))
        yield Example(Less(), (a, b), (SMALL, SMALL))
        yield Example(Where(), (whole(N, N, dtype="bool"), a, b), (2,))
    for kind in (Sum, Mean, Max, Min):
        for over in ((0,), (1,), (0, 1)):
            yield Example(kind(over, True), (t(N, N),))
            yield Example(kind(over), (t(N, N, 3),))
    yield Example(MeanGrad((N, N), (0, 1)), (t(1, 1),))
    yield Example(BroadcastTo((N, N)), (t(1, N),))
    for axis in (0, 1):
        for op in (Softmax(axis), LogSoftmax(axis), Argmax(axis), Concat(axis)):
            yield Example(op, (t(N, N),) * (1 + isinstance(op, Concat)))
    yield Example(Transpose((1, 0)), (t(N, N),))
    yield Example(Reshape((N * N,)), (t(N, N),))
    for ta, tb in ((False, False), (False, True), (True, False), (True, True)):
        x, y = (t(*((3, N) if turned else (N, 3))) for turned in (ta, not tb))
        yield Example(MatMul(ta, tb), (x, y))
        yield Example(MatMul(ta, tb), (t(N, N), t(N, N)))
        yield Example(MatMul(ta, False), (t(N, N), t(N, 3)))
    labels = whole(N)
    for op in (Pick(), SoftmaxRows(), SvmRows()):
        yield Example(op, (t(N, N), labels), (GRID, 1))


def _norms() -> Iterator[Example]:
    for x in (t(N, 3), t(N, 1), t(7, 3), t(N, 3, 2, 2)):
        v = t(3 if x.shape[1] == 3 else 1)
        yield Example(BatchNormTrain(1e-5), (x, v, v))
        yield Example(BatchNormDgamma(1e-5), (x, x))
        yield Example(BatchNormDx(1e-5), (x, v, x))
        yield Example(Normalize(1e-5), (x, v, v, v, v), (GRID, GRID, POSITIVE))
        yield Example(NormalizeDgamma(1e-5), (x, v, v, x), (GRID, GRID, POSITIVE))
        yield Example(NormalizeDx(1e-5), (x, v, v, v, x, v, v), (GRID, GRID, POSITIVE))
        for frozen in (False, True):
            norm = BatchNorm(frozen=frozen)
            yield Example(norm, (x, v, v, v, v), (GRID, POSITIVE, GRID, GRID, POSITIVE))
    yield Example(BatchNormTrain(1e-5), (t(1, 3), t(3), t(3)))
    for x in (t(N), t(N, 3), t(N, 2, 3)):
        row = t(*x.shape[1:])
        yield Example(Standardize(), (x, row, row), (GRID, GRID, POSITIVE))
    for x in (t(N, 3), t(N, 7), t(2, N, 3)):
        row = t(*x.shape[-1:])
        yield Example(LayerNorm(), (x, row, row))
        yield Example(RmsNorm(), (x, row))
    keyed = whole(dtype="uint64"), whole()
    for shape in ((N,), (N, 3), (N, 70), (N, 2, 3, 2)):
        yield Example(DropoutMask(shape, "float64", 0.7, 12345), keyed, (99, 99))
        yield Example(DropoutMask(shape, "float64", 0.7, 12345), (*keyed, whole()), (99, 99, 99))
        yield Example(Dropout(0.7, 12345), (t(*shape), *keyed), (GRID, 99, 99))
        for kind in ("normal", "uniform"):
            noise = Noise(shape, "float64", kind, 12345)
            yield Example(noise, (t(N), *keyed), (GRID, 99, 99))
            yield Example(noise.drawn, keyed, (99, 99))
            yield Example(noise.drawn, (*keyed, whole()), (99, 99, 99))
    yield Example(Dropout(1.0, 1), (t(N, 3), *keyed), (GRID, 99, 99))
    for x in (t(N, 3), t(N, 3, 2)):
        yield Example(WithinLengths(), (x, whole(N, dtype="int32")), (GRID, SMALL))


def _images() -> Iterator[Example]:
    for x, w, stride, dilation, groups in (
        (t(N, 4, 3, 2), t(2, 3, 2, 3), (1, 1), (1, 1), 1),
        (t(N, 5, 4, 2), t(3, 2, 2, 1), (2, 1), (1, 2), 1),
        (t(N, 3, 2, 2), t(1, 1, 2, 3), (1, 1), (1, 1), 1),
        (t(N, 3, 3, 4), t(2, 2, 2, 6), (1, 1), (1, 1), 2),
        (t(N, 3, 3, 8), t(2, 2, 4, 16), (1, 1), (1, 1), 2),
        (t(N, 3, 3, 2), t(1, 1, 1, 4), (1, 1), (1, 1), 2),
        (t(N, 4, 3, 3), t(2, 2, 1, 3), (2, 1), (1, 1), 3),
        (t(N, 5, 2), t(2, 2, 3), (2,), (2,), 1),
        (t(2, 2, 2, 3, 1), t(2, 1, 2, 1, 2), (1, 1, 1), (1, 1, 1), 1),
    ):
        conv = Conv(stride, dilation, groups)
        y = conv.infer([x, w])
        yield Example(conv, (x, w))
        yield Example(conv, (x.with_dtype("int8"), w.with_dtype("int8")), (SIGNED, SIGNED))
        yield Example(ConvDx(x.shape, stride, dilation, groups), (y, w))
        yield Example(ConvDw(w.shape, stride, dilation, groups), (x, y))
    for x, pads in (
        (t(N, 2, 3), ((0, 0), (1, 2), (0, 1))),
        (t(3), ((2, 0),)),
        (t(), ()),
        (t(2, N), ((1, 0), (0, 0))),
    ):
        yield Example(Pad(pads), (x,))
    yield Example(Pad(((0, 0), (2, 1)), -1.5), (t(N, 2),))


def _pools() -> Iterator[Example]:
    for x, kernel, stride, dilation in (
        (t(N, 4, 3, 2), (2, 2), (2, 2), (1, 1)),
        (t(N, 5, 4, 1), (3, 2), (1, 2), (1, 1)),
        (t(N, 3, 5, 3), (2, 2), (1, 1), (2, 3)),
        (t(N, 7, 2), (3,), (2,), (1,)),
        (t(1, 2, 2, 2, 2), (2, 1, 2), (1, 1, 1), (1, 1, 1)),
    ):
        how = kernel, stride, dilation
        y = MaxPool(*how).infer([x])
        index = y.with_dtype("int32")
        yield Example(MaxPool(*how), (x,))
        yield Example(MaxPoolIndex(*how), (x,))
        yield Example(MaxPoolIndex(*how), (x,), (SMALL,))  # the first of equals
        yield Example(MaxPoolGrad(x.shape, *how), (index, y), (2,))
        yield Example(MaxPoolPick(*how), (index, x), (2,))
        yield Example(SumPool(*how), (x,))
        yield Example(SumPoolGrad(x.shape, *how), (y,))


def _image_layers() -> Iterator[Example]:
    x, around, plain = t(N, 2, 3, 2), ((1, 0), (0, 1)), ((0, 0), (0, 0))
    yield Example(ConvLayer((1, 1), plain, (1, 1)), (x, t(3, 2, 2, 2)))
    yield Example(ConvLayer((2, 1), around, (1, 2)), (x, t(1, 2, 2, 2), t(1)))
    yield Example(ConvLayer((1,), ((1, 1),), (1,), 3), (t(N, 3, 4), t(3, 1, 3)))
    spread = ConvTransposeLayer((2, 1), around, (1, 1), (0, 0))
    yield Example(spread, (t(N, 2, 2, 2), t(2, 1, 2, 2)))
    more = ConvTransposeLayer((2,), ((0, 0),), (1,), (1,), 2)
    yield Example(more, (t(N, 4, 2), t(4, 1, 2), t(2)))
    window, x = ((2, 2), (2, 2)), t(N, 2, 4, 3)
    yield Example(MaxPoolLayer(*window, around, (1, 1), True), (x,))
    yield Example(MaxPoolLayer(*window, plain, (2, 1), False), (x,))
    tall = ((3, 1), (1, 2))
    yield Example(MaxPoolLayer(*tall, plain, (1, 1), False), (x,))
    yield Example(AvgPoolLayer(*tall, plain, (1, 2), False, False), (x,))
    for counted in (False, True):
        yield Example(AvgPoolLayer(*window, around, (1, 1), True, counted), (x,))
    yield Example(GlobalAvgPool(), (x,))
    yield Example(GroupNorm(2), (t(N, 2, 2, 1), t(2), t(2)))
    yield Example(GroupNorm(1), (t(N, 2), t(2), t(2)))


def _losses() -> Iterator[Example]:
    no_weight: tuple[TensorType, ...] = ()
    for reduction in ("mean", "sum", "none"):
        for weight in no_weight, (t(N),):
            scores, labels = t(N, 3), whole(N)
            fill = (GRID, 3, POSITIVE)[: 2 + len(weight)]
            for op in (SoftmaxLoss(reduction), SoftmaxLoss(reduction, 0.2), SvmLoss(reduction)):
                yield Example(op, (scores, labels, *weight), fill)
            for x in (t(N, 3), t(N), t(N, 2, 3)):
                for kind in (MseLoss, MaeLoss, HuberLoss, SigmoidLoss, LogCoshLoss, PoissonLoss):
                    yield Example(kind(reduction), (x, x, *weight), (GRID, GRID, *fill[2:]))
                for squared in (False, True):
                    hinge = HingeLoss(reduction, squared)
                    yield Example(hinge, (x, x, *weight), (GRID, GRID, *fill[2:]))
            yield from _labelled(reduction, weight, fill[2:])
    for classes, ignore in ((3, None), (7, 2), (3, 5)):
        for dtype in ("int64", "int32"):
            yield Example(LabelHit(classes, ignore), (whole(N, dtype=dtype),), (classes,))


def _labelled(
    reduction: str, weight: tuple[TensorType, ...], fill: tuple[str | int, ...]
) -> Iterator[Example]:
    x, y, c = t(N, 3), whole(N), t(3)
    kept = 5 if reduction == "mean" else 1  # a mean of nothing is NaN
    for share, ignore in ((0.0, None), (0.2, None), (0.0, kept), (0.2, kept)):
        yield Example(NllLoss(reduction, share, ignore), (x, y, *weight), (GRID, 3, *fill))
        weighted = WeightedNllLoss(reduction, share, ignore)
        yield Example(weighted, (x, y, c, *weight), (GRID, 3, POSITIVE, *fill))
    for weights in (2.5, (0.5, 1.0, 3.0)):
        sigmoid = SigmoidLoss(reduction, weights)
        yield Example(sigmoid, (x, x, *weight), (GRID, GRID, *fill))
    yield Example(SoftNllLoss(reduction), (x, x, *weight), (GRID, POSITIVE, *fill))
    for z in (x, t(N, 2, 3)):
        yield Example(KlLoss(reduction), (z, z, *weight), (GRID, POSITIVE, *fill))
    cosine = CosineLoss(reduction, 0.1)
    yield Example(cosine, (x, x, t(N), *weight), (GRID, GRID, GRID, *fill))


def _updates() -> Iterator[Example]:
    none: tuple[TensorType, ...] = ()
    for p in (t(), t(1), t(3, 7), t(200, 200)):
        s, u = t(), whole()
        for decay in (none, (s,)):
            more = (p, *decay) if decay else none
            yield Example(Momentum(0.9), (p, p, *more))
            yield Example(AdamMean(0.9), (p, p, *more))
            yield Example(AdamSquare(0.99), (p, p, *more), (POSITIVE,))
            yield Example(SgdStep(), (p, p, s, *decay))
            yield Example(NesterovStep(0.9), (p, p, p, s, *decay))
            fill = (GRID, GRID, POSITIVE, GRID, 9, GRID)
            types = (p, p, p, s, u, *decay)
            yield Example(AdamStep(0.9, 0.99, 1e-8), types, fill[: len(types)])
        yield Example(Average(0.9), (p, p, u), (GRID, GRID, 2))
        yield Example(Cleared(), (p,))
        yield Example(Track(0.25), (p, p))
        yield Example(SquareSum(), (p,))
    for fill in ((POSITIVE, POSITIVE), (GRID, POSITIVE)):
        yield Example(ClipScale(), (t(), t()), fill)
    for rate in (
        CosineRate(5, 0.1),
        StepRate(2, 0.5, 3),
        WarmUpRate(6),
        Corrected(0.9),
        NadamMomentum(0.9, 0.004, 1),
    ):
        yield Example(rate, (t(), whole()), (POSITIVE, 9))


def values_of(examples: Iterable[Example]) -> dict[tuple[type[Op], str], list[Any]]:
    """The different values of each attribute of each op."""
    found: dict[tuple[type[Op], str], list[Any]] = {}
    for example in examples:
        for name, value in attributes(example.op).items():
            known = found.setdefault((type(example.op), name), [])
            if value not in known:
                known.append(value)
    return found


MANY = 300
"""More elements than an example needs to show what an attribute does."""


def _size(example: Example) -> int:
    """The elements of the operands for a batch of two."""
    return sum(type.size(2) for type in example.types)


def _with_others(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    """The examples, and another for each number that is the same in all those of its op."""
    largest = {type(e.op): e for e in sorted(examples, key=_size) if _size(e) < MANY}
    found = list(examples)
    for (kind, name), values in values_of(examples).items():
        if len(values) > 1 or type(values[0]) not in (int, float) or kind in BETWEEN_SHARDS:
            continue
        other = values[0] + 1 if isinstance(values[0], int) else values[0] * 2 / 3
        example = largest[kind]
        op = replace(example.op, **{name: 0.1 if name == "eps" else other})  # type: ignore[type-var]
        found.append(replace(example, op=op))
    return tuple(found)


BETWEEN_SHARDS = (Send, Receive, Total)
"""They stand in pairs; the tests of shards run them."""

_LISTED: tuple[Example, ...] = (
    *_elementwise(),
    *_more_elementwise(),
    *_whole_numbers(),
    *_logic(),
    *_activations(),
    *_reductions(),
    *_along_axes(),
    *_by_index(),
    *_gathers(),
    *_shapes(),
    *_products(),
    *_pairs(),
    *_norms(),
    *_images(),
    *_pools(),
    *_image_layers(),
    *_losses(),
    *_updates(),
)
DOUBLE = _with_others(_LISTED)


def _narrowed(example: Example) -> Example:
    """The same in float32."""
    op = example.op
    fields = {k: "float32" for k, v in vars(op).items() if k == "dtype" and v == "float64"}
    narrow = type(op)(**{**vars(op), **fields})
    types = (x.with_dtype("float32") if x.dtype in FLOATS else x for x in example.types)
    return Example(narrow, tuple(types), example.fill)


_PAIRS = ((example, _narrowed(example)) for example in DOUBLE)
EXAMPLES: tuple[Example, ...] = (*DOUBLE, *(narrow for wide, narrow in _PAIRS if narrow != wide))
