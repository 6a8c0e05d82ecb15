"""All ops and layers by name: the parser of texts and the contract tests use them."""

from __future__ import annotations

from graphc.ir.op import Layer, Op
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
from graphc.ops.attention import CausalSoftmax
from graphc.ops.conv import Conv, ConvDw, ConvDx
from graphc.ops.conv_layer import ConvLayer, ConvTransposeLayer
from graphc.ops.cumulative import Cumsum
from graphc.ops.dropout import Dropout, DropoutMask
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power, Sub
from graphc.ops.exchange import Receive, Send, ShardInput, Total
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
from graphc.ops.fused import AffineRelu, After, MatMulReluGrad, NormalizeDgamma, NormalizeDx
from graphc.ops.gather import Embedding, Gather, GatherGrad
from graphc.ops.gradient import Gradient
from graphc.ops.index import Argmax, Argmin, OneHot, Pick, TopK
from graphc.ops.linalg import Affine, AffineLayer, MatMul
from graphc.ops.logic import And, Not, Or, Xor
from graphc.ops.losses.classes import HingeLoss, NllLoss, SoftmaxLoss, SvmLoss, WeightedNllLoss
from graphc.ops.losses.elements import (
    HuberLoss,
    LogCoshLoss,
    MaeLoss,
    MseLoss,
    PoissonLoss,
    SigmoidLoss,
)
from graphc.ops.losses.labels import LabelHit, SoftmaxRows, SoftmaxRowsGrad, SvmRows, SvmRowsGrad
from graphc.ops.losses.rows import CosineLoss, KlLoss, SoftNllLoss
from graphc.ops.norm import BatchNorm, BatchNormDgamma, BatchNormDx, BatchNormTrain, Normalize
from graphc.ops.optim import (
    AdamMean,
    AdamSquare,
    AdamStep,
    Average,
    Cleared,
    ClipScale,
    Momentum,
    NesterovStep,
    SgdStep,
    SquareSum,
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
from graphc.ops.pow import Pow
from graphc.ops.rate import Corrected, CosineRate, NadamMomentum, StepRate, WarmUpRate
from graphc.ops.reduce import BroadcastTo, Max, Mean, MeanGrad, Min, Sum
from graphc.ops.rounding import Ceil, Floor, FloorDiv, Fmod, Mod, Round, TruncDiv
from graphc.ops.row_norm import GroupNorm, LayerNorm, RmsNorm, Standardize
from graphc.ops.scatter import FlatIndex, GatherElements, LastWrite, ScatterElements
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
from graphc.ops.source import Constant, Input, Parameter, State
from graphc.ops.trigonometry import (
    Acos,
    Acosh,
    Asin,
    Asinh,
    Atan,
    Atanh,
    Cos,
    Cosh,
    Sin,
    Sinh,
    Tan,
)

_SOURCES = (Input, Parameter, State, Constant)
_SHARDS = (ShardInput, Total, Send, Receive)
_LAYERS = (AffineLayer, BatchNorm, Dropout, SoftmaxLoss, SvmLoss, Standardize, Gradient)
_ROW_NORMS = (LayerNorm, RmsNorm)
_IMAGE_LAYERS = (
    ConvLayer,
    ConvTransposeLayer,
    MaxPoolLayer,
    AvgPoolLayer,
    GlobalAvgPool,
    GroupNorm,
)
_ELEMENT_LOSSES = (
    MseLoss,
    MaeLoss,
    HuberLoss,
    LogCoshLoss,
    PoissonLoss,
    SigmoidLoss,
    HingeLoss,
)
_LABEL_AND_ROW_LOSSES = (NllLoss, WeightedNllLoss, SoftNllLoss, KlLoss, CosineLoss)
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
    Celu,
    ThresholdedRelu,
    Shrink,
)
_ARITHMETIC = (Floor, Ceil, Round, Log1p, Expm1, Pow, FloorDiv, TruncDiv, Mod, Fmod)
_TRIGONOMETRY = (Sin, Cos, Tan, Asin, Acos, Atan, Sinh, Cosh, Asinh, Acosh, Atanh)
_LOGIC = (And, Or, Xor, Not)
_CHOICES = (Relu, ReluGrad, Maximum, Minimum, Clip, Where)
_COMPARISONS = (Less, LessEqual, Greater, GreaterEqual, Equal, NotEqual)
_REDUCTIONS = (Sum, Mean, MeanGrad, Max, Argmax, OneHot, Pick, Softmax, LogSoftmax)
_ALONG_AXES = (Min, Argmin, Cumsum, TopK)
_SHAPES = (Reshape, Transpose, Concat, Slice, SliceGrad, Cast, StopGradient, BroadcastTo)
_BY_INDEX = (
    Embedding,
    Gather,
    GatherGrad,
    GatherElements,
    ScatterElements,
    LastWrite,
    FlatIndex,
)
_PRODUCTS = (MatMul, Affine, CausalSoftmax)
_NORMS = (BatchNormTrain, BatchNormDgamma, BatchNormDx, Normalize, DropoutMask)
_IMAGES = (Conv, ConvDx, ConvDw, Pad)
_POOLS = (MaxPool, MaxPoolIndex, MaxPoolGrad, MaxPoolPick, SumPool, SumPoolGrad)
_LOSSES = (SoftmaxRows, SoftmaxRowsGrad, SvmRows, SvmRowsGrad, LabelHit)
_FUSED = (AffineRelu, MatMulReluGrad, NormalizeDgamma, NormalizeDx)
_AGAIN = (After,)
_UPDATES = (Momentum, SgdStep, NesterovStep, AdamMean, AdamSquare, AdamStep, Average, Cleared)
_RATES = (SquareSum, ClipScale, CosineRate, StepRate, WarmUpRate, Corrected, NadamMomentum)

_ALL: tuple[type[Op], ...] = (
    *_SOURCES,
    *_SHARDS,
    *_LAYERS,
    *_ROW_NORMS,
    *_IMAGE_LAYERS,
    *_ELEMENT_LOSSES,
    *_LABEL_AND_ROW_LOSSES,
    *_ACTIVATIONS,
    *_ELEMENTWISE,
    *_FUNCTIONS,
    *_ARITHMETIC,
    *_TRIGONOMETRY,
    *_LOGIC,
    *_CHOICES,
    *_COMPARISONS,
    *_REDUCTIONS,
    *_ALONG_AXES,
    *_SHAPES,
    *_BY_INDEX,
    *_PRODUCTS,
    *_NORMS,
    *_IMAGES,
    *_POOLS,
    *_LOSSES,
    *_FUSED,
    *_AGAIN,
    *_UPDATES,
    *_RATES,
)

OPS: dict[str, type[Op]] = {
    f"layer {op.name}" if issubclass(op, Layer) else op.name: op for op in _ALL
}
"""All ops by name; a layer, which may share its name with the op it becomes, as `layer name`."""
