"""Export of graphs as ONNX models: the writer of the nodes of a graph or a function."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, islice, repeat
from typing import Any, NamedTuple

import numpy as np
from onnx import NodeProto, defs, helper, numpy_helper

from graphc.base.errors import GraphError
from graphc.ir.op import Array, Op
from graphc.ir.tensor_type import Batch, Dim, Shape, TensorType, batch_axes

WIDER = {
    **dict.fromkeys(("bool", "int8", "int16", "uint8", "uint16"), ("int32", "int64")),
    "int32": ("int64",),
}
"""The dtypes that can represent all numbers of a dtype."""
_ONNX = {"float": "float32", "double": "float64"}


class Formal(NamedTuple):
    """An operand or result as ONNX declares it: its type variable, and that variable's dtypes."""

    variable: str
    dtypes: frozenset[str]


OPSET = 18
IR_VERSION = 10


@cache
def _schema(op: str) -> tuple[tuple[Formal, ...], tuple[Formal, ...]]:
    schema = defs.get_schema(op, OPSET)
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}

    def formal(text: str) -> Formal:
        return Formal(text, frozenset(map(_dtype, allowed.get(text, [text]))))

    return tuple(formal(x.type_str) for x in schema.inputs), tuple(
        formal(x.type_str) for x in schema.outputs
    )


def _dtype(text: str) -> str:
    name = text.removeprefix("tensor(").removesuffix(")")
    return _ONNX.get(name, name)


def formals(op: str, inputs: int, outputs: int) -> tuple[list[Formal], list[Formal]]:
    """Return the declared operands and results of a node; the last one declared may repeat."""
    pairs = zip(_schema(op), (inputs, outputs), strict=True)
    operands, results = (list(islice(chain(f, repeat(f[-1])), n)) if n else [] for f, n in pairs)
    return operands, results


def wider(dtype: str, allowed: Collection[str]) -> str:
    """Return an allowed dtype that can replace a forbidden one; "" if none is needed or found."""
    if dtype in allowed:
        return ""
    return next((found for found in WIDER.get(dtype, ()) if found in allowed), "")


class Writer:
    """A list of ONNX nodes that is being written; `types` are those of all values of the graph."""

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
        """True if layers are written as they act in training."""
        self.narrow: Collection[str] = ()
        """The constants that are written as BFLOAT16, since only roundings to it read them."""
        self.updated: list[str] = []
        """The running statistics whose next values were written."""
        self.nodes: list[NodeProto] = []
        self.prefix = ""
        """The prefix of names of helper values: the name of the current node."""
        self.taken = {*types, *public}
        """The names in use, outputs included."""
        self._rows: str | None = None

    def inside(self, types: Mapping[str, TensorType]) -> Writer:
        """Return a writer of a graph inside a node, which may read all that was written here."""
        inner = Writer({**self.types, **types}, self.inputs, self.train)
        inner.dtypes |= self.dtypes
        inner.taken, inner.constants, inner._rows = self.taken, self.constants, self._rows
        return inner

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        out: str | Sequence[str] | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Write a node and return the name of its first result.

        If ONNX's op does not accept an integer dtype, operands are cast, and results back.
        """
        names = [out] if isinstance(out, str) else list(out or [self.fresh_name(op.lower())])
        if domain:
            return self._write(op, inputs, names, domain, attributes)
        operands, results = formals(op, len(inputs), len(names))
        known = [
            (formal, self.dtypes[name])
            for formal, name in zip(operands, inputs, strict=True)
            if name in self.dtypes
        ]
        wide = {f.variable: dtype for f, own in known if (dtype := wider(own, f.dtypes))}
        self._infer_dtypes({f.variable: dtype for f, dtype in known}, results, names)
        if "to" in attributes:
            self.dtypes[names[0]] = helper.tensor_dtype_to_np_dtype(attributes["to"]).name
        cast = [
            self._cast(name, wide[formal.variable]) if name and formal.variable in wide else name
            for formal, name in zip(operands, inputs, strict=True)
        ]
        found = [
            self.fresh_name(op.lower()) if formal.variable in wide else name
            for formal, name in zip(results, names, strict=True)
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
    ) -> str:
        given = {name: value for name, value in attributes.items() if value is not None}
        node = helper.make_node(op, list(inputs), list(names), name=names[0], **given)
        node.domain = domain
        self.nodes.append(node)
        return names[0]

    def _cast(self, name: str, dtype: str, out: str | None = None) -> str:
        return self.emit("Cast", [name], out, to=onnx_dtype(dtype))

    def _infer_dtypes(
        self, known: Mapping[str, str], results: Sequence[Formal], names: Sequence[str]
    ) -> None:
        """Record the dtypes of results that follow from those of type variables."""
        for formal, name in zip(results, names, strict=True):
            only = next(iter(formal.dtypes)) if len(formal.dtypes) == 1 else ""
            dtype = known.get(formal.variable, only)
            if dtype:
                self.dtypes.setdefault(name, dtype)

    def constant(self, array: Any, dtype: str | None = None, out: str | None = None) -> str:
        """Write an array as a constant node and return its name."""
        value = np.array(array, dtype, order="C")
        name = out or self.fresh_name("constant")
        self.dtypes[name], self.constants[name] = value.dtype.name, value
        return self.emit("Constant", [], name, value=numpy_helper.from_array(value, name))

    def fresh_name(self, word: str) -> str:
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
            self._rows_times(dim) if isinstance(dim, Batch) else self.ints([dim]) for dim in shape
        ]
        return parts[0] if len(parts) == 1 else self.emit("Concat", parts, axis=0)

    def numbers(self, dim: Dim) -> str:
        """Write the whole numbers below a dimension."""
        if isinstance(dim, int):
            return self.ints(range(dim))
        first, step = self.constant(0, "int64"), self.constant(1, "int64")
        return self.emit("Range", [first, self.emit("Squeeze", [self.dims((dim,))]), step])

    def _rows_times(self, dim: Batch) -> str:
        if self._rows is None:
            self._rows = self._count_rows()
        found = self._rows
        for _ in range(1, dim.power):
            found = self.emit("Mul", [found, self._rows])
        return found if dim.factor == 1 else self.emit("Mul", [found, self.ints([dim.factor])])

    def _count_rows(self) -> str:
        for name in self.inputs:
            for axis, dim in batch_axes(self.types[name].shape):
                if dim.power == 1:
                    rows = self.emit("Shape", [name], start=axis, end=axis + 1)
                    if dim.factor == 1:
                        return rows
                    return self.emit("Div", [rows, self.ints([dim.factor])])
        raise GraphError(
            "a value has as many rows as the batch, and no input has that many, or a multiple",
            hint="declare the input that it goes with: x = net.input('x', (gc.N, ...))",
        )

    def reshape(self, x: str, shape: Shape, out: str | None = None) -> str:
        """Write x with another shape, in which the batch dimension follows from the others."""
        open_dims = sum(isinstance(dim, Batch) for dim in shape)
        if 0 in shape or open_dims > 1:  # -1 is inferred for one dimension, if there are elements
            return self.emit("Reshape", [x, self.dims(shape)], out, allowzero=1)
        sizes = [-1 if isinstance(dim, Batch) else dim for dim in shape]
        return self.emit("Reshape", [x, self.ints(sizes)], out)


Emit = Callable[[Writer, Any, Sequence[str], str], str | None]
"""A writer of an op over named operands as a named value.

It returns the value's name, or None if ONNX lacks the op.
"""


def node(name: str, **attributes: str | float) -> Emit:
    """Return a writer of one node, whose attributes are numbers, or fields of the op by name."""

    def emit(w: Writer, op: Op, ins: Sequence[str], out: str) -> str:
        values = {
            key: getattr(op, value) if isinstance(value, str) else value
            for key, value in attributes.items()
        }
        return w.emit(name, ins, out, domain="", **values)

    return emit


def onnx_dtype(dtype: str) -> int:
    """Return ONNX's number of a dtype."""
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def next_of(state: str) -> str:
    """Return the name of a state's value after a training step."""
    return f"{state}.next"


def value_info(name: str, type: TensorType) -> Any:
    """Return the declaration of a graph's input or output."""
    sizes = [dim if isinstance(dim, int) else str(dim) for dim in type.shape]
    return helper.make_tensor_value_info(name, onnx_dtype(type.dtype), sizes)


def tensor(name: str, array: Array) -> Any:
    """Return the array as an initializer."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
