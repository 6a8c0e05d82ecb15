"""Kernels of elementwise ops: mostly one ufunc each."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from graphc.backends.numpy.kernel import Call, Kernel, number
from graphc.ir.op import Array, Op
from graphc.ops.elementwise import Power
from graphc.ops.select import Clip
from graphc.ops.trigonometry import ByUfunc


def _unary(ufunc: np.ufunc) -> Kernel:
    def kernel(
        op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
    ) -> Sequence[Call]:
        return (partial(ufunc, ins[0], out=out),)

    return kernel


def _binary(ufunc: np.ufunc) -> Kernel:
    def kernel(
        op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]
    ) -> Sequence[Call]:
        return (partial(ufunc, ins[0], ins[1], out=out),)

    return kernel


def power(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for x ** exponent, by `np.power` only if no cheaper ufunc is the same."""
    assert isinstance(op, Power)
    (x,) = ins
    cheap = {2.0: np.square, 0.5: np.sqrt, -1.0: np.reciprocal, 1.0: np.positive}
    if op.exponent in cheap:
        return (partial(cheap[op.exponent], x, out=out),)
    return (partial(np.power, x, number(op.exponent, x), out=out),)


def sigmoid(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for 1 / (1 + e**-x), with -x clipped to the largest number that exp can take."""
    (x,) = ins
    limit, one = number(np.floor(np.log(np.finfo(x.dtype).max)), x), number(1, x)
    return (
        partial(np.negative, x, out=out),
        partial(np.minimum, out, limit, out=out),
        partial(np.exp, out, out=out),
        partial(np.add, out, one, out=out),
        partial(np.reciprocal, out, out=out),
    )


def relu(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for max(x, 0).

    They clip: `np.maximum` has no vector loop for a scalar operand, but clip has one.
    """
    (x,) = ins
    return (partial(x.clip, number(0, x), number(np.inf, x), out),)


def relu_grad(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that compute dout where the relu's result is above 0, else 0.

    They multiply the bits of dout by 0 or 1, as integers: quicker than `where=`, and exact even if
    dout is not finite.
    """
    result, dout = ins
    (mask,) = scratch
    bits = integers(out)
    return (
        partial(np.greater, result, number(0, result), mask),
        partial(np.copyto, out.view(bits), mask),
        partial(np.multiply, out.view(bits), dout.view(bits), out.view(bits)),
    )


def integers(like: Array) -> np.dtype[np.signedinteger]:
    """Return the integer dtype of the same size."""
    return np.dtype(f"int{8 * like.itemsize}")


def clip(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that clip x to between two numbers."""
    assert isinstance(op, Clip)
    (x,) = ins
    return (partial(x.clip, number(op.low, x), number(op.high, x), out),)


def where(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls that write b everywhere, then a where the condition holds."""
    condition, a, b = ins
    return partial(np.copyto, out, b), partial(np.copyto, out, a, where=condition)


def trunc_div(op: Op, ins: Sequence[Array], out: Array, scratch: Sequence[Array]) -> Sequence[Call]:
    """Return calls for a / b toward zero: rounded down, plus one if negative and inexact."""
    a, b = ins
    product, uneven, below = scratch
    return (
        partial(np.floor_divide, a, b, out=out),
        partial(np.multiply, out, b, out=product),
        partial(np.not_equal, product, a, out=uneven),
        partial(np.less, out, number(0, out), out=below),
        partial(np.logical_and, uneven, below, out=uneven),
        partial(np.add, out, uneven, out=out, casting="unsafe"),
    )


ELEMENTWISE: dict[str, Kernel] = {
    "add": _binary(np.add),
    "sub": _binary(np.subtract),
    "mul": _binary(np.multiply),
    "div": _binary(np.true_divide),
    "maximum": _binary(np.maximum),
    "minimum": _binary(np.minimum),
    "less": _binary(np.less),
    "less_equal": _binary(np.less_equal),
    "greater": _binary(np.greater),
    "greater_equal": _binary(np.greater_equal),
    "equal": _binary(np.equal),
    "not_equal": _binary(np.not_equal),
    "neg": _unary(np.negative),
    "exp": _unary(np.exp),
    "log": _unary(np.log),
    "sqrt": _unary(np.sqrt),
    "abs": _unary(np.absolute),
    "sign": _unary(np.sign),
    "tanh": _unary(np.tanh),
    "floor": _unary(np.floor),
    "ceil": _unary(np.ceil),
    "round": _unary(np.rint),
    "log1p": _unary(np.log1p),
    "expm1": _unary(np.expm1),
    **{cls.name: _unary(cls.ufunc) for cls in ByUfunc.__subclasses__()},
    "floor_div": _binary(np.floor_divide),
    "trunc_div": trunc_div,
    "mod": _binary(np.mod),
    "fmod": _binary(np.fmod),
    "and": _binary(np.bitwise_and),
    "or": _binary(np.bitwise_or),
    "xor": _binary(np.bitwise_xor),
    "not": _unary(np.invert),
    "pow": _binary(np.power),
    "power": power,
    "sigmoid": sigmoid,
    "relu": relu,
    "relu_grad": relu_grad,
    "clip": clip,
    "where": where,
}
