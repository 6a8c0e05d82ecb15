"""Run one op's kernel the way a plan does, and differentiate numerically."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.backends.numpy import KERNELS, Call
from graphc.ir.op import Array, Op
from graphc.ir.plan import Emitter
from graphc.ir.tensor_type import TensorType, shape_at


@dataclass
class Recorder:
    """An Emitter that notes what `lower` asks for."""

    types: dict[str, TensorType]
    capacity: int
    kind: str = ""
    scratches: tuple[str, ...] = ()
    constants: dict[str, str] = field(default_factory=dict)

    def type(self, name: str) -> TensorType:
        return self.types[name]

    def call(self, kernel: str, ins: Sequence[str], out: str, scratch: Sequence[str] = ()) -> None:
        self.kind, self.scratches = kernel, tuple(scratch)

    def reference(self, ins: Sequence[str], out: str) -> None:
        self.kind = "reference"

    def alias(self, source: str, out: str) -> None:
        self.kind = "alias"

    def scratch(self, type: TensorType) -> str:
        return self._new("scratch", type)

    def ones(self, type: TensorType) -> str:
        return self._new("ones", TensorType(type.shape[:1], type.dtype))

    def row_numbers(self, type: TensorType) -> str:
        return self._new("rows", TensorType(type.shape[:1], "int64"))

    def _new(self, kind: str, type: TensorType) -> str:
        name = f"{kind}{len(self.types)}"
        self.types[name] = type
        self.constants[name] = kind
        return name


def lowered(op: Op, types: Sequence[TensorType], capacity: int) -> Recorder:
    """What the op's `lower` rule asks for."""
    names = [f"in{i}" for i in range(len(types))]
    found = dict(zip(names, types, strict=True)) | {"out": op.infer(types)}
    recorder = Recorder(found, capacity)
    emitter: Emitter = recorder
    op.lower(emitter, names, "out")
    return recorder


class Bound:
    """A kernel bound to arrays of its own; `onto` says which operand's memory `out` takes."""

    def __init__(
        self, op: Op, types: Sequence[TensorType], n: int, onto: int | None = None, spare: int = 0
    ) -> None:
        record = lowered(op, types, n + spare)
        self.ins = [_empty(t, n) for t in types]
        self.out = _empty(record.types["out"], n) if onto is None else self.ins[onto]
        self.scratch = [self._array(record, name, n) for name in record.scratches]
        kernel = KERNELS[record.kind]
        self.calls: Sequence[Call] = kernel(op.at(n), self.ins, self.out, self.scratch)
        self.spoiled = [
            array
            for name, array in zip(record.scratches, self.scratch, strict=True)
            if record.constants[name] == "scratch"
        ]
        self.own_out = onto is None

    def _array(self, record: Recorder, name: str, n: int) -> Array:
        array = _empty(record.types[name], n)
        kind = record.constants[name]
        if kind == "ones":
            array.fill(1)
        elif kind == "rows":
            array[...] = np.arange(len(array))
        return array

    def run(self, ins: Sequence[Array]) -> Array:
        """The result, from memory that holds rubbish wherever the kernel may not look."""
        for array in [*self.spoiled, *([self.out] if self.own_out else [])]:
            poison(array)
        for mine, given in zip(self.ins, ins, strict=True):
            mine[...] = given
        for call in self.calls:
            call()
        return self.out


def poison(array: Array) -> None:
    if array.dtype.kind == "f":
        array.fill(np.nan)
    else:
        array.fill(1 if array.dtype == bool else 77)


def _empty(type: TensorType, n: int) -> Array:
    """An array on a 64-byte border, as in an arena."""
    shape = shape_at(type.shape, n)
    size = int(np.prod(shape)) * np.dtype(type.dtype).itemsize
    block = np.zeros(size + 64, np.uint8)
    start = -block.ctypes.data % 64
    return np.ndarray(shape, type.dtype, block[start : start + size].data)


def slope(f: Callable[[Array], Array], x: Array, weight: Array, h: float = 1e-3) -> Array:
    """The gradient of sum(f(x) * weight) by central differences of fourth order."""
    found = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        values = []
        for steps in (-2, -1, 1, 2):
            moved = x.copy()
            moved[index] += steps * h
            values.append(f(moved))
        outer, inner = values[3] - values[0], values[2] - values[1]
        found[index] = ((8 * inner - outer) * weight).sum() / (12 * h)
    return found


def worst_error(a: Any, b: Any) -> float:
    """max|a-b|/max(1e-8, |a|+|b|); entries below 1e-7 in magnitude count absolutely."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    if not a.size:
        return 0.0
    difference, size = np.abs(a - b), np.abs(a) + np.abs(b)
    tiny = np.maximum(np.abs(a), np.abs(b)) < 1e-7
    return float(np.where(tiny, difference, difference / np.maximum(1e-8, size)).max())
