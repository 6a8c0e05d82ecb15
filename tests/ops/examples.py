"""Examples of every op, in float64 and in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.op import Op
from graphc.ops.activations import (
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Mish,
    PRelu,
    Selu,
    Silu,
    Softsign,
)
from graphc.ops.affine import Affine, AffineLayer
from graphc.ops.again import After, Before
from graphc.ops.concat import Concat
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.element_loss import HuberLoss, MaeLoss, MseLoss, SigmoidLoss
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power, Sub
from graphc.ops.exchange import Receive, Send, Total
from graphc.ops.functions import Abs, Exp, Log, LogSoftmax, Sigmoid, Sign, Softmax, Sqrt, Tanh
from graphc.ops.fused import AffineRelu, MatMulReluGrad, NormalizeDgamma, NormalizeDx
from graphc.ops.index import Argmax, OneHot, Pick
from graphc.ops.linalg import MatMul
from graphc.ops.loss import SoftmaxLoss, SvmLoss
from graphc.ops.loss_rows import SoftmaxRows, SoftmaxRowsGrad, SvmRows, SvmRowsGrad
from graphc.ops.norm import BatchNorm, BatchNormDgamma, BatchNormDx, BatchNormTrain, Normalize
from graphc.ops.optim import (
    AdamMean,
    AdamSquare,
    AdamStep,
    Cleared,
    ClipScale,
    Momentum,
    NesterovStep,
    SgdStep,
    SquareSum,
)
from graphc.ops.rate import CosineRate, StepRate, WarmUpRate
from graphc.ops.reduce import BroadcastTo, Max, Mean, MeanGrad, Sum
from graphc.ops.row_norm import LayerNorm, RmsNorm
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
from graphc.ops.slicing import Slice, SliceGrad
from graphc.ops.smooth import Erf, Softplus
from graphc.ops.standardize import Standardize
from graphc.tensor_type import FLOATS, N, Shape, TensorType
from tests.ops.example import GRID, POSITIVE, SMALL, Example, t, whole


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
    ):
        for type in (t(), t(N, 3), t(3, 1, 2, 2)):
            yield Example(op, (type,))
    for x in (t(N, 3), t(N, 2, 3, 2)):
        yield Example(PRelu(), (x, t(x.shape[1])))


def _reductions() -> Iterator[Example]:
    for kind in (Sum, Mean, Max):
        yield Example(kind(()), (t(),))
        yield Example(kind((0,)), (t(N),))
        yield Example(kind((0,), True), (t(N),))
        for over in ((0,), (1,), (0, 1)):
            for keep in (False, True):
                yield Example(kind(over, keep), (t(N, 7),))
                yield Example(kind(over, keep), (t(3, N, 2),))
        yield Example(kind((1,)), (t(7, N),))
        yield Example(kind((0, 2)), (t(3, N, 2),))
        yield Example(kind((2,)), (t(3, 1, N),))
        yield Example(kind((1,), True), (t(1, 1),))
    for shape, axes, dout in (
        ((N, 3), (0,), t(1, 3)),
        ((N, 3), (0, 1), t(1, 1)),
        ((2, N, 3), (1, 2), t(2, 1, 1)),
        ((N,), (0,), t(1)),
        ((), (), t()),
    ):
        yield Example(MeanGrad(shape, axes), (dout,))
    for x, shape in ((t(), (N, 3)), (t(3), (N, 3)), (t(N, 1), (N, 7)), (t(1, 1), (2, N, 3))):
        yield Example(BroadcastTo(shape), (x,))
    for x, axis in ((t(N, 7), -1), (t(N, 7), 0), (t(2, N, 3), 1), (t(N), 0), (t(1, 1), 1)):
        yield Example(Argmax(axis), (x,))
    for axis in (-1, 0, 1):
        for x in (t(N, 7), t(2, N, 3), t(1, 1)):
            yield Example(Softmax(axis), (x,))
            yield Example(LogSoftmax(axis), (x,))


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


def _shapes() -> Iterator[Example]:
    shape: Shape
    for x, shape in ((t(N, 6), (N, 3, 2)), (t(N, 3, 2), (N * 3, 2)), (t(), (1, 1)), (t(1), ())):
        yield Example(Reshape(shape), (x,))
    for type in (t(), t(N, 3)):
        yield Example(StopGradient(), (type,))
        yield Example(After(), (type, t(3, 7)))
        yield Example(Before(), (type,))
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
    ):
        op = Slice(cuts)
        yield Example(op, (x,))
        yield Example(SliceGrad(x.shape, cuts), (op.infer([x]),))
    for source, target in (("float64", "int64"), ("int32", "float64"), ("float64", "bool")):
        for shape in ((), (N, 3)):
            yield Example(Cast(target), (t(*shape, dtype=source),), (SMALL,))
    yield Example(Cast("float64"), (t(N, 3, dtype="bool"),), (2,))


def _products() -> Iterator[Example]:
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


def _norms() -> Iterator[Example]:
    for x in (t(N, 3), t(N, 1), t(7, 3), t(N, 3, 2, 2)):
        v = t(3 if x.shape[1] == 3 else 1)
        yield Example(BatchNormTrain(1e-5), (x, v, v))
        yield Example(BatchNormDgamma(1e-5), (x, x))
        yield Example(BatchNormDx(1e-5), (x, v, x))
        yield Example(Normalize(1e-5), (x, v, v, v, v), (GRID, GRID, POSITIVE))
        yield Example(NormalizeDgamma(1e-5), (x, v, v, x), (GRID, GRID, POSITIVE))
        yield Example(NormalizeDx(1e-5), (x, v, v, v, x, v, v), (GRID, GRID, POSITIVE))
        yield Example(BatchNorm(), (x, v, v, v, v), (GRID, POSITIVE, GRID, GRID, POSITIVE))
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
    yield Example(Dropout(1.0, 1), (t(N, 3), *keyed), (GRID, 99, 99))


def _losses() -> Iterator[Example]:
    no_weight: tuple[TensorType, ...] = ()
    for reduction in ("mean", "sum", "none"):
        for weight in no_weight, (t(N),):
            scores, labels = t(N, 3), whole(N)
            fill = (GRID, 3, POSITIVE)[: 2 + len(weight)]
            for op in (SoftmaxLoss(reduction), SoftmaxLoss(reduction, 0.2), SvmLoss(reduction)):
                yield Example(op, (scores, labels, *weight), fill)
            for x in (t(N, 3), t(N), t(N, 2, 3)):
                for kind in (MseLoss, MaeLoss, HuberLoss, SigmoidLoss):
                    yield Example(kind(reduction), (x, x, *weight), (GRID, GRID, *fill[2:]))


def _updates() -> Iterator[Example]:
    no_parameter: tuple[TensorType, ...] = ()
    for p in (t(), t(1), t(3, 7), t(200, 200)):
        s, u = t(), whole()
        for decay, more in ((0.0, no_parameter), (0.01, (p,))):
            yield Example(Momentum(0.9, decay), (p, p, *more))
            yield Example(AdamMean(0.9, decay), (p, p, *more))
            yield Example(AdamSquare(0.99, decay), (p, p, *more), (POSITIVE,))
            yield Example(SgdStep(decay), (p, p, s))
            yield Example(NesterovStep(0.9, decay), (p, p, p, s))
            adam = AdamStep(0.9, 0.99, 1e-8, decay)
            yield Example(adam, (p, p, p, s, u), (GRID, GRID, POSITIVE, GRID, 9))
        yield Example(Cleared(), (p,))
        yield Example(SquareSum(), (p,))
    for fill in ((POSITIVE, POSITIVE), (GRID, POSITIVE)):
        yield Example(ClipScale(), (t(), t()), fill)
    for rate in (CosineRate(5, 0.1), StepRate(2, 0.5, 3), WarmUpRate(6)):
        yield Example(rate, (t(), whole()), (POSITIVE, 9))


DOUBLE: tuple[Example, ...] = (
    *_elementwise(),
    *_activations(),
    *_reductions(),
    *_by_index(),
    *_shapes(),
    *_products(),
    *_norms(),
    *_losses(),
    *_updates(),
)


def _narrowed(example: Example) -> Example:
    """The same in float32."""
    op = example.op
    fields = {k: "float32" for k, v in vars(op).items() if k == "dtype" and v == "float64"}
    narrow = type(op)(**{**vars(op), **fields})
    types = (x.with_dtype("float32") if x.dtype in FLOATS else x for x in example.types)
    return Example(narrow, tuple(types), example.fill)


EXAMPLES: tuple[Example, ...] = (*DOUBLE, *(_narrowed(example) for example in DOUBLE))
