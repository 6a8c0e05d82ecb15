"""The body of a matrix product, run on a finished tile of products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graphc.backends.native.body import Leaf, evaluate
from graphc.backends.native.ir import Function, Module, Value
from graphc.backends.native.registers import element_type
from graphc.backends.native.tile import Tile
from graphc.backends.native.vectors import Vectors
from graphc.kernels.body import Body, Span, Step
from graphc.kernels.kernel import Gemm

EPILOGUE_ARGUMENTS = (
    ("ptr", "%products"),
    ("i64", "%row"),
    ("i64", "%rows"),
    ("i64", "%column"),
    ("i64", "%columns"),
    ("i64", "%m"),
    ("i64", "%n"),
)
"""After the buffers: the tile, where it lies, how much of it there is, the rows of all, and
those of the batch."""

ROWS_TOGETHER = 8


@dataclass(frozen=True)
class Memory:
    """Where the buffers of a kernel are: their arguments and the elements between rows."""

    arguments: dict[str, Value]
    pitches: dict[str, int]


def emit_epilogue(
    module: Module, kernel: Gemm, memory: Memory, tile: Tile, vectors: int, masked: bool
) -> str:
    """The function that runs the body on `rows` rows of a tile of `vectors` vectors.

    Masked, only the first `columns` of the columns exist.
    """
    name = module.name("epilogue", object())
    buffers = [("ptr", argument) for argument in memory.arguments.values()]
    f = Function(name, [*buffers, *EPILOGUE_ARGUMENTS], attributes="#1")
    _Epilogue(Vectors(module, f, tile.lanes), kernel, memory, vectors, masked).emit()
    module.add(f)
    return name


class _Epilogue:
    """The text of one epilogue."""

    def __init__(
        self, v: Vectors, kernel: Gemm, memory: Memory, vectors: int, masked: bool
    ) -> None:
        self.v, self.f, self.kernel, self.memory = v, v.function, kernel, memory
        self.body: Body = kernel.body
        self.offsets = [j * v.lanes for j in range(vectors)]
        self.masks: list[Value | None] = [
            v.mask_below(self.f.sub("%columns", o)) if masked else None for o in self.offsets
        ]

    def emit(self) -> None:
        """What does not depend on the row first, then the rows one after the other."""
        columns: list[dict[int, Value]] = []
        ones: dict[int, Value] = {}
        evaluate(self.v, self.body, self._steps("one"), ones, self._leaf("0", 0))
        for j in range(len(self.offsets)):
            values = dict(ones)
            evaluate(self.v, self.body, self._steps("column"), values, self._leaf("0", j))
            columns.append(values)
        full = self.f.value(f"and i64 %rows, {-self.together}")
        self.f.loop(0, full, self.together, lambda r, _: self._rows(r, self.together, columns))
        if self.together > 1:
            self.f.loop(full, "%rows", 1, lambda r, _: self._rows(r, 1, columns))
        self.f.ret()

    @property
    def together(self) -> int:
        """How many rows are read before the first of them is written.

        Short rows that are updated in place lie within one vector of the next: a load just after
        a store that it partly overlaps waits until the store is done.
        """
        read = {s.buffer for s in self.body.steps if s.op == "load" and s.span == "each"}
        in_place = read.intersection(self.body.written)
        return ROWS_TOGETHER if in_place and self.masks[-1] is not None else 1

    def _steps(self, span: Span) -> Sequence[int]:
        return [n for n, step in enumerate(self.body.steps) if step.span == span]

    def _rows(self, first: Value, count: int, columns: list[dict[int, Value]]) -> None:
        """Evaluate so many rows, then store them."""
        done: list[tuple[Value, int, dict[int, Value]]] = []
        for i in range(count):
            r = self.f.add(first, i)
            of_row = {n: columns[0][n] for n in self._steps("one")}
            evaluate(self.v, self.body, self._steps("row"), of_row, self._leaf(r, 0))
            for j, of_column in enumerate(columns):
                values = of_column | of_row
                evaluate(self.v, self.body, self._steps("each"), values, self._leaf(r, j))
                done.append((r, j, values))
        for r, j, values in done:
            for store in self.body.stores:
                self._store(r, j, store.buffer, store.step, values[store.step])

    def _store(self, r: Value, j: int, buffer: str, number: int, x: Value) -> None:
        dtype = self.body.steps[number].dtype
        self.v.store(x, self._place(buffer, r, j, dtype), dtype, self.masks[j])

    def _place(self, buffer: str, r: Value, j: int, dtype: str) -> Value:
        """The address of a vector of a matrix."""
        row = self.f.mul(self.f.add("%row", r), self.memory.pitches[buffer])
        index = self.f.add(self.f.add(row, "%column"), self.offsets[j])
        return self.f.address(self.memory.arguments[buffer], index, element_type(dtype))

    def _leaf(self, r: Value, j: int) -> Leaf:
        def leaf(step: Step) -> Value:
            if step.op == "load":
                return self._load(step, r, j)
            if step.op == "product":
                width = len(self.offsets) * self.v.lanes
                index = self.f.add(self.f.mul(r, width), self.offsets[j])
                place = self.f.address("%products", index, element_type(step.dtype))
                return self.v.load(place, step.dtype)
            return self._number(step, r, j)

        return leaf

    def _load(self, step: Step, r: Value, j: int) -> Value:
        dtype, element = step.dtype, element_type(step.dtype)
        if step.span == "each":
            return self.v.load(self._place(step.buffer, r, j, dtype), dtype, self.masks[j])
        base = self.memory.arguments[step.buffer]
        if step.span == "column":
            place = self.f.address(base, self.f.add("%column", self.offsets[j]), element)
            return self.v.load(place, dtype, self.masks[j])
        if step.span == "row":
            base = self.f.address(base, self.f.add("%row", r), element)
        return self.v.load_splat(base, dtype)

    def _number(self, step: Step, r: Value, j: int) -> Value:
        """The number of the row or of the columns, or how many there are."""
        if step.op == "index" and step.span == "row":
            return self._whole(self.f.add("%row", r), step.dtype)
        if step.op == "index":
            first = self._whole(self.f.add("%column", self.offsets[j]), step.dtype)
            return self.v.add(first, self.v.lane_numbers(step.dtype), step.dtype)
        assert step.op == "size", f"{step.op} has no place in the body of a matrix product"
        if isinstance(step.value, int):
            return self._whole(self.f.mul("%n", step.value), step.dtype)
        return self._whole("%m" if step.value == "rows" else str(self.kernel.n), step.dtype)

    def _whole(self, number: Value, dtype: str) -> Value:
        """A whole number in all lanes."""
        if not number.startswith("%"):
            return self.v.const(int(number), dtype)
        return self.v.cast(self.v.splat(number, "int64"), "int64", dtype)
