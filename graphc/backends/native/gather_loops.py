"""Loops of kernels that gather elements, with an index for each dimension of the rows."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

from graphc.backends.body import Known
from graphc.backends.native.elements import ROWS_TOGETHER, Elements, Place
from graphc.backends.native.ir import Function, Value
from graphc.backends.native.loop_structure import LoopNest, Masks, blocks
from graphc.backends.native.vectors import Vectors, element_type
from graphc.ir.access import AccessMap, AxisMap
from graphc.ir.expr import Step
from graphc.ir.tensor_type import Dim
from graphc.kernels.kernel import Loop


@dataclass(frozen=True)
class _Row:
    """A gathered row: position 0 of its last axis, and whether the row exists (None: always)."""

    start: Value
    exists: Value | None


class _Gathers:
    """The emitter of a row's gathers, which computes the start of each only once."""

    def __init__(
        self,
        v: Vectors,
        buffers: Mapping[str, Value],
        shape: Sequence[Dim],
        columns: int,
        indices: Sequence[Value],
    ) -> None:
        """Start without gathers; `shape` has the rows' dimensions, `indices` this row's indices."""
        self.v, self.f, self.buffers = v, v.function, buffers
        self.shape, self.columns, self.indices = shape, columns, indices
        self._rows: dict[tuple[str, AccessMap, tuple[int, ...]], _Row] = {}

    def prepare(self, steps: Sequence[Step], known: Mapping[int, Value]) -> None:
        """Emit the starts of these gathers; `known` has the values of the row."""
        for step in steps:
            access = _access_map(step)
            if (step.buffer, access, step.args) not in self._rows:
                given = [self.v.first(known[arg], "int64") for arg in step.args]
                self._rows[step.buffer, access, step.args] = self._row(step, access, given)

    def load(self, step: Step, place: Place) -> Value:
        """Emit the vector of a gather, or of an offset, at a place of the row."""
        if step.op == "offset":
            return self._offset(step)
        access = _access_map(step)
        first = self.f.add(place.column, place.lane)
        axis, row = access.axes[-1], self._rows[step.buffer, access, step.args]
        if first.startswith("%"):
            exist = self._existing(axis, row, first, place.mask)
            return self._filled(step, access, self._read(step, axis, row, first, exist), exist)
        columns = range(int(first), int(first) + self.v.lanes)
        has = [c < self.columns and axis.has(c) for c in columns]
        if not any(has):
            return self.v.const(access.fill, step.dtype)
        low, high = has.index(True), self.v.lanes - has[::-1].index(True)
        exist = self._between(low, high, row.exists)
        x = self._filled(step, access, self._read(step, axis, row, first, exist), exist)
        if all(has[low:high]):
            return x
        return self._filled(step, access, x, self.v.mask(has), always=True)

    def _filled(
        self, step: Step, access: AccessMap, x: Value, exist: Value | None, always: bool = False
    ) -> Value:
        """Return a vector with the fill value in lanes without an element, which are read as 0."""
        if exist is None or not (access.fill or always):
            return x
        return self.v.select(exist, x, self.v.const(access.fill, step.dtype), step.dtype)

    # ------------------------------------------------------------------ rows

    def _row(self, step: Step, access: AccessMap, given: Sequence[Value]) -> _Row:
        f, exists, index = self.f, None, "0"
        indices = [*given, *self.indices[len(given) :]]
        counts = [*(axis.size for axis in access.axes[: len(given)]), *self.shape[len(given) :]]
        for i, count, axis in zip(indices, counts, access.axes[:-1], strict=True):
            position, inside = _position(f, i, count, axis)
            exists = _both(f, exists, inside)
            index = f.add(index, f.mul(position, axis.pitch))
        return _Row(f.address(self.buffers[step.buffer], index, element_type(step.dtype)), exists)

    def _offset(self, step: Step) -> Value:
        assert isinstance(step.value, tuple), "the value is the tile"
        number: Value = "0"
        for i, size in zip(self.indices[1:], step.value, strict=True):
            number = self.f.add(self.f.mul(number, size), self.f.remainder(i, size))
        narrow = self.f.value(f"trunc i64 {number} to i32")
        return self.v.splat(narrow, "int32")

    # ------------------------------------------------------------------ columns

    def _existing(self, axis: AxisMap, row: _Row, first: Value, mask: Value | None) -> Value | None:
        """Return the mask of a vector's lanes that exist and have a position; None if all do."""
        v, found = self.v, [] if mask is None else [mask]
        if not axis.is_inside(self.columns):
            found.append(self._inside(axis, first))
        if row.exists is not None:
            found.append(v.splat(row.exists, "bool"))
        return reduce(v.both, found) if found else None

    def _between(self, low: int, high: int, row: Value | None) -> Value | None:
        """Return the mask of the lanes from `low` to `high`, in rows that exist; None if all do.

        Lane numbers are compared with a number that depends on the row: LLVM 22 miscompiles the
        `and` of a constant mask and the row's if it halves the vector and a half has no lane.
        """
        v = self.v
        if row is None:
            whole = (low, high) == (0, v.lanes)
            return None if whole else v.mask([low <= i < high for i in range(v.lanes)])
        if (low, high) == (0, v.lanes):
            return v.splat(row, "bool")
        end = self.f.value(f"select i1 {row}, i32 {high}, i32 {low}")
        numbers = v.lane_numbers("int32")
        below = v.compare("less", numbers, v.splat(end, "int32"), "int32")
        if low == 0:
            return below
        return v.both(below, v.compare("greater_equal", numbers, v.const(low, "int32"), "int32"))

    def _read(
        self, step: Step, axis: AxisMap, row: _Row, first: Value, exist: Value | None
    ) -> Value:
        """Read the lanes of a vector that exist."""
        v, f = self.v, self.f
        if axis.pitch == 0 and row.exists is None:
            return v.load_splat(row.start, step.dtype)
        if (axis.scale, axis.divisor, axis.pitch) == (1, 1, 1):
            place = f.address(row.start, f.add(first, axis.shift), element_type(step.dtype))
            return v.load(place, step.dtype, exist)
        offsets = v.mul(self._positions(axis, first), self._all(axis.pitch), "int64")
        return v.gather(row.start, offsets, step.dtype, exist)

    def _positions(self, axis: AxisMap, first: Value) -> Value:
        """Return the positions of a vector's columns, not rounded; the mask hides invalid ones."""
        v = self.v
        start = self.f.add(self.f.mul(first, axis.scale), axis.shift)
        numbers = v.mul(v.lane_numbers("int64"), self._all(axis.scale), "int64")
        positions = v.add(v.splat(start, "int64"), numbers, "int64")
        if axis.divisor == 1:
            return positions
        return v.applied("floor_div", [positions, self._all(axis.divisor)], ["int64"] * 2, "int64")

    def _inside(self, axis: AxisMap, first: Value) -> Value:
        v, positions = self.v, self._positions(axis, first)
        assert isinstance(axis.size, int), "columns are counted"
        bounds = (("greater_equal", 0), ("less", axis.size))
        low, high = (v.compare(op, positions, self._all(bound), "int64") for op, bound in bounds)
        inside = v.both(low, high)
        if axis.divisor == 1 or axis.floor:
            return inside
        back = v.mul(positions, self._all(axis.divisor), "int64")
        whole = self._positions(axis._replace(divisor=1), first)
        return v.both(inside, v.compare("equal", back, whole, "int64"))

    def _all(self, number: int) -> Value:
        return self.v.const(number, "int64")


def _access_map(step: Step) -> AccessMap:
    assert isinstance(step.value, AccessMap), "the value of a fetch is its access map"
    return step.value


def _position(f: Function, i: Value, count: Dim, axis: AxisMap) -> tuple[Value, Value | None]:
    """Emit the position of an index, and whether it is valid: None if it always is."""
    scaled = f.add(f.mul(i, axis.scale), axis.shift)
    # Unsigned: a negative number becomes a huge position, which is not inside.
    position = scaled if axis.divisor == 1 else f.value(f"udiv i64 {scaled}, {axis.divisor}")
    if axis.is_inside(count):
        return position, None
    assert isinstance(axis.size, int), "the batch is read in order"
    inside: Value | None = f.value(f"icmp ult i64 {position}, {axis.size}")  # unsigned: -1 fails
    if axis.divisor > 1 and not axis.floor:
        rest = f.value(f"urem i64 {scaled}, {axis.divisor}")
        inside = _both(f, inside, f.value(f"icmp eq i64 {rest}, 0"))
    return position, inside


def _both(f: Function, a: Value | None, b: Value | None) -> Value | None:
    if a is None or b is None:
        return a or b
    return f.both(a, b)


def fetches(kernel: Loop) -> bool:
    """Return whether a kernel gathers elements."""
    return any(step.op == "fetch" for step in kernel.body.steps)


class GatherLoops(LoopNest):
    """The emitter of a gathering kernel: row by row, with a counter for each dimension."""

    def __init__(self, elements: Elements, kernel: Loop, known: Known) -> None:
        super().__init__(elements, kernel, known)
        (self.phase,) = self.phases
        assert isinstance(kernel.columns, int), "columns are counted"
        self.columns = kernel.columns
        self.steps = [s for s in kernel.body.steps if s.op == "fetch"]
        self.shape = (kernel.first, *kernel.places)
        loads = any(s.op == "load" and s.broadcast == "each" for s in kernel.body.steps)
        self.together = ROWS_TOGETHER if loads and self.columns < elements.vectors.lanes else 1

    def loops(self) -> None:
        """Emit the loop over the rows of a thread, and in it the loop over columns."""
        (start, end), self.bounds = self.elements.of_thread(self.kernel.partition)
        counted = self.function.loop(
            start,
            self._even(start, end),
            self.together,
            lambda row, indices: self._rows(row, indices, self.together),
            [("i64", index) for index in self.function.indices(str(start), self.kernel.places)],
        )
        if self.together > 1:
            self.function.loop(
                self._even(start, end),
                end,
                1,
                lambda row, indices: self._rows(row, indices, 1),
                [("i64", index) for index in counted],
            )

    def _even(self, start: Value | int, end: Value | int) -> Value:
        """Return the end of the rows that are computed several at once."""
        count = self.function.sub(end, start)
        return self.function.add(start, self.function.round_down(count, self.together))

    def _rows(self, first: Value, indices: list[Value], count: int) -> list[Value]:
        rows: list[tuple[Place, Known]] = []
        for i in range(count):
            rows.append(self._row(self.function.add(first, i), indices))
            indices = self._next(indices)

        def visit(column: Value | int, masks: Masks, _: list[Value]) -> list[Value]:
            self._block(rows, column, masks)
            return []

        blocks(self.elements.vectors, *self.bounds, visit)
        return indices

    def _row(self, number: Value, indices: list[Value]) -> tuple[Place, Known]:
        """Return the place of a row and of its gathered elements, and its known values."""
        elements = self.elements
        known: Known = ChainMap({}, dict(self.known))
        gathers = _Gathers(elements.vectors, elements.buffers, self.shape, self.columns, indices)
        place = Place(number, elements.lines(number), leaf_of=gathers.load)
        elements.evaluate(elements.of_kinds(self.phase.steps, "row"), known, place)
        gathers.prepare(self.steps, known)
        return place, known

    def _block(
        self, rows: Sequence[tuple[Place, Known]], column: Value | int, masks: Masks
    ) -> None:
        """Emit a block of columns; all rows are read before the first is written."""
        elements, done = self.elements, []
        for i, mask in enumerate(masks):
            for place, row in rows:
                known: Known = ChainMap({}, row)
                at = replace(place, column=column, lane=elements.vectors.lanes * i, mask=mask)
                elements.evaluate(self.phase.steps, known, at)
                done.append((known, at))
        for known, at in done:
            elements.store(self.phase.stores, known, at)

    def _next(self, indices: list[Value]) -> list[Value]:
        """Return the indices of the next row: the last one counts up, and carries."""
        f, found, carry = self.function, [], "1"
        for index, size in zip(reversed(indices[1:]), reversed(self.kernel.places), strict=True):
            up = f.add(index, carry)
            ends = f.value(f"icmp eq i64 {up}, {size}")
            found.append(f.value(f"select i1 {ends}, i64 0, i64 {up}"))
            carry = f.value(f"zext i1 {ends} to i64")
        return [f.add(indices[0], carry), *reversed(found)]
