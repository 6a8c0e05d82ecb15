"""Choices between values: relu, maximum, minimum, clip, where, comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from graphc.base.arguments import checked_real
from graphc.ir.build import Builder, Value, apply, as_value
from graphc.ir.by_formula import ByFormula
from graphc.ir.expr import Axis, Expr, call, select
from graphc.ir.op import Array, Cotangents, Iteration, NoGradient, Op, shared
from graphc.ir.tensor_type import TensorType, broadcast
from graphc.kernels.iteration_space import elements
from graphc.ops.apply import Operand, of_one, of_two, pair, with_attributes
from graphc.ops.elementwise import Binary, Unary

__all__ = [
    "clip",
    "equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "maximum",
    "minimum",
    "not_equal",
    "relu",
    "where",
]


class Relu(Unary, gradient="d_out * (out > 0)", onnx="Relu"):
    """The relu max(x, 0); NaN stays NaN, and the gradient is 0 at x <= 0."""

    is_exact = True
    kink = "x"

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.maximum(ins[0], 0))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        return select(x.lift(0) > x, 0, x)  # the other way round NaN would become 0

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return (b.apply(shared(ReluGrad), out, dout),)


class ReluGrad(Op):
    """The gradient of relu: dout where out > 0, else 0."""

    takes_pairs = True
    is_exact = True
    roles = ("out", "dout")
    inplace = (0,)
    gradient_text = ("", "d_out * (out > 0)")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        out, dout = ins
        if out != dout:
            raise ValueError(f"out is {out}, dout is {dout}")
        return dout

    def reference(self, ins: Sequence[Array]) -> Array:
        out, dout = ins
        return np.where(out > 0, dout, dout.dtype.type(0))

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return "elements"

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        out, dout = ins
        return select(out > 0, dout, 0)

    def grad(self, b: Builder, ins: Sequence[Value], out: Value, dout: Value) -> Cotangents:
        return None, b.apply(ReluGrad(), ins[0], dout)


class Compared(Binary, base=True):
    """The base of ops whose result changes where a and b are equal."""

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        return np.subtract(ins[0], ins[1], dtype=np.float64)


class Maximum(
    Compared,
    ufunc=np.maximum,
    gradient=("where(a >= b, d_out, 0)", "where(a >= b, 0, d_out)"),
    onnx="Max",
):
    """The larger of a and b, broadcast; at a tie the gradient goes to a."""

    is_exact = True


class Minimum(
    Compared,
    ufunc=np.minimum,
    gradient=("where(a <= b, d_out, 0)", "where(a <= b, 0, d_out)"),
    onnx="Min",
):
    """The smaller of a and b, broadcast; at a tie the gradient goes to a."""

    is_exact = True


@dataclass(frozen=True)
class Clip(Unary, gradient="where(x == out, d_out, 0)"):
    """x clipped to the range `low` to `high`; the gradient passes where low <= x <= high."""

    is_exact = True
    low: float
    high: float

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        if not self.low <= self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        return super().infer(ins)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.asarray(np.clip(ins[0], self.low, self.high)).astype(ins[0].dtype)

    def kinks(self, ins: Sequence[Array]) -> Array | None:
        gaps = [(ins[0] - bound).ravel() for bound in (self.low, self.high) if np.isfinite(bound)]
        return np.concatenate(gaps) if gaps else None

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        (x,) = ins
        if self.low > -np.inf:
            x = call("maximum", x, self.low)
        return call("minimum", x, self.high) if self.high < np.inf else x


class Where(ByFormula):
    """a where the condition is true, else b."""

    takes_pairs = True
    is_exact = True
    roles = ("condition", "a", "b")
    broadcasts = True
    onnx = "Where"
    gradient_text = ("", "where(condition, d_out, 0)", "where(condition, 0, d_out)")

    def infer(self, ins: Sequence[TensorType]) -> TensorType:
        """Return the broadcast type; raise ValueError if condition is not bool or dtypes differ."""
        condition, a, b = ins
        if condition.dtype != "bool":
            raise ValueError(
                f"condition is {condition.dtype}, not bool\ncompare it first: condition > 0"
            )
        if a.dtype != b.dtype:
            raise ValueError(f"a is {a.dtype}, b is {b.dtype}\ncast one of them with gc.cast")
        return TensorType(broadcast(condition.shape, broadcast(a.shape, b.shape)), a.dtype)

    def reference(self, ins: Sequence[Array]) -> Array:
        return np.where(ins[0], ins[1], ins[2])

    def iteration(self, ins: Sequence[TensorType]) -> Iteration:
        return elements(ins, self.infer(ins))

    def scalar(self, ins: Sequence[Expr], axis: Axis) -> Expr:
        return select(ins[0], ins[1], ins[2])


class Comparison(NoGradient, Compared, base=True):
    """The base of elementwise comparisons; the result is bool and has no gradient."""

    result = "bool"
    inplace: ClassVar[tuple[int, ...]] = ()
    gradient_text = ("", "")


class Less(Comparison, ufunc=np.less, onnx="Less"):
    """The comparison a < b, as bool."""


class LessEqual(Comparison, ufunc=np.less_equal, onnx="LessOrEqual"):
    """The comparison a <= b, as bool."""


class Greater(Comparison, ufunc=np.greater, onnx="Greater"):
    """The comparison a > b, as bool."""


class GreaterEqual(Comparison, ufunc=np.greater_equal, onnx="GreaterOrEqual"):
    """The comparison a >= b, as bool."""


class Equal(Comparison, ufunc=np.equal, onnx="Equal"):
    """The comparison a == b, as bool."""


class NotEqual(Comparison, ufunc=np.not_equal):
    """The comparison a != b, as bool."""


relu = of_one(Relu())
maximum = of_two(Maximum())
minimum = of_two(Minimum())


@with_attributes(
    example=("(N, 3)", "x, 0, 6", "(N, 3)"),
    x="Numbers of any shape.",
    high="The ends of the range; None leaves a side open.",
    raises="If an end is not a number, or low is above high.",
)
def clip(x: Value, low: float | None, high: float | None, *, name: str | None = None) -> Value:
    """Return x clipped to the range between two numbers.

    The gradient passes where low <= x <= high.
    """
    if not as_value("clip", x).type.is_float:
        return _clip_whole(x, low, high, name)
    bounds = Clip(
        -np.inf if low is None else checked_real("clip: low", low),
        np.inf if high is None else checked_real("clip: high", high),
    )
    return apply(bounds, x, name=name)


def _clip_whole(x: Value, low: float | None, high: float | None, name: str | None) -> Value:
    """Clip whole numbers, whose ends are whole numbers too."""
    if high is None:
        return x if low is None else maximum(x, low, name=name)
    return minimum(x if low is None else maximum(x, low), high, name=name)


@with_attributes(
    example=("(N, 3)", "x > 0, x, 0", "(N, 3)"),
    condition="A bool value.",
    b="Values of one dtype; one of the two may be a number.",
    returns="Of the broadcast shape, and the dtype of a and b.",
    raises="If the shapes do not broadcast, the condition is not bool, or the dtypes of a and b "
    "differ.",
)
def where(condition: Value, a: Operand, b: Operand, *, name: str | None = None) -> Value:
    """Return a where the condition is true, else b; all three broadcast."""
    left, right = pair("where", a, b)
    return left.builder.apply(Where(), condition, left, right, name=name)


less = of_two(Less())
less_equal = of_two(LessEqual())
greater = of_two(Greater())
greater_equal = of_two(GreaterEqual())
equal = of_two(Equal())
not_equal = of_two(NotEqual())
