"""Operands while a model is read: values of the net, or numbers that are known.

Shapes are static, so values that a model computes from shapes alone are known when it is read: they
are computed at once and never become nodes.  A shape with the open batch dimension is known too, as
an array of objects, some of which are multiples of N.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from onnx import TensorProto, helper

from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import ITEMSIZE, Batch, Dim, Shape, TensorType


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """An initializer of floats; it becomes a parameter if a node reads it as a value."""

    name: str
    array: Array
    shared: bool = False
    """Whether several nodes read it."""


Operand = Value | Array | Weight
"""A value of the net, an array known now, or an initializer."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A sequence whose length is known now."""

    entries: tuple[Operand, ...]


Held = Operand | Parts
"""Anything that a name of a model can refer to."""


class NotSupported(ValueError):
    """An error of a converter for a node that graphc cannot express."""


class NeedsInputs(Exception):
    """An error for inputs that must be known to read the model, since shapes depend on them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(*names)
        self.names = names


def is_known(operand: Held | None) -> TypeGuard[Array | None]:
    """Return whether the numbers are known and training does not change them."""
    return operand is None or isinstance(operand, np.ndarray)


def type_of(operand: Held) -> TensorType:
    """Return shape and dtype; raise NotSupported for a dtype that graphc does not have."""
    if isinstance(operand, Value):
        return operand.type
    if isinstance(operand, Parts):
        raise NotSupported("a sequence has no type of its own")
    array = operand.array if isinstance(operand, Weight) else operand
    return TensorType(array.shape, "int64" if is_symbolic(array) else checked_dtype(array))


def checked_dtype(array: Array) -> str:
    """Return the dtype's name; raise NotSupported if graphc does not have it."""
    if array.dtype.name not in ITEMSIZE:
        raise NotSupported(f"graphc has no {array.dtype.name}")
    return array.dtype.name


def dtype_of(number: Any) -> str:
    """Return the dtype for a number of ONNX's; raise NotSupported if graphc does not have it."""
    if isinstance(number, str):  # before opset 6
        number = TensorProto.DataType.Value(number)
    try:
        name = str(helper.tensor_dtype_to_np_dtype(number).name)
    except (KeyError, ValueError):
        name = f"dtype {number}"
    if name not in ITEMSIZE:
        raise NotSupported(f"graphc has no {name}")
    return name


def is_symbolic(array: Array) -> bool:
    """Return whether the array is a shape that may contain the batch dimension."""
    return array.dtype == object


def dims_array(dims: Iterable[Dim]) -> Array:
    """Return dimensions as a known array: of int64, or of objects if N is among them."""
    found = list(dims)
    if any(isinstance(dim, Batch) for dim in found):
        array = np.empty(len(found), object)
        array[:] = found
        return array
    return np.array(found, np.int64)


def plain_array(array: Array) -> Array:
    """Return an array of objects as one of int64 if it contains no N."""
    if is_symbolic(array) and not any(isinstance(dim, Batch) for dim in array.flat):
        return array.astype(np.int64)
    return array


def shape_of(array: Array) -> Shape:
    """Return the dimensions that an array lists; raise NotSupported if they are not integers."""
    if array.dtype.kind not in "iuO" or array.ndim > 1:
        raise NotSupported(f"{array.dtype}{list(array.shape)} is not a list of dimensions")
    return tuple(item if isinstance(item, Batch) else int(item) for item in array.reshape(-1))


def item_of(array: Array) -> Any:
    """Return the single number of a known array; raise NotSupported if there are more or none."""
    if array.size != 1:
        raise NotSupported(f"one number is expected, there are {array.size}")
    item = array.reshape(-1)[0]
    if isinstance(item, np.float32):
        return shortest(item)
    return item if is_symbolic(array) else item.item()


def shortest(single: float | np.float32) -> float:
    """Return the shortest decimal that rounds to the float32: 0.9 is read as 0.9."""
    return float(str(np.float32(single)))
