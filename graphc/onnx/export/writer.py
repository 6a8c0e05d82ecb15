"""What the nodes of a graph, or of a function, are written with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

from graphc.op import Array
from graphc.tensor_type import Batch, Shape, TensorType

if TYPE_CHECKING:
    from onnx import NodeProto

OPSET = 18
IR_VERSION = 10


class Writer:
    """ONNX nodes in the making.  `types` has those of all values that the graph declares."""

    def __init__(
        self, types: dict[str, TensorType], train: bool, public: Iterable[str] = ()
    ) -> None:
        self.types = types
        self.train = train
        """Whether layers mean what they do in training."""
        self.moved: list[str] = []
        """The running statistics whose next values were written."""
        self.nodes: list[NodeProto] = []
        self.prefix = ""
        """What the names of helping values start with: that of the node at hand."""
        self.taken = {*types, *public}
        """The names that something has, outputs included."""
        self._rows: str | None = None

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        out: str | Sequence[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Write a node; the name of its first result."""
        names = [out] if isinstance(out, str) else list(out or [self.fresh(op.lower())])
        attributes = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(op, list(inputs), names, name=names[0], **attributes)
        node.domain = domain
        self.nodes.append(node)
        return names[0]

    def constant(self, array: Any, dtype: str | None = None, out: str | None = None) -> str:
        """Write numbers as a node."""
        value = np.array(array, dtype, order="C")
        name = out or self.fresh("constant")
        return self.emit("Constant", [], name, value=numpy_helper.from_array(value, name))

    def fresh(self, word: str) -> str:
        """A name that nothing has."""
        base = f"{self.prefix}.{word}" if self.prefix else word
        name, number = base, 1
        while name in self.taken:
            number += 1
            name = f"{base}_{number}"
        self.taken.add(name)
        return name

    def ints(self, numbers: Sequence[int]) -> str:
        """Whole numbers, such as axes, as a node."""
        return self.constant(list(numbers), "int64")

    def dims(self, shape: Shape) -> str:
        """A shape as a value: a constant, or made of the number of rows of this run."""
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
        for name, type in self.types.items():
            for axis, dim in enumerate(type.shape):
                if isinstance(dim, Batch):
                    rows = self.emit("Shape", [name], start=axis, end=axis + 1)
                    if dim.factor == 1:
                        return rows
                    return self.emit("Div", [rows, self.ints([dim.factor])])
        raise ValueError("no operand says how many rows the batch has")

    def reshape(self, x: str, shape: Shape, out: str | None = None) -> str:
        """x under another shape, in which the batch dimension follows from the others."""
        sizes = [-1 if isinstance(dim, Batch) else dim for dim in shape]
        zero = 1 if 0 in sizes else None
        return self.emit("Reshape", [x, self.ints(sizes)], out, allowzero=zero)


def next_of(state: str) -> str:
    """What the value of a state after a training step is called."""
    return f"{state}.next"


def value_info(name: str, type: TensorType) -> Any:
    """How a graph declares an input or output."""
    number = helper.np_dtype_to_tensor_dtype(np.dtype(type.dtype))
    sizes = [dim if isinstance(dim, int) else str(dim) for dim in type.shape]
    return helper.make_tensor_value_info(name, number, sizes)


def tensor(name: str, array: Array) -> Any:
    """An initializer."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
