"""Constants of any numbers, and their meaning: also that of what a pass computes from them."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from graphc.check.prove.poly import Index
from graphc.check.prove.terms import FUNCTIONS, Meaning, Term, function, literal, whole
from graphc.ir.graph import Node
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import Shape
from graphc.ops.source import Constant


class Traced(np.ndarray[Any, np.dtype[Any]]):
    """An array that knows the function, and the arrays, that it was computed by on each element."""

    function: str
    args: tuple[Any, ...]
    sizes: tuple[int, ...]
    """The sizes of its shape, as symbols."""

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *ins: Any, **options: Any) -> Any:
        plain = [np.asarray(one) if isinstance(one, Traced) else one for one in ins]
        found = getattr(ufunc, method)(*plain, **options)
        name = _SCALARS.get(ufunc.__name__)
        known = all(isinstance(one, (Traced, int, float)) for one in ins)
        if method != "__call__" or name is None or not known:
            return found
        sizes = max((one.sizes for one in ins if isinstance(one, Traced)), key=len)
        shapes = (one.shape for one in plain if isinstance(one, np.ndarray))
        fits = all(shape == found.shape[found.ndim - len(shape) :] for shape in shapes)
        return traced(found, name, ins, sizes) if fits else found

    def astype(self, dtype: Any, *args: Any, **options: Any) -> Any:
        """Return the same numbers, but for their rounding, in another dtype."""
        return traced(np.asarray(self).astype(dtype), self.function, self.args, self.sizes)


_SCALARS = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "negative": "neg",
    "sqrt": "sqrt",
}
"""NumPy's functions, by the names that kernels have for them."""
TRACED: dict[tuple[str, bytes], Traced] = {}
"""The traced arrays by dtype and bytes, by which constants are found that were made of them."""


def traced(
    array: Array, function: str, args: tuple[Any, ...] = (), sizes: tuple[int, ...] = ()
) -> Traced:
    """Return an array with its origin; without `args` it holds any numbers, named by `function`."""
    plain = np.array(array, order="C", subok=False)
    made = plain.view(Traced)
    made.function, made.args, made.sizes = function, args, sizes
    TRACED[plain.dtype.name, plain.tobytes()] = made
    return made


class AnyConstant(Constant):
    """A constant of any numbers: what a pass computes from them is traced."""

    def array(self) -> Array:
        """Return the array, which knows its origin."""
        return traced(super().array(), self.label or "constant", sizes=self.shape)


def _origin(op: Op) -> Traced | None:
    return TRACED.get((op.dtype, op.data)) if isinstance(op, Constant) else None


def shape_of(node: Node) -> Shape:
    """Return the shape of a node, with symbols if it is a constant that a pass computed."""
    origin = _origin(node.op)
    return node.type.shape if origin is None else origin.sizes


def elements(op: Constant) -> Meaning:
    """Return the elements of a constant: one number, or any numbers if they differ."""
    array = op.array()
    origin = _origin(op)
    if origin is not None:
        return partial(_computed, origin)
    if array.size and np.all(array == array.flat[0]) and not op.label:
        return lambda index: literal(array.flat[0].item())
    return partial(any_element, f"{op.label} {op.shape} {hash(op.data)}")


def any_element(name: str, index: Index) -> Term:
    """Return an element of the array of any numbers of that name."""
    return function(name, len(index))(*map(whole, index))


def _computed(found: Traced, index: Index) -> Term:
    """Return an element of an array that a pass computed, from those that it was computed from."""
    if not found.args:
        return any_element(found.function, index)
    args = [
        _computed(arg, index[len(index) - arg.ndim :]) if isinstance(arg, Traced) else literal(arg)
        for arg in found.args
    ]
    return FUNCTIONS[found.function](*args)
