"""The code of a body's steps for one vector of elements, one row, or one column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from graphc.backends.body import Known, evaluate, joined, neutral
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.random_words import GROUP, group_words, words_at
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.expr import Body, Broadcast, Step, Store, join
from graphc.ir.tensor_type import Batch
from graphc.kernels.kernel import CHUNK, LANES, Partition

ROWS_TOGETHER = 8
"""The rows shorter than a vector that are read before any is written: if they are updated in place,
a load would wait for a store just before it that it partly overlaps."""

Bounds = tuple[Value | int, Value | int]
"""The first and end of a range of rows or columns."""


@dataclass(frozen=True)
class Place:
    """The place of a vector of elements: columns `first` + `column` + `lane` and following."""

    row: Value | int = 0
    lines: Mapping[str, Value] = field(default_factory=dict)
    """The address of column `first` of the row, for each matrix."""
    column: Value | int = 0
    lane: int = 0
    mask: Value | None = None
    """The lanes that exist; None if all do."""
    leaf_of: Callable[[Step, Place], Value] | None = None
    """The emitter of a gathered element or of a product, if the kernel has them."""
    first: Value | int = 0


@dataclass(frozen=True)
class Elements:
    """The code generator for steps and stores; values computed so far are passed as `Known`."""

    vectors: Vectors
    body: Body
    buffers: Mapping[str, Value]
    rows: Value | int
    columns: Value | int
    pitch: Mapping[str, Value | int]
    """The number of elements from one row to the next, for each matrix."""

    @property
    def function(self) -> Function:
        """The function that code is emitted to."""
        return self.vectors.function

    def of_thread(self, partition: Partition) -> tuple[Bounds, Bounds]:
        """Emit the rows and the columns that a thread runs: its part of one, all of the other."""
        part = self.function.thread_part
        rows = part(self.rows, CHUNK) if partition == "rows" else (0, self.rows)
        return rows, part(self.columns, GROUP) if partition == "columns" else (0, self.columns)

    def evaluate(self, steps: Iterable[int], known: Known, place: Place) -> None:
        """Emit the steps, given in order, whose values are not known yet, and add those values."""
        evaluate(self.vectors, self.body, steps, known, lambda step: self._leaf(step, place))

    def of_kinds(self, steps: Iterable[int], *broadcasts: Broadcast) -> list[int]:
        """Return the steps of these broadcast kinds."""
        return [number for number in steps if self.body.steps[number].broadcast in broadcasts]

    def words(
        self, steps: Iterable[int], known: Known, row: Value | int, column: Value | int
    ) -> dict[int, Sequence[Value]]:
        """Emit the random words of a block, a vector after the other, for each Philox step."""
        found: dict[int, Sequence[Value]] = {}
        for number in steps:
            step = self.body.steps[number]
            if step.op == "philox":
                seed, draws, *first = (self._scalar(a, known) for a in step.args)
                at = str(self.function.add(row, *first) if first else row)
                if self.vectors.narrow:
                    words = words_at(self.vectors, seed, draws, _stream(step), at, column)
                    found[number] = [words]
                    continue
                group = self.function.quotient(column, GROUP)
                found[number] = group_words(self.vectors, seed, draws, _stream(step), at, group)
        return found

    def lines(self, row: Value | int, column: Value | int = 0) -> dict[str, Value]:
        """Emit the address of a column of a row, for each matrix."""
        f, dtypes = self.function, matrices(self.body)
        return {
            buffer: f.address(
                self.buffers[buffer], f.add(f.mul(row, pitch), column), element_type(dtypes[buffer])
            )
            for buffer, pitch in self.pitch.items()
        }

    def store(self, stores: Sequence[Store], known: Known, place: Place) -> None:
        """Emit stores of known values."""
        for store in stores:
            step = self.body.steps[store.step]
            pointer = self._address(store.buffer, store.broadcast, step.dtype, place)
            if join(store.broadcast, step.broadcast) in ("each", "column"):
                self.vectors.store(known[store.step], pointer, step.dtype, place.mask)
            else:
                self.vectors.store_first(known[store.step], pointer, step.dtype)

    # ------------------------------------------------------------------ reductions

    def start(self, reduction: int) -> tuple[str, Value]:
        """Return the type and initial value of the accumulator of a reduction.

        Of a row it is a vector or, if those are narrow, memory for the sums of all lanes.
        """
        step = self.body.steps[reduction]
        if not (self.vectors.narrow and step.value == "columns"):
            return self.vectors.type(step.dtype), neutral(self.vectors, step)
        f, v, type = self.function, self.vectors, element_type(step.dtype)
        sums = f.stack(f"[{LANES} x {type}]")
        for i in f.each(0, LANES, v.lanes):
            v.store(neutral(v, step), f.address(sums, i, type), step.dtype)
        return "ptr", sums

    def reduce(
        self,
        reduction: int,
        so_far: Value,
        known: Known,
        mask: Value | None,
        column: Value | int = 0,
    ) -> Value:
        """Emit the accumulator with one more vector; lanes outside the mask do not contribute."""
        step = self.body.steps[reduction]
        if self.vectors.narrow and step.value == "columns":
            lane = self.function.remainder(column, LANES)
            place = self.function.address(so_far, lane, element_type(step.dtype))
            total = self._joined(step, self.vectors.load(place, step.dtype), known, mask)
            self.vectors.store(total, place, step.dtype)
            return so_far
        return self._joined(step, so_far, known, mask)

    def _joined(self, step: Step, so_far: Value, known: Known, mask: Value | None) -> Value:
        x = known[step.args[0]]
        if mask is not None:
            x = self.vectors.select(mask, x, neutral(self.vectors, step), step.dtype)
        return joined(self.vectors, step, so_far, x)

    def reduce_lanes(self, reduction: int, accumulator: Value) -> Value:
        """Emit the reduction of an accumulator's lanes to one number, in all lanes."""
        step = self.body.steps[reduction]
        if self.vectors.narrow:
            return self.vectors.load_splat(self._reduced(step, accumulator), step.dtype)
        reduced = self.vectors.sum if step.op == "sum" else self.vectors.max
        return self.vectors.splat(reduced(accumulator, step.dtype), step.dtype)

    def _reduced(self, step: Step, sums: Value) -> Value:
        """Emit the call that reduces the sums of all lanes to the first, and return its address."""
        type, dtype = element_type(step.dtype), step.dtype

        def emit(f: Function) -> None:
            """Emit loops that join half of the sums with the others, until one is left."""
            v = Vectors(f, 1)
            for half in (LANES >> level for level in range(1, LANES.bit_length())):

                def pair(i: Value, _: list[Value], half: int = half) -> None:
                    low, high = (
                        f.address("%sums", i, type),
                        f.address("%sums", f.add(i, half), type),
                    )
                    total = joined(v, step, v.load(low, dtype), v.load(high, dtype))
                    v.store(total, low, dtype)

                f.loop(0, half, 1, pair)

        module, key = self.function.module, ("reduced", step.op, dtype)
        self.function.call(module.function("reduced", "ptr %sums", emit, key), sums)
        return sums

    # ------------------------------------------------------------------ one step

    def uniform_leaf(self, step: Step) -> Value:
        """Emit a leaf that is the same for all elements, in all lanes."""
        if step.op == "load":
            return self.vectors.load_splat(self.buffers[step.buffer], step.dtype)
        if step.op == "index":
            return self.vectors.const(0, "int64")
        assert step.op == "size", f"a kernel has no {step.op} here"
        if isinstance(step.value, Batch):
            return self.vectors.splat_int(self.function.size(step.value), step.dtype)
        return self.vectors.splat_int(
            self.rows if step.value == "rows" else self.columns, step.dtype
        )

    def _leaf(self, step: Step, place: Place) -> Value:
        if step.op == "load":
            return self._load(step, place)
        if step.op == "index" and step.broadcast == "row":
            return self.vectors.splat_int(place.row, "int64")
        if step.op == "index" and step.broadcast != "one":
            first = self.function.add(place.first, place.column)
            return self.vectors.numbers_from(self.function.add(first, place.lane))
        if step.op in ("fetch", "offset", "product"):
            assert place.leaf_of is not None, f"a kernel has no {step.op} here"
            return place.leaf_of(step, place)
        return self.uniform_leaf(step)

    def _scalar(self, number: int, known: Known) -> Value:
        return self.vectors.first(known[number], self.body.steps[number].dtype)

    def _load(self, step: Step, place: Place) -> Value:
        pointer = self._address(step.buffer, step.broadcast, step.dtype, place)
        if step.broadcast in ("each", "column"):
            return self.vectors.load(pointer, step.dtype, place.mask)
        return self.vectors.load_splat(pointer, step.dtype)

    def _address(self, buffer: str, broadcast: Broadcast, dtype: str, place: Place) -> Value:
        f, type, base = self.function, element_type(dtype), self.buffers[buffer]
        if broadcast == "one":
            return base
        if broadcast == "row":
            return f.address(base, place.row, type)
        base = place.lines[buffer] if broadcast == "each" else f.address(base, place.first, type)
        if not str(place.column).startswith("%"):
            return f.address(base, f.add(place.column, place.lane), type)
        return f.address(f.address(base, place.column, type), place.lane, type)


def elements_of(
    v: Vectors,
    body: Body,
    buffers: Mapping[str, Value],
    rows: Value | int,
    columns: Value | int,
    pitch: Mapping[str, Value | int],
) -> Elements:
    """Return the code generator for a body; rows that have no `pitch` are contiguous."""
    pitches = {buffer: pitch.get(buffer, columns) for buffer in matrices(body)}
    return Elements(v, body, buffers, rows, columns, pitches)


def matrices(body: Body) -> dict[str, str]:
    """Return the dtype of each buffer that the body reads or writes at each element."""
    read = {s.buffer: s.dtype for s in body.steps if s.op == "load" and s.broadcast == "each"}
    written = {s.buffer: body.steps[s.step].dtype for s in body.stores if s.broadcast == "each"}
    return read | written


def _stream(step: Step) -> int:
    assert isinstance(step.value, int), "a stream is a number"
    return step.value


Products = Callable[[int, int], Value]
"""A function that returns one vector of products, by row (counted from the first) and vector."""


class Epilogue:
    """The emitter of the body on rows of a panel of columns, in a function with `%column`."""

    def __init__(self, elements: Elements, vectors: int, masked: bool) -> None:
        """Emit the steps that do not depend on the row.

        The panel has `vectors` vectors.  If `masked`, only its first `%columns` columns exist.
        """
        v = elements.vectors
        self.elements, self.f, self.body = elements, v.function, elements.body
        self.dtypes, numbers = matrices(self.body), range(len(self.body.steps))
        broadcasts: tuple[Broadcast, ...] = ("one", "column", "row", "each")
        self.steps = {broadcast: elements.of_kinds(numbers, broadcast) for broadcast in broadcasts}
        self.ones: Known = {}
        elements.evaluate(self.steps["one"], self.ones, Place())
        self.places: list[Place] = []
        self.columns: list[dict[int, Value]] = []
        for lane in range(0, vectors * v.lanes, v.lanes):
            mask = v.mask_below(self.f.sub("%columns", lane)) if masked else None
            place, values = Place(first="%column", lane=lane, mask=mask), dict(self.ones)
            elements.evaluate(self.steps["column"], values, place)
            self.places.append(place)
            self.columns.append(values)

    @property
    def together(self) -> int:
        """The number of rows that are read before the first of them is written."""
        reads = any(s.op == "load" and s.broadcast == "each" for s in self.body.steps)
        return ROWS_TOGETHER if reads and self.places[-1].mask is not None else 1

    def rows(self, first: Value, count: int, product: Products, spacing: int = 1) -> None:
        """Emit the body on `count` rows, `spacing` apart, and then the stores."""
        elements, done = self.elements, []
        start = elements.lines(first, "%column")
        for i in range(count):
            row = Place(self.f.add(first, i * spacing), self._lines(start, i * spacing))
            of_row = dict(self.ones)
            elements.evaluate(self.steps["row"], of_row, row)
            for j, (at, of_column) in enumerate(zip(self.places, self.columns, strict=True)):
                values = of_column | of_row
                place = replace(at, row=row.row, lines=row.lines, leaf_of=_product(product, i, j))
                elements.evaluate(self.steps["each"], values, place)
                done.append((values, place))
        for values, place in done:
            elements.store(self.body.stores, values, place)

    def _lines(self, start: Mapping[str, Value], rows: int) -> dict[str, Value]:
        """Emit the addresses `rows` rows below `start`: at fixed distances, which are free."""
        pitch = self.elements.pitch
        return {
            buffer: self.f.address(line, self.f.mul(rows, pitch[buffer]), element_type(dtype))
            for (buffer, dtype), line in zip(self.dtypes.items(), start.values(), strict=True)
        }


def _product(product: Products, i: int, j: int) -> Callable[[Step, Place], Value]:
    return lambda step, place: product(i, j)
