"""All ops and layers by name: what texts are parsed with, and what the contract tests walk."""

from __future__ import annotations

from graphc.op import Layer, Op
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
from graphc.ops.exchange import Receive, Send, ShardInput, Total
from graphc.ops.functions import Abs, Exp, Log, LogSoftmax, Sigmoid, Sign, Softmax, Sqrt, Tanh
from graphc.ops.fused import AffineRelu, MatMulReluGrad, NormalizeDgamma, NormalizeDx
from graphc.ops.gradient import Gradient
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
from graphc.ops.source import Constant, Input, Parameter, State
from graphc.ops.standardize import Standardize

_SOURCES = (Input, Parameter, State, Constant)
_SHARDS = (ShardInput, Total, Send, Receive)
_LAYERS = (AffineLayer, BatchNorm, Dropout, SoftmaxLoss, SvmLoss, Standardize, Gradient)
_ROW_NORMS = (LayerNorm, RmsNorm)
_ELEMENT_LOSSES = (MseLoss, MaeLoss, HuberLoss, SigmoidLoss)
_ELEMENTWISE = (Add, Sub, Mul, Div, Neg, Power)
_FUNCTIONS = (Exp, Log, Sqrt, Abs, Sign, Tanh, Sigmoid, Erf, Softplus)
_ACTIVATIONS = (
    LeakyRelu,
    PRelu,
    Elu,
    Selu,
    Gelu,
    Silu,
    Mish,
    Softsign,
    HardSigmoid,
    HardSwish,
)
_CHOICES = (Relu, ReluGrad, Maximum, Minimum, Clip, Where)
_COMPARISONS = (Less, LessEqual, Greater, GreaterEqual, Equal, NotEqual)
_REDUCTIONS = (Sum, Mean, MeanGrad, Max, Argmax, OneHot, Pick, Softmax, LogSoftmax)
_SHAPES = (Reshape, Transpose, Concat, Slice, SliceGrad, Cast, StopGradient, BroadcastTo)
_PRODUCTS = (MatMul, Affine)
_NORMS = (BatchNormTrain, BatchNormDgamma, BatchNormDx, Normalize, DropoutMask)
_LOSSES = (SoftmaxRows, SoftmaxRowsGrad, SvmRows, SvmRowsGrad)
_FUSED = (AffineRelu, MatMulReluGrad, NormalizeDgamma, NormalizeDx)
_AGAIN = (After, Before)
_UPDATES = (Momentum, SgdStep, NesterovStep, AdamMean, AdamSquare, AdamStep, Cleared)
_RATES = (SquareSum, ClipScale, CosineRate, StepRate, WarmUpRate)

_ALL: tuple[type[Op], ...] = (
    *_SOURCES,
    *_SHARDS,
    *_LAYERS,
    *_ROW_NORMS,
    *_ELEMENT_LOSSES,
    *_ACTIVATIONS,
    *_ELEMENTWISE,
    *_FUNCTIONS,
    *_CHOICES,
    *_COMPARISONS,
    *_REDUCTIONS,
    *_SHAPES,
    *_PRODUCTS,
    *_NORMS,
    *_LOSSES,
    *_FUSED,
    *_AGAIN,
    *_UPDATES,
    *_RATES,
)

OPS: dict[str, type[Op]] = {
    f"layer {op.name}" if issubclass(op, Layer) else op.name: op for op in _ALL
}
"""By name; a layer, which may share the name of an op that it becomes, as `layer name`."""
