"""Code for rows of few columns, sixteen at once: each lane has a row, each vector a column.

A value computed once a row, such as a logarithm, then serves sixteen rows, and sums and maxima of
a row need no shuffles.  The sums equal those of rows computed one at a time, bit for bit.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Sequence
from functools import partial

from graphc.backends.native.body import Leaf
from graphc.backends.native.body import evaluate as evaluate_body
from graphc.backends.native.elements import Elements, Known
from graphc.backends.native.ir import Value
from graphc.backends.native.phases import Phase, needed, phases, reductions
from graphc.backends.native.registers import element_type
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.body import Body, Step, Store
from graphc.kernels.kernel import LANES, Loop


def takes_lanes(kernel: Loop) -> bool:
    """Return whether sixteen rows at once are best: they are reduced, and one fits in a vector."""
    few = isinstance(kernel.columns, int) and 1 < kernel.columns <= LANES
    many = not isinstance(kernel.rows, int) or kernel.rows >= LANES
    narrow = all(ITEMSIZE[dtype] == 4 for dtype in _moved(kernel.body))
    draws = any(step.op == "philox" for step in kernel.body.steps)
    return few and many and narrow and not draws and bool(reductions(kernel.body))


def _moved(body: Body) -> Iterable[str]:
    """Yield the dtypes of elements that are read or written."""
    yield from (s.dtype for s in body.steps if s.op == "load" and s.span == "each")
    yield from (body.steps[s.step].dtype for s in body.stores if s.span == "each")


class LaneRows:
    """An emitter of the code for sixteen rows."""

    def __init__(
        self, elements: Elements, kernel: Loop, known: Known, stores: Sequence[Store]
    ) -> None:
        """Prepare for a kernel; `stores` happen once a row."""
        assert isinstance(kernel.columns, int), "see takes_lanes"
        self.elements, self.body, self.stores = elements, kernel.body, stores
        self.known, self.count = known, kernel.columns
        self.v, self.f = elements.vectors, elements.function
        self.mask = self.v.mask_below(self.count) if self.count < LANES else None
        self.phases = phases(kernel.body)

    def emit(self, first: Value | int) -> None:
        """Emit the code for the sixteen rows from `first` on."""
        rows: Known = ChainMap({}, dict(self.known))
        columns: list[Known] = [ChainMap({}, rows) for _ in range(self.count)]
        of_rows = partial(self._of_rows, first)
        for phase in self.phases:
            self._evaluate(self.elements.of_span(phase.steps, "row"), rows, of_rows)
            self._pass(phase, first, columns)
            rows.update({number: self._reduced(number, columns) for number in phase.reductions})
            for store in phase.stores:
                self._write(store, first, columns)
        self._evaluate(needed(self.body, (s.step for s in self.stores)), rows, of_rows)
        for store in self.stores:
            self._write_row(store, first, rows)

    def _pass(self, phase: Phase, first: Value | int, columns: Sequence[Known]) -> None:
        """Compute the steps of each column that a phase needs."""
        for number in self.elements.of_span(phase.steps, "each"):
            step = self.body.steps[number]
            if step.op == "load" and number not in columns[0]:
                for known, x in zip(columns, self._read(step, first), strict=True):
                    known[number] = x
        for j, known in enumerate(columns):
            self._evaluate(phase.steps, known, partial(self._of_column, first, j))

    def _evaluate(self, steps: Iterable[int], known: Known, leaf: Leaf) -> None:
        evaluate_body(self.v, self.body, steps, known, leaf)

    # ------------------------------------------------------------------ leaves

    def _of_rows(self, first: Value | int, step: Step) -> Value:
        """Return a value that a row has once, for each lane its own."""
        if step.op == "load" and step.span == "row":
            return self.v.load(self._place(step.buffer, first, step.dtype), step.dtype)
        if step.op == "index" and step.span == "row":
            start = self.v.splat(str(first), "int64")
            return self.v.add(start, self.v.lane_numbers("int64"), "int64")
        return self.elements.of_one(step)

    def _of_column(self, first: Value | int, j: int, step: Step) -> Value:
        if step.span != "column":
            return self._of_rows(first, step)
        if step.op == "load":
            return self.v.load_splat(self._place(step.buffer, j, step.dtype), step.dtype)
        assert step.op == "index", f"a loop kernel has no {step.op} here"
        return self.v.const(j, "int64")

    def _place(self, buffer: str, index: Value | int, dtype: str) -> Value:
        return self.f.address(self.elements.buffers[buffer], index, element_type(dtype))

    # ------------------------------------------------------------------ rows and columns

    def _lines(self, buffer: str, first: Value | int, dtype: str) -> list[Value]:
        pitch = self.elements.pitch[buffer]
        start = self._place(buffer, self.f.mul(first, pitch), dtype)
        steps = [self.f.mul(pitch, i) for i in range(LANES)]
        return [self.f.address(start, step, element_type(dtype)) for step in steps]

    def _read(self, step: Step, first: Value | int) -> list[Value]:
        """Return the columns of the rows."""
        lines = self._lines(step.buffer, first, step.dtype)
        rows = [self.v.load(line, step.dtype, self.mask) for line in lines]
        return self.v.transpose(rows, step.dtype)[: self.count]

    def _write(self, store: Store, first: Value | int, columns: Sequence[Known]) -> None:
        dtype = self.body.steps[store.step].dtype
        vectors = [known[store.step] for known in columns]
        vectors += ["poison"] * (LANES - self.count)
        rows = self.v.transpose(vectors, dtype)
        for line, x in zip(self._lines(store.buffer, first, dtype), rows, strict=True):
            self.v.store(x, line, dtype, self.mask)

    def _write_row(self, store: Store, first: Value | int, rows: Known) -> None:
        dtype = self.body.steps[store.step].dtype
        self.v.store(rows[store.step], self._place(store.buffer, first, dtype), dtype)

    def _reduced(self, number: int, columns: Sequence[Known]) -> Value:
        """Reduce the columns in the order of a row's lanes: from 0 each, then halves are joined.

        Lanes without a column would change nothing: they would add 0 to a sum that is not -0, or
        -inf to a maximum.
        """
        step = self.body.steps[number]
        parts = [known[step.args[0]] for known in columns]
        if step.op == "sum":
            zero = self.v.const(0, step.dtype)
            parts = [self.v.add(zero, x, step.dtype) for x in parts]
        join = self.v.add if step.op == "sum" else self.v.maximum
        half = LANES // 2
        while half:
            low, high = parts[:half], parts[half:]
            met = [join(a, b, step.dtype) for a, b in zip(low, high, strict=False)]
            parts, half = met + low[len(met) :], half // 2
        return parts[0]
