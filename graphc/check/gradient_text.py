"""Checks of the formula of a gradient, which pictures show, against the gradient rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.base.errors import counted
from graphc.check.central_differences import relative_error
from graphc.ir.init import generator
from graphc.ir.op import Array, Op, attributes, formula_of
from graphc.runtime import reference


def formula_mistakes(op: Op, ins: Sequence[Array], tolerance: float) -> Iterator[str]:
    """Yield what is wrong with the formulas of an op's gradients, for float64 operands."""
    texts = op.gradient_text
    if len(texts) > max(len(ins), len(op.roles)):  # the last operands may be optional
        yield f"has {counted(len(texts), 'formula')} for {counted(len(ins), 'operand')}"
        return
    names = reference.operand_names(op, len(ins))
    wrt = tuple(name for name, x in zip(names, ins, strict=True) if x.dtype == np.float64)
    out = np.asarray(op.reference([np.array(x) for x in ins]))
    dout = generator(0, f"cotangent:{op.name}").standard_normal(out.shape)
    gradients = dict(zip(wrt, reference.backward(op, ins, dout, wrt), strict=True))
    known = {"out": out, "d_out": dout} | dict(zip(names, ins, strict=True))
    for position, name in enumerate(names if texts else ()):
        text = formula_of(op, position)
        if name in gradients:
            words = _Words(attributes(op) | known, ins[0])
            yield from _formula_mistake(op, name, text, words, gradients[name], tolerance)


def _formula_mistake(
    op: Op, name: str, text: str, words: _Words, gradient: Array, tolerance: float
) -> Iterator[str]:
    """Yield what is wrong with the formula for one operand."""
    try:
        with np.errstate(all="ignore"):
            stacked = text.replace(".T", ".swapaxes(-1, -2)")  # as stacks of matrices mean it
            said = np.asarray(eval(stacked or "0.0", {"__builtins__": {}}, words))
            said = _summed(said, gradient.shape)
    except Exception as error:
        known = "operands, attributes, out, d_out, NumPy's functions, onehot, " + ", ".join(WORDS)
        hint = f"; it may use {known}" if isinstance(error, NameError) else ""
        if not type(op).__module__.startswith("graphc.ops."):  # those have words of their own
            yield f"has {text!r} for {name}, which fails: {type(error).__name__}: {error}{hint}"
        return
    pairs = enumerate(zip(said.flat, gradient.flat, strict=True))
    entries = [(relative_error(float(a), float(b)), i) for i, (a, b) in pairs if np.isfinite(b)]
    gap, worst = max(entries, default=(0.0, 0))
    if gap > tolerance:
        at = [int(i) for i in np.unravel_index(worst, gradient.shape)]
        says = f"{text!r} gives {said.flat[worst]:.8g}" if text else "nothing flows"
        where = f" at {at}" if at else ""
        yield f"says of {name} that {says}{where}; grad gives {gradient.flat[worst]:.8g}"


def _summed(value: Array, shape: tuple[int, ...]) -> Array:
    """Return a gradient summed to an operand's shape, over the axes that were broadcast."""
    whole = np.broadcast_to(value, np.broadcast_shapes(value.shape, shape))
    whole = whole.sum(axis=tuple(range(whole.ndim - len(shape))))
    axes = tuple(i for i, size in enumerate(shape) if whole.shape[i] != size)
    return np.asarray(whole.sum(axis=axes, keepdims=True))


WORDS: Mapping[str, Callable[..., Any]] = {
    "sum": lambda value, axis=None: np.asarray(value).sum(axis=axis, keepdims=True),
    "mean": lambda value, axis=None: np.asarray(value).mean(axis=axis, keepdims=True),
    "max": lambda value, axis=None: np.asarray(value).max(axis=axis, keepdims=True),
    "sigmoid": lambda value: 1 / (1 + np.exp(-value)),
    "relu": lambda value: np.maximum(value, 0),
    "column": lambda value: value[:, None],
}
"""The words of formulas besides NumPy's functions; what is reduced keeps its axes."""


class _Words(dict[str, Any]):
    """The names that a formula may use; those that it does not hold are NumPy's functions."""

    def __init__(self, known: Mapping[str, Any], x: Array) -> None:
        classes = {"onehot": lambda labels: np.eye(x.shape[-1])[labels]}
        super().__init__({**WORDS, **classes, **known})

    def __missing__(self, name: str) -> Any:
        found = getattr(np, name, None)
        if found is None or name.startswith("_"):
            raise KeyError(name)
        return found
