"""Writers of elementwise ops as ONNX nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from graphc.ir.op import Op
from graphc.onnx.export.writer import Writer
from graphc.ops.activations.exponential import Celu, Elu, Selu
from graphc.ops.activations.gated import Mish
from graphc.ops.activations.piecewise import (
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    PRelu,
    Shrink,
    ThresholdedRelu,
)
from graphc.ops.activations.softsign import Softsign
from graphc.ops.division import Fmod, Mod, TruncDiv
from graphc.ops.elementwise import Add, Div, Mul, Neg, Power, Sub
from graphc.ops.functions import Abs, Exp, Log, Sigmoid, Sign, Sqrt, Tanh
from graphc.ops.logic import And, Not, Or, Xor
from graphc.ops.pow import Pow
from graphc.ops.rounding import Ceil, Floor, Round
from graphc.ops.select import (
    Clip,
    Equal,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Maximum,
    Minimum,
    Relu,
    Where,
)
from graphc.ops.smooth import Erf, Softplus
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

Emit = Callable[[Writer, Op, Sequence[str], str], bool]
"""A writer of an op over named operands as a named value; it returns False if ONNX lacks it."""


def _plain(name: str) -> Emit:
    def emit(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
        w.emit(name, ins, out)
        return True

    return emit


def _power(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Power)
    w.emit("Pow", [*ins, w.constant(op.exponent, w.types[ins[0]].dtype)], out)
    return True


def _clip(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Clip)
    dtype = w.types[ins[0]].dtype
    low = w.constant(op.low, dtype) if op.low > -inf else ""
    high = w.constant(op.high, dtype) if op.high < inf else ""
    w.emit("Clip", [*ins, low, high], out)
    return True


def _logic(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write a logical op on bools, or a bitwise one on integers."""
    bits = "" if w.types[ins[0]].dtype == "bool" else "Bitwise"
    w.emit(bits + type(op).__name__, ins, out)
    return True


def _trunc_div(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    if _may_be_zero(w, ins[1]):
        return False
    w.emit("Div", ins, out)
    return True


def _may_be_zero(w: Writer, divisor: str) -> bool:
    """Return whether an integer divisor may be 0; ONNX's runtimes refuse to divide by 0."""
    numbers = w.constants.get(divisor)
    return numbers is None or not bool(numbers.all())


def _mod(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write a remainder; ONNX has one with the sign of the divisor for integers only."""
    floats = w.types[ins[0]].is_float
    if isinstance(op, Mod) if floats else _may_be_zero(w, ins[1]):
        return False
    w.emit("Mod", ins, out, fmod=int(isinstance(op, Fmod)))
    return True


def _with_alpha(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, (Elu, Celu, ThresholdedRelu))
    if isinstance(op, Celu) and w.types[ins[0]].dtype != "float32":
        return False
    w.emit(type(op).__name__, ins, out, alpha=op.alpha)
    return True


def _shrink(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, Shrink)
    w.emit("Shrink", ins, out, lambd=op.threshold, bias=op.bias)
    return True


def _leaky_relu(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    assert isinstance(op, LeakyRelu)
    w.emit("LeakyRelu", ins, out, alpha=op.slope)
    return True


def _prelu(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    """Write PRelu of a matrix; ONNX broadcasts slopes from the last axis, so others do not fit."""
    if w.types[ins[0]].rank != 2:
        return False
    w.emit("PRelu", ins, out)
    return True


def _hard_sigmoid(w: Writer, op: Op, ins: Sequence[str], out: str) -> bool:
    w.emit("HardSigmoid", ins, out, alpha=1 / 6, beta=0.5)
    return True


ELEMENTS: dict[type[Op], Emit] = {
    **{op: _plain(op.__name__) for op in (Add, Sub, Mul, Div, Neg, Exp, Log, Sqrt, Abs, Sign)},
    **{op: _plain(op.__name__) for op in (Tanh, Sigmoid, Erf, Softplus, Relu, Where)},
    **{op: _plain(op.__name__) for op in (Equal, Less, Greater)},
    **{op: _plain(op.__name__) for op in (Selu, Mish, Softsign, HardSwish)},
    LessEqual: _plain("LessOrEqual"),
    GreaterEqual: _plain("GreaterOrEqual"),
    Maximum: _plain("Max"),
    Minimum: _plain("Min"),
    Power: _power,
    Clip: _clip,
    LeakyRelu: _leaky_relu,
    **{op: _plain(op.__name__) for op in (Sin, Cos, Tan, Asin, Acos, Atan)},
    **{op: _plain(op.__name__) for op in (Sinh, Cosh, Asinh, Acosh, Atanh)},
    **{op: _plain(op.__name__) for op in (Floor, Ceil, Round, Pow)},
    **dict.fromkeys((Elu, Celu, ThresholdedRelu), _with_alpha),
    **dict.fromkeys((And, Or, Xor, Not), _logic),
    TruncDiv: _trunc_div,
    Mod: _mod,
    Fmod: _mod,
    Shrink: _shrink,
    PRelu: _prelu,
    HardSigmoid: _hard_sigmoid,
}
"""The writers by graphc's op."""
