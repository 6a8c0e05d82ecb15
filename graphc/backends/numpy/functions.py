"""The scalar functions of kernels as calls of NumPy with out=.

A function's rule returns the calls that write `out` from its arguments, which broadcast to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from graphc.backends.backend import Call
from graphc.backends.numpy.values import number
from graphc.base.door import ask
from graphc.ir.narrow import narrow
from graphc.ir.op import Array
from graphc.ir.tensor_type import ORDERED
from graphc.kernels.interpret import FUNCTIONS as VOCABULARY

Rule = Callable[..., Sequence[Call]]
"""rule(out, *arguments, *work): the calls in order; `work` has the shape of `out`."""


@dataclass(frozen=True, slots=True)
class Function:
    """A rule, the dtypes of its work ("" is that of `out`), and the arguments it may overwrite.

    `over` are the positions of the arguments that may share memory with `out`.
    """

    rule: Rule
    work: tuple[str, ...] = ()
    over: tuple[int, ...] = (0, 1, 2)


def _call(ufunc: np.ufunc, out: Array, *ins: Array) -> Sequence[Call]:
    if ufunc in (np.maximum, np.minimum):  # NumPy warns of a third positional argument
        return (partial(ufunc, *ins, out=out),)
    return (partial(ufunc, *ins, out),)  # quicker than with out=


def _sigmoid(out: Array, x: Array) -> Sequence[Call]:
    """Return calls for 1 / (1 + e**-x), with -x clipped to the largest number that exp can take."""
    limit, one = number(np.floor(np.log(np.finfo(out.dtype).max)), out.dtype), number(1, out.dtype)
    return (
        partial(np.negative, x, out),
        partial(np.minimum, out, limit, out=out),
        partial(np.exp, out, out),
        partial(np.add, out, one, out),
        partial(np.reciprocal, out, out),
    )


FEW = 512
"""Up to this many elements, two slow calls are quicker than four fast ones."""


def _select(
    out: Array, condition: Array, a: Array, b: Array, mask: Array, change: Array
) -> Sequence[Call]:
    """Return calls that write a where the condition holds, else b.

    They compute b + (a - b) * condition on the bits, as integers, which is exact: `where=` takes
    thirty times as long if the condition changes from element to element.
    """
    if out.size <= FEW:
        chosen = partial(np.copyto, out, a, where=condition)
        there = out.shape == b.shape and out.ctypes.data == b.ctypes.data
        return (chosen,) if there else (partial(np.copyto, out, b), chosen)
    bits = f"int{8 * out.itemsize}"
    mask, change = mask.view(bits), change.view(bits)
    return (
        partial(np.copyto, mask, condition),
        partial(np.subtract, a.view(bits), b.view(bits), change),
        partial(np.multiply, mask, change, mask),
        partial(np.add, b.view(bits), mask, out.view(bits)),
    )


def select_or_zero(out: Array, condition: Array, a: Array) -> Sequence[Call]:
    """Return calls that write a where the condition holds, else 0.

    They multiply the bits by 0 or 1: quicker than `where=`, and exact even if a is not finite.
    """
    bits = f"int{8 * out.itemsize}"
    chosen = out.view(bits)
    return (
        partial(np.copyto, chosen, condition),
        partial(np.multiply, chosen, a.view(bits), chosen),
    )


def clip(out: Array, x: Array, low: float, high: float) -> Sequence[Call]:
    """Return a call that clips x to two numbers, by a vector loop that np.maximum lacks."""
    return (partial(x.clip, number(low, x.dtype), number(high, x.dtype), out),)


def cast(out: Array, x: Array) -> Sequence[Call]:
    """Return a call that converts x, toward zero for integers."""
    return (partial(np.copyto, out, x, casting="unsafe"),)


def to_ordered(out: Array, x: Array, words: Array, mask: Array) -> Sequence[Call]:
    """Return calls that round x to bits of `ORDERED`, as `Narrow.rounded` does."""
    sizes = words.view(np.float32)
    return (
        *_near(x, words),
        partial(np.right_shift, words, number(16, "uint32"), words),
        *cast(out, words),
        partial(np.absolute, x, sizes),
        partial(np.less, sizes, number(narrow().LEAST, "float32"), mask),
        partial(np.copyto, out, number(0, out.dtype), where=mask),
        partial(np.isnan, x, mask),
        partial(np.copyto, out, number(narrow().NAN, out.dtype), where=mask),
    )


def round_ordered(out: Array, x: Array, words: Array, mask: Array) -> Sequence[Call]:
    """Return calls that round x to numbers of `ORDERED`, as `Narrow.nearest` does."""
    return (
        *_near(x, words),
        partial(np.bitwise_and, words, number(0xFFFF0000, "uint32"), words),
        partial(np.isnan, x, mask),
        partial(np.copyto, words.view(np.float32), x, where=mask),
        partial(np.copyto, out, words.view(np.float32)),
    )


def _near(x: Array, words: Array) -> Sequence[Call]:
    """Return calls that write words whose upper halves are x rounded, unless it is NaN."""
    bits = x.view(np.uint32)
    shift, one, half = (number(value, "uint32") for value in (16, 1, 0x7FFF))
    return (
        partial(np.right_shift, bits, shift, words),
        partial(np.bitwise_and, words, one, words),
        partial(np.add, words, bits, words),
        partial(np.add, words, half, words),
    )


UFUNCS: Mapping[str, np.ufunc] = {
    **{name: known for name, known in VOCABULARY.items() if isinstance(known, np.ufunc)},
    "square": np.square,
    "reciprocal": np.reciprocal,
}
"""The functions that are one ufunc; the last two are cheaper forms of powers."""
FUNCTIONS: Mapping[str, Function] = {
    **{name: Function(partial(_call, ufunc)) for name, ufunc in UFUNCS.items()},
    "sigmoid": Function(_sigmoid),
    "select": Function(_select, ("", ""), (2,)),
    "select_or_zero": Function(select_or_zero, (), ()),
    "clip": Function(clip),
    "cast": Function(cast, (), ()),
    f"to_{ORDERED}": Function(to_ordered, ("uint32", "bool"), ()),
    f"round_{ORDERED}": Function(round_ordered, ("uint32", "bool")),
}
"""Rules by name: those of `graphc.kernels.interpret`, and cheaper forms of special cases."""


def function(name: str) -> Function | None:
    """Return the rule of a function by its name; None for what is not one."""
    if name == "erf":
        found: Function | None = ask("numpy erf")
        return found
    return FUNCTIONS.get(name)
