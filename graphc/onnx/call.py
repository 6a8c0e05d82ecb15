"""An ONNX node that is being converted: its attributes, and its values or known arrays.

Shapes are static, so values that a model computes from shapes alone are known when it is read: they
are computed at once and never become nodes.  A shape with the open batch dimension is known too, as
an array of objects, some of which are multiples of N.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper

from graphc.base.errors import ModelFileError
from graphc.base.work import spend_array, spend_bytes, spend_elements
from graphc.ir.build import Value
from graphc.ir.op import Array
from graphc.ir.tensor_type import DECLARED, Batch, Dim, N, Shape, TensorType
from graphc.onnx.model_file import array_of

if TYPE_CHECKING:
    from graphc.onnx.scope import Scope


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """An initializer of floats; it becomes a parameter if a node reads it as a value."""

    name: str
    array: Array
    shared: bool = False
    """True if several nodes read it."""


Operand = Value | Array | Weight
"""A value of the net, an array known now, or an initializer."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownSequence:
    """A sequence whose length is known now."""

    entries: tuple[Operand, ...]


@dataclass(frozen=True, slots=True, eq=False)
class RowIndices:
    """Integers of shape (N, ...) that are `step * row + offsets` for each row of the batch."""

    step: Array
    """Of a shape that broadcasts to that of the offsets; NaN if the integers are not known."""
    offsets: Array


Binding = Operand | KnownSequence | RowIndices
"""The meaning of a name in a model."""


class NotSupported(ValueError):
    """An error of a converter for a node that graphc cannot express."""


class NeedsInputs(Exception):
    """An error for inputs that must be known to read the model, since shapes depend on them."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(*names)
        self.names = names


def is_known(operand: Binding | None) -> TypeGuard[Array | None]:
    """Return whether an operand is missing, or its numbers are known and constant."""
    return operand is None or isinstance(operand, np.ndarray)


def type_of(operand: Binding) -> TensorType:
    """Return shape and dtype; raise NotSupported for a dtype that graphc does not have."""
    if isinstance(operand, Value):
        return operand.type
    if isinstance(operand, KnownSequence):
        raise NotSupported("a sequence has no type of its own")
    if isinstance(operand, RowIndices):
        return TensorType((N, *operand.offsets.shape), "int64")
    array = operand.array if isinstance(operand, Weight) else operand
    return TensorType(array.shape, "int64" if is_symbolic(array) else checked_dtype(array))


def checked_dtype(array: Array) -> str:
    """Return the dtype's name; raise NotSupported if graphc does not have it."""
    if array.dtype.name not in DECLARED:
        raise NotSupported(f"graphc has no {array.dtype.name}")
    return array.dtype.name


def dtype_of(number: Any) -> str:
    """Return the dtype of an ONNX type code, float32 for that of BFLOAT16.

    Raise NotSupported if graphc does not have it.
    """
    if isinstance(number, str):  # a name before opset 6
        number = TensorProto.DataType.Value(number)
    try:
        name = str(helper.tensor_dtype_to_np_dtype(number).name)
    except (KeyError, ValueError):
        name = f"dtype {number}"
    name = "float32" if name == "bfloat16" else name
    if name not in DECLARED:
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


def attributes_of(node: NodeProto, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's attributes by name; references to a function's attributes read `given`."""
    found: dict[str, Any] = {}
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if attribute.ref_attr_name in given:
                found[attribute.name] = given[attribute.ref_attr_name]
        else:
            found[attribute.name] = _value(attribute)
    return found


def _value(attribute: AttributeProto) -> Any:
    spend_elements(8 * (len(attribute.ints) + len(attribute.floats) + len(attribute.strings)))
    value = _VALUES.get(attribute.type)
    return attribute if value is None else value(attribute)  # no converter reads other kinds


def _tensor(attribute: AttributeProto) -> Array:
    spend_elements(prod(attribute.t.dims))
    return array_of(attribute.t)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ModelFileError("an attribute is not text") from None


_VALUES: dict[int, Callable[[AttributeProto], Any]] = {
    AttributeProto.FLOAT: lambda attribute: shortest(attribute.f),
    AttributeProto.INT: lambda attribute: int(attribute.i),
    AttributeProto.STRING: lambda attribute: _text(attribute.s),
    AttributeProto.FLOATS: lambda attribute: tuple(map(shortest, attribute.floats)),
    AttributeProto.INTS: lambda attribute: tuple(map(int, attribute.ints)),
    AttributeProto.STRINGS: lambda attribute: tuple(map(_text, attribute.strings)),
    AttributeProto.TENSOR: _tensor,
    AttributeProto.GRAPH: lambda attribute: attribute.g,
}
"""The Python value of an attribute, by the attribute's kind."""
ITEM = 16
"""The number of elements that NumPy computes in the time in which Python computes one."""
Result = Binding | Sequence[Binding]
"""The result of a converter: one value, or as many as the node has outputs."""
Converter = Callable[["Call"], Result]
"""The rule that makes values of the net, or known arrays, from a node."""


@dataclass(frozen=True, eq=False)
class Call:
    """An ONNX node that is being converted; a missing optional operand is None."""

    scope: Scope
    op: str
    version: int
    """The version of the operator set that the model asks for."""
    operands: tuple[Binding | None, ...]
    attributes: Mapping[str, Any]
    outputs: tuple[str, ...]
    narrow: tuple[bool, ...] = ()
    """True for each operand of BFLOAT16, which is held in float32."""

    def __len__(self) -> int:
        return len(self.operands)

    @property
    def name(self) -> str:
        """The name of the first result of the ONNX node."""
        return next(filter(None, self.outputs), self.op)

    def is_read(self, position: int) -> bool:
        """Return whether the model reads the result at `position`."""
        return position < len(self.outputs) and self.scope.reads(self.outputs[position])

    def has(self, position: int) -> bool:
        """Return whether the operand at `position` is given."""
        return self._given(position) is not None

    def _given(self, position: int) -> Binding | None:
        return self.operands[position] if position < len(self.operands) else None

    def operand(self, position: int) -> Operand:
        """Return the operand unchanged; raise NotSupported if it is missing or a sequence."""
        operand = self._given(position)
        if operand is None:
            raise NotSupported(f"operand {position} is missing")
        if isinstance(operand, KnownSequence):
            raise NotSupported(f"operand {position} is a sequence")
        if isinstance(operand, RowIndices):
            raise NotSupported(f"operand {position} is the numbers of rows, which are not known")
        return operand

    def entries(self, position: int) -> tuple[Operand, ...]:
        """Return the entries of a sequence operand; raise NotSupported if it is not a sequence."""
        operand = self._given(position)
        if not isinstance(operand, KnownSequence):
            raise NotSupported(f"operand {position} is not a sequence")
        return operand.entries

    def value(self, position: int) -> Value:
        """Return the operand as a value of the net; an initializer becomes a parameter."""
        return self.scope.value(self.operand(position))

    def values(self) -> list[Value]:
        """Return all operands as values of the net."""
        return [self.value(i) for i in range(len(self.operands))]

    def optional(self, position: int) -> Value | None:
        """Return the operand as a value of the net, or None if it is not given."""
        return self.value(position) if self.has(position) else None

    def type(self, position: int) -> TensorType:
        """Return the operand's type."""
        return type_of(self.operand(position))

    def constant(self, array: Any, dtype: str | None = None) -> Value:
        """Return the numbers as a value of the net."""
        return self.scope.value(np.asarray(array, dtype))

    def known(self, position: int) -> bool:
        """Return whether the operand's numbers are known now, as those of an initializer are."""
        operand = self._given(position)
        return is_known(operand) or isinstance(operand, Weight)

    def array(self, position: int) -> Array:
        """Return the operand's numbers, which must be known now.

        Raise NeedsInputs if they depend on inputs of the model, NotSupported if on parameters.
        """
        operand = self.operand(position)
        if isinstance(operand, Value):
            raise self._unknown(operand, position)
        array = operand.array if isinstance(operand, Weight) else operand
        spend_array(array.size)  # a broadcast array holds one number until it is copied
        return array

    def dims(self, position: int) -> Shape:
        """Return the dimensions that the operand lists, which may contain N."""
        array = self.array(position)
        spend_elements(ITEM * array.size)
        spend_bytes(4 * ITEM * array.size)
        return shape_of(array)

    def ints(self, position: int) -> tuple[int, ...]:
        """Return the integers that the operand lists; raise NotSupported if N is among them."""
        found = self.dims(position)
        if not all(isinstance(dim, int) for dim in found):
            raise NotSupported(f"operand {position} depends on the batch dimension")
        return tuple(dim for dim in found if isinstance(dim, int))

    def number(self, position: int, default: Any = None) -> Any:
        """Return the operand's one number, which must be known now; the default if missing."""
        return item_of(self.array(position)) if self.has(position) else default

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute: a number, a string, a tuple, or an array."""
        return self.attributes.get(name, default)

    def required(self, name: str) -> Any:
        """Return an attribute; raise NotSupported if the node does not have it."""
        if name not in self.attributes:
            raise NotSupported(f"the attribute {name!r} is missing")
        return self.attributes[name]

    def free_name(self) -> str:
        """Return the name of the first result, or a similar one that no node has."""
        return self.scope.reading.builder.unique(self.name)

    def unless(self, **defaults: Any) -> None:
        """Check that attributes have these values, if given; raise NotSupported otherwise."""
        for name, default in defaults.items():
            if self.attribute(name, default) != default:
                raise NotSupported(f"{name}={self.attributes[name]!r} is not supported")

    def _unknown(self, value: Value, position: int) -> Exception:
        graph = value.builder.graph()
        needed = graph.upstream([value.name])
        inputs = (node.name for node in graph if node.op.is_input)
        names = tuple(name for name in inputs if name in needed)
        if names:
            return NeedsInputs(names)
        return NotSupported(f"operand {position} must be known when the model is read")


def as_results(result: Result) -> Sequence[Binding]:
    """Return the result of a converter as a sequence."""
    return result if isinstance(result, (list, tuple)) else [result]  # type: ignore[list-item]
