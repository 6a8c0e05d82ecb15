"""Activation functions: elementwise layers, which expand to other ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from graphc.base.arguments import check_choice, checked_number
from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.init import Constant
from graphc.ir.op import Array, Layer
from graphc.ir.tensor_type import TensorType
from graphc.ops.apply import check_float, of_one, with_attributes
from graphc.ops.elementwise import add, div, mul, sub
from graphc.ops.functions import abs_, erf, sigmoid, softplus, tanh
from graphc.ops.select import clip, where
from graphc.ops.shape import reshape
from graphc.ops.source import Parameter

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "leaky_relu",
    "mish",
    "prelu",
    "relu6",
    "selu",
    "shrink",
    "silu",
    "softsign",
    "thresholded_relu",
]


class Activation(Layer, base=True):
    """The base of activations: an elementwise layer on floats of any shape."""

    takes_pairs = True
    roles: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        check_float(self, "x", ins[0])
        return ins[0]

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        return np.asarray(self.of(ins[0].astype(np.float64))).astype(ins[0].dtype)

    def of(self, x: Array) -> Array:
        """Compute the function in plain NumPy."""
        raise NotImplementedError

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        return self.build(ins[0], name)

    def build(self, x: Value, name: str) -> Value:
        """Build the function from ops."""
        raise NotImplementedError


# With these, normal numbers of mean 0 and variance 1 have them after it, too.
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


@dataclass(frozen=True)
class Elu(Activation):
    """x where x > 0, else alpha * (e**x - 1) (Clevert et al. 2015, arXiv:1511.07289)."""

    alpha: float = 1.0

    def of(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0)))

    def build(self, x: Value, name: str) -> Value:
        below = _expm1_below(clip(x, None, 0.0))
        return where(x > 0, x, mul(below, self.alpha), name=name)


class Selu(Activation):
    """The product scale * elu(x, alpha), with constants that keep mean 0 and variance 1.

    The weights must start with variance 1 / inputs (Klambauer et al. 2017, arXiv:1706.02515).
    """

    onnx = "Selu"

    def of(self, x: Array) -> Array:
        return np.asarray(_SELU_SCALE * Elu(_SELU_ALPHA).of(x))

    def build(self, x: Value, name: str) -> Value:
        return mul(Elu(_SELU_ALPHA).build(x, f"{name}.elu"), _SELU_SCALE, name=name)


@dataclass(frozen=True)
class Celu(Activation):
    """x where x > 0, else alpha * (e**(x / alpha) - 1) (Barron 2017, arXiv:1704.07483)."""

    alpha: float = 1.0

    def of(self, x: Array) -> Array:
        return np.where(x > 0, x, self.alpha * np.expm1(np.minimum(x, 0) / self.alpha))

    def build(self, x: Value, name: str) -> Value:
        below = _expm1_below(mul(clip(x, None, 0.0), 1 / self.alpha))
        return where(x > 0, x, mul(below, self.alpha), name=name)


def _expm1_below(x: Value) -> Value:
    """Return e**x - 1 for x up to 0, with all digits near 0.

    With t = tanh(x / 2), e**x = (1 + t) / (1 - t); kernels have a tanh, but no expm1.
    """
    t = tanh(mul(x, 0.5))
    return div(mul(t, 2.0), sub(1.0, t))


@with_attributes(alpha="The limit far below 0 is -alpha.")
def elu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """Return x where it is above 0, else alpha * (e**x - 1)."""
    return apply(Elu(checked_number("elu: alpha", alpha)), x, name=name)


@with_attributes(alpha="The limit far below 0 is -alpha; it is above 0.")
def celu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """Return x where it is above 0, else alpha * (e**(x / alpha) - 1)."""
    return apply(Celu(checked_number("celu: alpha", alpha, above=0)), x, name=name)


GeluForm = Literal["erf", "tanh"]

# 0.044715 is the paper's: it brings tanh closest to erf.
_GELU, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class Gelu(Activation):
    """x * P(X <= x) of a standard normal X, exact by erf, or approximate by a tanh.

    Hendrycks and Gimpel 2016 (arXiv:1606.08415).
    """

    form: GeluForm = "erf"

    def of(self, x: Array) -> Array:
        if self.form == "tanh":
            return np.asarray(0.5 * x * (1 + np.tanh(_GELU * (x + _GELU_CUBE * x**3))))
        return np.asarray(0.5 * x * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2))))

    def build(self, x: Value, name: str) -> Value:
        if self.form == "tanh":
            odd = tanh(mul(x, add(mul(mul(x, x), _GELU * _GELU_CUBE), _GELU)))
        else:
            odd = erf(mul(x, math.sqrt(0.5)))
        return mul(mul(x, 0.5), add(odd, 1.0), name=name)


class Silu(Activation):
    """The product x * sigmoid(x), also called swish."""

    def of(self, x: Array) -> Array:
        # 1 / (1 + e**-x) as e**-log(1 + e**-x), which does not overflow.
        return np.asarray(x * np.exp(-np.logaddexp(0, -x)))

    def build(self, x: Value, name: str) -> Value:
        return mul(x, sigmoid(x), name=name)


class Mish(Activation):
    """The product x * tanh(softplus(x)) (Misra 2019, arXiv:1908.08681)."""

    onnx = "Mish"

    def of(self, x: Array) -> Array:
        return np.asarray(x * np.tanh(np.logaddexp(0, x)))

    def build(self, x: Value, name: str) -> Value:
        return mul(x, tanh(softplus(x)), name=name)


@with_attributes(form='"erf" is exact; "tanh" is the approximation that some trained models used.')
def gelu(x: Value, form: GeluForm = "erf", *, name: str | None = None) -> Value:
    """Return x times the share of a standard normal distribution below x."""
    hint = "'erf' is exact; 'tanh' is what torch calls approximate='tanh'"
    check_choice("gelu: form", form, ("erf", "tanh"), hint=hint)
    return apply(Gelu(form), x, name=name)


@dataclass(frozen=True)
class LeakyRelu(Activation):
    """x where x > 0, else slope * x."""

    slope: float = 0.01

    def of(self, x: Array) -> Array:
        return np.where(x > 0, x, self.slope * x)

    def build(self, x: Value, name: str) -> Value:
        return where(x > 0, x, mul(x, self.slope), name=name)


class PRelu(Activation):
    """x where x > 0, else slope * x with a trained slope for each feature."""

    roles = ("x", "slope")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        x, slope = ins
        if x.rank < 2 or slope != TensorType((x.shape[1],), x.dtype):
            raise ValueError(f"x is {x}, slope is {slope}: there is one for each of x's features")
        return super().infer(ins)

    def reference_in(self, ins: Sequence[Array], train: bool) -> Array:
        x, slope = ins
        return np.where(x > 0, x, slope.reshape((-1,) + (1,) * (x.ndim - 2)) * x)

    def expand(self, b: Builder, name: str, ins: Sequence[Value], train: bool) -> Value:
        x, slope = ins
        if x.type.rank > 2:
            slope = reshape(slope, (slope.shape[0],) + (1,) * (x.type.rank - 2))
        return where(x > 0, x, mul(x, slope), name=name)


@dataclass(frozen=True)
class ThresholdedRelu(Activation):
    """x where x > alpha, else 0 (Konda et al. 2014, arXiv:1402.3337)."""

    alpha: float = 1.0

    def of(self, x: Array) -> Array:
        return np.where(x > self.alpha, x, 0)

    def build(self, x: Value, name: str) -> Value:
        return where(x > self.alpha, x, 0.0, name=name)


@dataclass(frozen=True)
class Shrink(Activation):
    """x - bias where x > threshold, x + bias where x < -threshold, else 0."""

    threshold: float = 0.5
    bias: float = 0.0

    def of(self, x: Array) -> Array:
        small = np.abs(x) <= self.threshold
        return np.where(small, 0, x - np.sign(x) * self.bias)

    def build(self, x: Value, name: str) -> Value:
        below = where(x < -self.threshold, add(x, self.bias), 0.0)
        return where(x > self.threshold, sub(x, self.bias), below, name=name)


class HardSigmoid(Activation):
    """The sum x / 6 + 1 / 2, clipped to the range 0 to 1."""

    def of(self, x: Array) -> Array:
        return np.clip(x / 6 + 0.5, 0, 1)

    def build(self, x: Value, name: str) -> Value:
        return clip(add(mul(x, 1 / 6), 0.5), 0.0, 1.0, name=name)


class HardSwish(Activation):
    """The product x * hard_sigmoid(x) (Howard et al. 2019, arXiv:1905.02244)."""

    onnx = "HardSwish"

    def of(self, x: Array) -> Array:
        return np.asarray(x * HardSigmoid().of(x))

    def build(self, x: Value, name: str) -> Value:
        return mul(x, HardSigmoid().build(x, f"{name}.gate"), name=name)


@with_attributes(slope="The slope below 0.")
def leaky_relu(x: Value, slope: float = 0.01, *, name: str | None = None) -> Value:
    """Return x where it is above 0, else slope * x."""
    return apply(LeakyRelu(checked_number("leaky_relu: slope", slope)), x, name=name)


@with_attributes(start="The first value of each slope.")
def prelu(x: Value, *, start: float = 0.25, name: str | None = None) -> Value:
    """Return x where it is above 0, else slope * x, for x (N, features, ...).

    The slopes `<node>.slope` (features,) are trained (He et al. 2015, arXiv:1502.01852).
    """
    b = as_value("prelu", x).builder
    features = x.shape[1] if x.type.rank > 1 else None
    if not isinstance(features, int):
        message = f"x is {x.type}, prelu takes floats of shape (N, features, ...)"
        raise b.error(PRelu(), message, (x,))
    node = b.free_name("prelu", name)
    with b.all_or_nothing():
        slope = b.apply(Parameter((features,), x.dtype, Constant(start)), name=f"{node}.slope")
        return b.apply(PRelu(), x, slope, name=node)


@with_attributes(alpha="The largest x that becomes 0.")
def thresholded_relu(x: Value, alpha: float = 1.0, *, name: str | None = None) -> Value:
    """Return x where it is above alpha, else 0."""
    return apply(ThresholdedRelu(checked_number("thresholded_relu: alpha", alpha)), x, name=name)


@with_attributes(
    threshold="From -threshold to threshold x becomes 0.",
    bias="The distance that other x move toward 0.",
)
def shrink(
    x: Value, threshold: float = 0.5, bias: float = 0.0, *, name: str | None = None
) -> Value:
    """Return x moved by `bias` toward 0, and 0 from -threshold to threshold.

    With bias 0 this is hard shrinkage, with bias equal to threshold soft shrinkage.
    """
    threshold = checked_number("shrink: threshold", threshold, above=0)
    return apply(Shrink(threshold, checked_number("shrink: bias", bias)), x, name=name)


@with_attributes()
def relu6(x: Value, *, name: str | None = None) -> Value:
    """Return x clipped to the range 0 to 6."""
    return clip(x, 0.0, 6.0, name=name)


@with_attributes()
def hard_tanh(x: Value, *, name: str | None = None) -> Value:
    """Return x clipped to the range -1 to 1."""
    return clip(x, -1.0, 1.0, name=name)


class Softsign(Activation):
    """The quotient x / (1 + |x|)."""

    onnx = "Softsign"

    def of(self, x: Array) -> Array:
        return np.asarray(x / (1 + np.abs(x)))

    def build(self, x: Value, name: str) -> Value:
        return div(x, add(abs_(x), 1.0), name=name)


selu = of_one(Selu())
silu = of_one(Silu())
mish = of_one(Mish())
hard_sigmoid = of_one(HardSigmoid())
hard_swish = of_one(HardSwish())
softsign = of_one(Softsign())
