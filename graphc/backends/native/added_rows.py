"""Scatter-add of rows to the result rows that indices name: the gradient of a gather of rows.

Threads share columns, and each visits all rows in order, so the order of every sum is fixed.
"""

from __future__ import annotations

from graphc.backends.native.gemm_stack import size_of
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.ranges import BLOCK, Masks, blocks, own
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.tensor_type import Dim
from graphc.kernels.kernel import LANES, Added, Loop


def emit_added(module: Module, kernel: Loop, added: Added) -> str:
    """Emit the function of a scatter-add of rows unless the module has it; return its name.

    `void @add(ptr %rows, ptr %indices, ptr %out, i64 %n, i64 %tid, i64 %threads)`
    """
    (step,) = kernel.body.steps
    sizes = kernel.rows, kernel.columns, added.count
    key = ("add rows", step.dtype, added.dtype, sizes, kernel.split)
    name = module.known(key)
    if name is None:
        name = module.name("add", key)
        arguments = [("ptr", x) for x in ("%rows", "%indices", "%out")]
        arguments += [("i64", x) for x in ("%n", "%tid", "%threads")]
        f = Function(name, arguments, attributes="#1")
        _Add(Vectors(module, f, LANES), step.dtype, added, kernel).emit()
        f.ret()
        module.add(f)
    return name


class _Add:
    """The code for a thread's columns: set them to zero, then add one row after the other."""

    def __init__(self, v: Vectors, dtype: str, added: Added, kernel: Loop) -> None:
        self.v, self.f, self.dtype, self.added = v, v.function, dtype, added
        self.element, self.rows = element_type(dtype), _counted(kernel.rows)
        self.columns = _counted(kernel.columns)
        self.bounds = own(self.f, self.columns, BLOCK, kernel.split == "columns")

    def emit(self) -> None:
        """Emit the loop that clears the result's rows, then the loop that adds rows to them."""
        self.f.loop(0, self.rows, 1, lambda row, _: self._clear(self._line("%out", row)))
        self.f.loop(0, size_of(self.f, self.added.count), 1, lambda row, _: self._row(row))

    def _line(self, base: Value, row: Value) -> Value:
        return self.f.address(base, self.f.mul(row, self.columns), self.element)

    def _clear(self, line: Value) -> None:
        def visit(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
            for i, mask in enumerate(masks):
                place = self.f.address(line, self.f.add(column, LANES * i), self.element)
                self.v.store(self.v.const(0, self.dtype), place, self.dtype, mask)
            return []

        blocks(self.v, *self.bounds, visit)

    def _row(self, number: Value) -> None:
        v, f, dtype = self.v, self.f, self.dtype
        source, target = self._line("%rows", number), self._line("%out", self._index(number))

        def visit(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
            for i, mask in enumerate(masks):
                at = f.add(column, LANES * i)
                place = f.address(target, at, self.element)
                x = v.load(f.address(source, at, self.element), dtype, mask)
                v.store(v.add(v.load(place, dtype, mask), x, dtype), place, dtype, mask)
            return []

        blocks(v, *self.bounds, visit)

    def _index(self, number: Value) -> Value:
        """Emit the result row that an index names, clamped to the rows of the result."""
        v, dtype = self.v, self.added.dtype
        place = self.f.address("%indices", number, element_type(dtype))
        index = v.first(v.cast(v.load_splat(place, dtype), dtype, "int64"), "int64")
        return self.f.smaller(self.f.larger(index, 0), self.rows - 1)


def _counted(dim: Dim) -> int:
    assert isinstance(dim, int), "the result is as large as a table"
    return dim
