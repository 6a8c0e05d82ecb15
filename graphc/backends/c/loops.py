"""Loop kernels in C99: a nest of two loops, and passes over rows or columns for reductions.

Sums have the order of every backend: over columns sixteen lanes and a tree of halves, over rows one
row after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import reduce
from math import prod

from graphc.backends.arithmetic import FLOATS
from graphc.backends.body import Known, joined, levels, needed, neutral, reductions
from graphc.backends.c.body import BodyWriter
from graphc.backends.c.scalars import Code, dim_text, literal
from graphc.ir.access import AccessMap, AxisMap
from graphc.ir.expr import Broadcast, Step, Store, join
from graphc.ir.tensor_type import Batch, Dim
from graphc.kernels.iteration_space import permuted_strides
from graphc.kernels.kernel import LANES, Loop, Permutation, ScatterAdd


class LoopWriter:
    """The writer of a loop kernel."""

    def __init__(
        self, code: Code, kernel: Loop, names: Mapping[str, str], pitch: Mapping[str, str]
    ) -> None:
        self.code, self.kernel, self.body, self.names = code, kernel, kernel.body, names
        self.sizes = dim_text(kernel.rows), dim_text(kernel.columns)
        self.writer = BodyWriter(code, kernel.body, names, pitch, self.sizes, self._leaf)
        self.v, self.levels = self.writer.v, levels(kernel.body)
        self.stores: dict[Broadcast, list[Store]] = {}
        """The stores by the loops that they are in."""
        for store in kernel.body.stores:
            self.stores.setdefault(self._kind(store), []).append(store)

    def write(self) -> None:
        """Write the kernel."""
        if isinstance(self.kernel, ScatterAdd):
            self._scatter_add(self.kernel)
            return
        known: Known = {}
        self.writer.write(self._of_kind("one"), known)
        if any(self.levels) and self.kernel.axis == "rows":
            self._by_columns(known)
        else:
            self._by_rows(known)
        self._store("one", known)

    def _of_kind(self, kind: Broadcast, level: int = 0) -> list[int]:
        steps = enumerate(self.body.steps)
        return [n for n, step in steps if step.broadcast == kind and self.levels[n] == level]

    def _kind(self, store: Store) -> Broadcast:
        """Return the kind of the loops around a store: those of its axes, and of what it reads.

        It may read elements along an axis that it has not, if that has a single entry.
        """
        steps = self.body.steps
        last = {store.step}.union(*(steps[n].args for n in needed(self.body, [store.step])))
        return reduce(join, (steps[n].broadcast for n in last), store.broadcast)

    def _store(self, kind: Broadcast, known: Known) -> None:
        stores = self.stores.get(kind, [])
        self.writer.write_for(stores, known)
        self.writer.store(stores, known)

    def _reductions(self, level: int) -> list[int]:
        return [n for n in reductions(self.body) if self.levels[n] == level]

    def _arguments(self, numbers: Iterable[int]) -> list[int]:
        return [self.body.steps[number].args[0] for number in numbers]

    def _begin(self, arrays: Mapping[int, str], index: str) -> None:
        """Write what reductions begin with, to an element of the array of each."""
        for number, array in arrays.items():
            self.code.do(f"{array}[{index}] = {neutral(self.v, self.body.steps[number])};")

    def _accumulate(self, number: int, target: str, x: str) -> None:
        step = self.body.steps[number]
        if step.op == "sum" and step.dtype in FLOATS:
            self.code.do(f"{target} += {x};")
        else:
            self.code.do(f"{target} = {joined(self.v, step, target, x)};")

    # ------------------------------------------------------------------ rows of columns

    def _by_rows(self, ones: Known) -> None:
        """Write a loop over rows; each reduction of a row is a pass over its columns."""
        code, (rows, columns) = self.code, self.sizes
        with code.loop("i", rows):
            known = dict(ones)
            self.writer.write(self._of_kind("row"), known)
            for level in range(1, max(self.levels, default=0) + 1):
                self._reduce_row(known, level)
                self.writer.write(self._of_kind("row", level), known)
            each, last = (self.stores.get(kind, []) for kind in ("each", "column"))
            if each or last:
                with code.loop("j", columns):
                    here = dict(known)
                    self.writer.write_for([*each, *last], here)
                    self.writer.store(each, here)
                    if last:  # after the last row, since rows may read what this overwrites
                        with code.block(f"if (i == {rows} - 1)"):
                            self.writer.store(last, here)
            self._store("row", known)

    def _reduce_row(self, known: Known, level: int) -> None:
        """Write a pass over the columns of a row, which adds up in sixteen lanes."""
        code, numbers = self.code, self._reductions(level)
        dtypes = {number: self.body.steps[number].dtype for number in numbers}
        lanes = {number: code.array("lanes", dtype, LANES) for number, dtype in dtypes.items()}
        with code.loop("l", str(LANES)):
            self._begin(lanes, "l")
        with self._lanes() as lane:
            here = dict(known)
            self.writer.write(needed(self.body, self._arguments(numbers), here), here)
            for number in numbers:
                x = here[self.body.steps[number].args[0]]
                self._accumulate(number, f"{lanes[number]}[{lane}]", x)
        halves = f"for (int half = {LANES // 2}; half; half /= 2)"
        with code.block(halves), code.loop("l", "half"):
            for number, lane in lanes.items():
                self._accumulate(number, f"{lane}[l]", f"{lane}[half + l]")
        for number, lane in lanes.items():
            known[number] = code.value(f"{lane}[0]", dtypes[number])

    @contextmanager
    def _lanes(self) -> Iterator[str]:
        """Write loops over the columns `j`, in blocks of lanes; yield the name of the lane."""
        code, columns = self.code, self.sizes[1]
        if columns.isdecimal() and int(columns) <= LANES:
            with code.loop("j", columns):
                yield "j"
            return
        with code.loop("first", columns, step=LANES):
            code.do(f"const ptrdiff_t rest = {columns} - first;")
            lanes = code.loop("l", f"(rest < {LANES} ? rest : {LANES})")
            with lanes, code.defined("j", "const ptrdiff_t j = first + l;"):
                yield "l"

    # ------------------------------------------------------------------ columns of rows

    def _by_columns(self, ones: Known) -> None:
        """Write a loop over blocks of columns; each reduction is a pass over the rows."""
        code, (rows, columns) = self.code, self.sizes
        block = code.functions.block()
        with code.loop("first", columns, step=block):
            rest = f"{columns} - first"
            code.do(f"const ptrdiff_t end = {rest} < {block} ? {columns} : first + {block};")
            arrays: dict[int, str] = {}
            for level in range(1, max(self.levels) + 1):
                self._reduce_columns(ones, arrays, level)
                self._keep_columns(ones, arrays, level)
            if each := self.stores.get("each"):
                with self._elements([store.step for store in each], ones, arrays) as here:
                    self.writer.store(each, here)
            if "column" in self.stores:
                with code.loop("j", "end", "first"):
                    self._store("column", _with_arrays(ones, arrays))
        if "row" in self.stores:
            with code.loop("i", rows):
                self._store("row", dict(ones))

    @contextmanager
    def _elements(
        self, roots: Iterable[int], ones: Known, arrays: Mapping[int, str]
    ) -> Iterator[Known]:
        """Write loops over the rows of a block and its columns; yield the values of these steps."""
        steps = needed(self.body, roots, {*ones, *arrays})
        with self.code.loop("i", self.sizes[0]):
            of_row = dict(ones)
            rows = [n for n in steps if self.body.steps[n].broadcast == "row"]
            self.writer.write(rows, of_row)
            with self.code.loop("j", "end", "first"):
                here = _with_arrays(of_row, arrays)
                self.writer.write(steps, here)
                yield here

    def _array(self, stem: str, number: int) -> str:
        """Declare an array with an element for each column of a block."""
        dtype = self.body.steps[number].dtype
        return self.code.array(stem, dtype, 1, self.code.functions.block())

    def _reduce_columns(self, ones: Known, arrays: dict[int, str], level: int) -> None:
        numbers = self._reductions(level)
        made = {number: self._array("sums", number) for number in numbers}
        with self.code.loop("j", "end", "first"):
            self._begin(made, "j - first")
        with self._elements(self._arguments(numbers), ones, arrays) as here:
            for number in numbers:
                x = here[self.body.steps[number].args[0]]
                self._accumulate(number, f"{made[number]}[j - first]", x)
        arrays |= made

    def _keep_columns(self, ones: Known, arrays: dict[int, str], level: int) -> None:
        """Write the values of a column that depend on its sums, once for each column."""
        numbers = [n for n in self._of_kind("column", level) if n not in arrays and self._leaves(n)]
        if not numbers:
            return
        made = {number: self._array("values", number) for number in numbers}
        with self.code.loop("j", "end", "first"):
            here = _with_arrays(ones, arrays)
            self.writer.write(needed(self.body, numbers, here), here)
            for number in numbers:
                self.code.do(f"{made[number]}[j - first] = {here[number]};")
        arrays |= made

    def _leaves(self, number: int) -> bool:
        """Return whether a value of a column is read by more than values of the same level."""
        if any(store.step == number for store in self.body.stores):
            return True
        users = ((n, s) for n, s in enumerate(self.body.steps) if number in s.args)
        level = self.levels[number]
        return any(s.broadcast != "column" or self.levels[n] > level for n, s in users)

    # ------------------------------------------------------------------ gathered elements

    def _leaf(self, step: Step, known: Mapping[int, str]) -> str:
        if step.op == "offset":
            return self._offset(step)
        assert step.op == "fetch", f"a loop has no {step.op}"
        return self._fetched(step, known)

    def _indices(self) -> list[str]:
        """Return the index of row `i` in each dimension of the rows."""
        places = self.kernel.places
        found, below = [], prod(places)
        found.append("i" if below == 1 else f"i / {below}")
        for size in places:
            below //= size
            found.append(f"i % {size}" if below == 1 else f"i / {below} % {size}")
        return found

    def _offset(self, step: Step) -> str:
        assert isinstance(step.value, tuple), "the value is the tile"
        text = ""
        for index, size in zip(self._indices()[1:], step.value, strict=True):
            text = f"({text}) * {size} + {index} % {size}" if text else f"{index} % {size}"
        return f"(int32_t)({text or '0'})"

    def _fetched(self, step: Step, known: Mapping[int, str]) -> str:
        assert isinstance(step.value, AccessMap), "the value is an access map"
        access = step.value
        kernel = self.kernel
        counts: list[Dim] = [_divided(kernel.rows, prod(kernel.places)), *kernel.places]
        indices = [*self._indices(), "j"]
        if access.given:
            indices[0], counts[0] = f"(ptrdiff_t){known[step.args[0]]}", access.axes[0].size
        terms, conditions = [], []
        for index, size, axis in zip(indices, [*counts, kernel.columns], access.axes, strict=True):
            position, condition = self._position(index, size, axis)
            conditions.extend(condition)
            if axis.pitch:
                terms.append(position if axis.pitch == 1 else f"{position} * {axis.pitch}")
        element = f"{self.names[step.buffer]}[{' + '.join(terms) or '0'}]"
        if not conditions:
            return element
        return f"{' && '.join(conditions)} ? {element} : {literal(access.fill, step.dtype)}"

    def _position(self, index: str, size: Dim, axis: AxisMap) -> tuple[str, list[str]]:
        """Return the name of an index's position, and the conditions under which it has one."""
        if (axis.scale, axis.shift, axis.divisor) == (1, 0, 1):
            at = index if index.isalnum() else f"({index})"
        else:
            scaled = f"({index}) * {axis.scale} + {axis.shift}"
            at = self.code.fresh("at")
            if axis.divisor > 1:
                scaled = f"{self.code.functions.floor_division()}({scaled}, {axis.divisor})"
            self.code.do(f"const ptrdiff_t {at} = {scaled};")
        if axis.is_inside(size):
            return at, []
        found = [f"{at} >= 0", f"{at} < {dim_text(axis.size)}"]
        if axis.divisor > 1 and not axis.floor:
            found.append(f"{at} * {axis.divisor} == ({index}) * {axis.scale} + {axis.shift}")
        return at, found

    # ------------------------------------------------------------------ other kinds

    def _scatter_add(self, kernel: ScatterAdd) -> None:
        code, (rows, columns) = self.code, self.sizes
        (store,) = self.body.stores
        target, source = self.names[store.buffer], self.names[kernel.source]
        with code.loop("i", f"{rows} * {columns}"):
            code.do(f"{target}[i] = {literal(0, self.body.steps[store.step].dtype)};")
        with code.loop("r", dim_text(kernel.count)):
            code.do(f"ptrdiff_t i = (ptrdiff_t){self.names[kernel.indices]}[r];")
            code.do(f"i = i < 0 ? 0 : (i < {rows} ? i : {rows} - 1);")
            with code.loop("j", columns):
                code.do(f"{target}[i * {columns} + j] += {source}[r * {columns} + j];")


def write_permutation(code: Code, kernel: Permutation, names: Mapping[str, str]) -> None:
    """Write a copy with permuted axes: a loop for each axis of the result."""
    (load,), (store,) = kernel.body.loads, kernel.body.stores
    sizes = [kernel.shape[axis] for axis in kernel.axes]
    strides = permuted_strides(kernel.shape, kernel.axes)
    index = [f"i{axis}" for axis in range(len(sizes))]
    source = " + ".join(
        f"{i} * {dim_text(stride)}" for i, stride in zip(index, strides, strict=True)
    )
    code.do("ptrdiff_t at = 0;")
    _nested(code, index, sizes, f"{names[store.buffer]}[at++] = {names[load]}[{source or '0'}];")


def _nested(code: Code, index: Sequence[str], sizes: Sequence[Dim], line: str) -> None:
    if not index:
        code.do(line)
        return
    with code.loop(index[0], dim_text(sizes[0])):
        _nested(code, index[1:], sizes[1:], line)


def _with_arrays(known: Known, arrays: Mapping[int, str]) -> dict[int, str]:
    return dict(known) | {number: f"{name}[j - first]" for number, name in arrays.items()}


def _divided(dim: Dim, by: int) -> Dim:
    return Batch(dim.factor // by) if isinstance(dim, Batch) else dim // by
