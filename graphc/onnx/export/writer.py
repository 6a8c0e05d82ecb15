"""The writer of the nodes of a graph or a function."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from graphc.base.errors import GraphError
from graphc.ir.op import Array
from graphc.ir.tensor_type import Batch, Shape, TensorType
from graphc.onnx.export.types import Formal, bound, formals, wider

if TYPE_CHECKING:
    from onnx import NodeProto

OPSET = 18
IR_VERSION = 10


class Writer:
    """A list of ONNX nodes being written; `types` holds those of all values of the graph."""

    def __init__(
        self,
        types: dict[str, TensorType],
        inputs: Iterable[str],
        train: bool,
        public: Iterable[str] = (),
    ) -> None:
        self.types, self.inputs = types, tuple(inputs)
        self.dtypes = {name: type.dtype for name, type in types.items()}
        """The dtypes by name, of helper values, too, if they are known."""
        self.constants: dict[str, Array] = {}
        """The arrays that were written as constant nodes."""
        self.train = train
        """Whether layers are written as they act in training."""
        self.moved: list[str] = []
        """The running statistics whose next values were written."""
        self.nodes: list[NodeProto] = []
        self.prefix = ""
        """The prefix of names of helper values: the name of the current node."""
        self.taken = {*types, *public}
        """The names in use, outputs included."""
        self._rows: str | None = None

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        out: str | Sequence[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Write a node and return the name of its first result.

        If ONNX's op does not accept an integer dtype, operands are cast to a wider one, and results
        back.
        """
        names = [out] if isinstance(out, str) else list(out or [self.fresh(op.lower())])
        declared = None if domain else formals(op, OPSET)
        wide = {} if declared is None else wider([*bound(declared[0], inputs, self.dtypes)])
        if declared is not None:
            self._note(declared, inputs, names, attributes)
        if not wide:
            self._write(op, inputs, names, domain, attributes)
            return names[0]
        assert declared is not None
        sides = [declared[0], declared[1]]
        cast = [
            self._cast(name, dtype) if (dtype := _of(sides[0], i, wide)) and name else name
            for i, name in enumerate(inputs)
        ]
        found = [
            self.fresh(op.lower()) if _of(sides[1], i, wide) else n for i, n in enumerate(names)
        ]
        self._write(op, cast, found, domain, attributes)
        for own, name in zip(found, names, strict=True):
            if own != name:
                self._cast(own, self.dtypes[name], name)
        return names[0]

    def _write(
        self,
        op: str,
        inputs: Sequence[str],
        names: Sequence[str],
        domain: str,
        attributes: Mapping[str, Any],
    ) -> None:
        said = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(op, list(inputs), list(names), name=names[0], **said)
        node.domain = domain
        self.nodes.append(node)

    def _cast(self, name: str, dtype: str, out: str | None = None) -> str:
        to = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.emit("Cast", [name], out, to=to)

    def _note(
        self,
        declared: tuple[Sequence[Formal], Sequence[Formal]],
        inputs: Sequence[str],
        names: Sequence[str],
        attributes: Mapping[str, Any],
    ) -> None:
        """Record the dtypes of results that follow from those of operands."""
        known = {
            formal.variable: dtype for formal, dtype in bound(declared[0], inputs, self.dtypes)
        }
        for i, name in enumerate(names):
            formal = declared[1][min(i, len(declared[1]) - 1)]
            dtype = known.get(formal.variable, next(iter(formal.dtypes), ""))
            if name not in self.dtypes and (formal.variable in known or len(formal.dtypes) == 1):
                self.dtypes[name] = dtype
        if "to" in attributes:
            self.dtypes[names[0]] = helper.tensor_dtype_to_np_dtype(attributes["to"]).name

    def constant(self, array: Any, dtype: str | None = None, out: str | None = None) -> str:
        """Write an array as a constant node and return its name."""
        value = np.array(array, dtype, order="C")
        name = out or self.fresh("constant")
        self.dtypes[name], self.constants[name] = value.dtype.name, value
        return self.emit("Constant", [], name, value=numpy_helper.from_array(value, name))

    def fresh(self, word: str) -> str:
        """Return a name that is not in use, and reserve it."""
        base = f"{self.prefix}.{word}" if self.prefix else word
        name, number = base, 1
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def ints(self, numbers: Sequence[int]) -> str:
        """Write integers, such as axes, as a constant node."""
        return self.constant(list(numbers), "int64")

    def dims(self, shape: Shape) -> str:
        """Write a shape as a value: a constant, or computed from the number of rows of the run."""
        if not any(isinstance(dim, Batch) for dim in shape):
            return self.ints([dim for dim in shape if isinstance(dim, int)])
        parts = [
            self._rows_times(dim.factor) if isinstance(dim, Batch) else self.ints([dim])
            for dim in shape
        ]
        return parts[0] if len(parts) == 1 else self.emit("Concat", parts, axis=0)

    def _rows_times(self, factor: int) -> str:
        if self._rows is None:
            self._rows = self._count_rows()
        return self._rows if factor == 1 else self.emit("Mul", [self._rows, self.ints([factor])])

    def _count_rows(self) -> str:
        for name in self.inputs:
            for axis, dim in enumerate(self.types[name].shape):
                if isinstance(dim, Batch):
                    rows = self.emit("Shape", [name], start=axis, end=axis + 1)
                    if dim.factor == 1:
                        return rows
                    return self.emit("Div", [rows, self.ints([dim.factor])])
        raise GraphError(
            "a value has as many rows as the batch, and no input of the net has rows",
            hint="declare the input that it goes with: x = net.input('x', (gc.N, ...))",
        )

    def reshape(self, x: str, shape: Shape, out: str | None = None) -> str:
        """Write x with another shape, in which the batch dimension follows from the others."""
        if 0 in shape:  # without any element nothing follows from the others
            return self.emit("Reshape", [x, self.dims(shape)], out, allowzero=1)
        sizes = [-1 if isinstance(dim, Batch) else dim for dim in shape]
        return self.emit("Reshape", [x, self.ints(sizes)], out)


def _of(declared: Sequence[Formal], number: int, wide: Mapping[str, str]) -> str:
    """Return the dtype that an operand or result of a node is cast to, or "" if it is not cast."""
    return wide.get(declared[min(number, len(declared) - 1)].variable, "")


def next_of(state: str) -> str:
    """Return the name of a state's value after a training step."""
    return f"{state}.next"


def value_info(name: str, type: TensorType) -> Any:
    """Return the declaration of a graph's input or output."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(type.dtype))
    sizes = [dim if isinstance(dim, int) else str(dim) for dim in type.shape]
    return helper.make_tensor_value_info(name, number, sizes)


def tensor(name: str, array: Array) -> Any:
    """Return the array as an initializer."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
