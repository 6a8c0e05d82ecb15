"""What an operand is while a model is read: a value of the net, or numbers that are known.

Shapes are static, so what a model computes of shapes alone is known when it is read: it is
computed at once and never becomes a node.  A shape with the open batch dimension is known too,
as an array of objects, of which some are multiples of N.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from graphc.build import Value
from graphc.op import Array
from graphc.tensor_type import ITEMSIZE, Batch, Dim, Shape, TensorType


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """An initializer of floats: it becomes a parameter where it is read as a value."""

    name: str
    array: Array
    shared: bool = False
    """Whether several nodes read it."""


Operand = Value | Array | Weight
"""A value of the net, numbers known now, or an initializer."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A sequence, of which it is known now how many entries it has."""

    entries: tuple[Operand, ...]


Held = Operand | Parts
"""What a name of a model stands for."""


class NotSupported(ValueError):
    """What a converter says of a node that graphc has no meaning for."""


class NeedsInputs(Exception):
    """Inputs of the model must be known before it can be read, since shapes depend on them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(*names)
        self.names = names


def is_known(operand: Held | None) -> TypeGuard[Array | None]:
    """Whether the numbers are known, and no training changes them."""
    return operand is None or isinstance(operand, np.ndarray)


def type_of(operand: Held) -> TensorType:
    """Shape and dtype; NotSupported for a dtype that graphc has not."""
    if isinstance(operand, Value):
        return operand.type
    if isinstance(operand, Parts):
        raise NotSupported("a sequence has no type of its own")
    array = operand.array if isinstance(operand, Weight) else operand
    return TensorType(array.shape, "int64" if is_symbolic(array) else checked_dtype(array))


def checked_dtype(array: Array) -> str:
    """The dtype's name; NotSupported where graphc has it not."""
    if array.dtype.name not in ITEMSIZE:
        raise NotSupported(f"graphc has no {array.dtype.name}")
    return array.dtype.name


def is_symbolic(array: Array) -> bool:
    """Whether it is a shape in which the batch dimension stands."""
    return array.dtype == object


def dims_array(dims: Iterable[Dim]) -> Array:
    """Dimensions as a known array: of int64, or of objects where N is among them."""
    found = list(dims)
    if any(isinstance(dim, Batch) for dim in found):
        array = np.empty(len(found), object)
        array[:] = found
        return array
    return np.array(found, np.int64)


def plain_array(array: Array) -> Array:
    """An array of objects as one of int64 where no N is left in it."""
    if is_symbolic(array) and not any(isinstance(dim, Batch) for dim in array.flat):
        return array.astype(np.int64)
    return array


def shape_of(array: Array) -> Shape:
    """The dimensions that a known array lists; NotSupported where they are no whole numbers."""
    if array.dtype.kind not in "iuO" or array.ndim > 1:
        raise NotSupported(f"{array.dtype}{list(array.shape)} lists no dimensions")
    return tuple(item if isinstance(item, Batch) else int(item) for item in array.reshape(-1))


def item_of(array: Array) -> Any:
    """The one number of a known array; NotSupported where it has several."""
    if array.size != 1:
        raise NotSupported(f"one number is wanted where there are {array.size}")
    item = array.reshape(-1)[0]
    if isinstance(item, np.float32):
        return float(str(item))  # the shortest decimal: 0.7 is read as 0.7
    return item if is_symbolic(array) else item.item()
