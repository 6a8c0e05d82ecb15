"""Sources of batches: the base class, and those of functions, generators and arrays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.arguments import takes_one
from graphc.base.errors import FeedError
from graphc.ir.init import generator
from graphc.ir.op import Array
from graphc.ir.tensor_type import TensorType
from graphc.runtime.executor import Executor
from graphc.runtime.pages import Pages
from graphc.runtime.row_axis import RowAxis, first_rows
from graphc.runtime.rows import by_lengths, by_position, weight_input

Batch = tuple[int, dict[str, Any]]
"""The number of rows, and the feeds by name of input; the next batch may overwrite them."""


class Source:
    """Batches of each epoch, in an order that depends only on the epoch's number."""

    names: frozenset[str] | None = None
    """The inputs that are fed; None if only the batches show them."""
    rows: int | None = None
    """The number of rows of an epoch; None if it is known only at the end of the epoch."""
    weigh: Callable[[Batch], Batch] | None = None
    """A function that adds the weights of its rows to a batch, if they are not in the data."""
    whole = False
    """True if all rows of a batch are needed, not only the rows that this rank trains on."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start` on."""
        batches = self._batches(epoch, start)
        return batches if self.weigh is None else map(self.weigh, batches)

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches as they are in the data."""
        raise NotImplementedError

    def release(self, epoch: int, start: int) -> None:
        """Free what only batches before this one need: none of those will be asked for."""

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the index in the data of a row of a batch; None if it is unknown."""
        return None


class FunctionSource(Source):
    """A source whose batches a function of the epoch's number yields."""

    def __init__(self, ex: Executor, make: Callable[[int], Iterable[Any]], train: bool) -> None:
        if not takes_one(make):
            raise FeedError(
                "the function that makes batches does not take the number of the epoch",
                hint="def batches(epoch): yield x, y",
            )
        self._ex, self._make, self._train = ex, make, train

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield the batches of an epoch; batches before `start` are made and dropped."""
        made = self._make(epoch)
        if not isinstance(made, Iterable):
            raise FeedError(
                f"the function that makes batches gave {type(made).__name__}, not batches",
                hint="def batches(epoch): yield x, y",
            )
        for number, item in enumerate(made):
            if number >= start:
                yield _as_batch(self._ex, item, self._train)


class IteratorSource(Source):
    """A source whose batches a generator yields; it copies batches that a trace may repeat."""

    def __init__(self, ex: Executor, items: Iterator[Any], train: bool) -> None:
        self._new = (_as_batch(ex, item, train) for item in items)
        self._kept: list[Batch] = []
        self._first = 0
        """The number of the oldest batch that is kept."""

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Yield kept batches, then new ones; batches before `start` are dropped."""
        number = max(start, self._first)
        while self._copied_up_to(number):
            yield self._kept[number - self._first]
            number += 1

    def _copied_up_to(self, number: int) -> bool:
        """Copy new batches up to this number, and return whether there are so many."""
        while number >= self._first + len(self._kept):
            new = next(self._new, None)
            if new is None:
                return False
            rows, feeds = new
            self._kept.append((rows, {name: _copied(array) for name, array in feeds.items()}))
        return True

    def release(self, epoch: int, start: int) -> None:
        """Delete the copies of earlier batches."""
        drop = max(0, min(start - self._first, len(self._kept)))
        del self._kept[:drop]
        self._first += drop


def _copied(array: Any) -> Any:
    """Return a copy of an array, or of each array in a list of rows."""
    return [np.array(row) for row in array] if isinstance(array, list) else np.array(array)


def _as_batch(ex: Executor, item: Any, train: bool) -> Batch:
    """Return the rows and feeds of a yielded item: a tuple by position, a mapping, or one array."""
    given = filled(ex, by_position(ex.plan.data_names, (item,), {}))
    feeds, rows = ex.rows(given, train=train)
    most = ex.plan.rows if train else ex.plan.batch
    if rows > most:
        raise FeedError(
            f"a batch of {rows} rows was yielded, the plan takes up to {most}",
            hint=f"yield smaller ones, or compile with batch={rows}",
        )
    return rows, feeds


def filled(ex: Executor, feeds: dict[str, Any]) -> dict[str, Any]:
    """Return the feeds, with weights of 1 added if a loss takes weights and there are none."""
    takes = weight_input(ex.plan)
    if takes is None or takes.name in feeds:
        return feeds
    for name, array in feeds.items():
        axis = RowAxis.of(ex.plan.declared[name].type) if name in ex.plan.input_names else None
        if isinstance(array, (list, tuple)) and axis is not None and not axis.axis:
            rows = len(array) // axis.factor
        elif axis is not None and np.ndim(array) > axis.axis:
            rows = np.shape(array)[axis.axis] // axis.factor
        else:
            rows = None
        if rows is not None:
            return {**feeds, takes.name: takes.ones(rows)}
    return feeds


def checked_arrays(ex: Executor, data: Any, *, train: bool) -> tuple[dict[str, Any], int]:
    """Return arrays by input and their number of rows; arrays mapped from files are not read.

    Rows that have fewer steps than declared are as they are given, in arrays or lists.  Numbers of
    mapped arrays are checked a batch at a time.  Raise FeedError if an array does not fit.
    """
    given = filled(ex, by_position(ex.plan.data_names, (data,), {}))
    if train and not isinstance(data, Mapping):
        _check_positions(ex, given)
    mapped = [name for name, array in given.items() if isinstance(array, np.memmap)]
    if not mapped:
        return ex.rows(given, train=train)
    for name in mapped:
        if not given[name].flags.c_contiguous:
            raise FeedError(
                f"the memory-mapped array of input {name!r} does not have its rows one after the "
                "other, so that all of it would have to be read into memory",
                hint="save it in C order: np.save(path, np.ascontiguousarray(array))",
            )
    found, rows = check_layout(ex, given, mapped, train)
    return {k: given[k] if k in mapped else array for k, array in found.items()}, rows


def check_layout(
    ex: Executor, given: Mapping[str, Any], unread: Collection[str], train: bool
) -> tuple[dict[str, Any], int]:
    """Return the feeds and their rows, with zeros for `unread`, of which only a row is read.

    Raise FeedError if an array does not fit.
    """
    shapes = {name: blank(ex, name, given[name].shape) for name in unread}
    found = ex.rows({**given, **shapes}, train=train)
    types = {name: ex.plan.declared[name].type for name in given}
    whole = {name: array for name, array in given.items() if not isinstance(found[0][name], list)}
    row = {name: first_rows(np.asarray(array), types[name], 1) for name, array in whole.items()}
    ex.rows(row, train=train)  # its dtypes
    return found


def _check_positions(ex: Executor, given: Mapping[str, Any]) -> None:
    """Raise FeedError if arrays by position leave out an input that training needs."""
    program = ex.plan.programs.get("step") or ex.plan.programs.get("grad")
    needed = [name for name in ex.plan.data_names if program and name in program.feeds]
    missing = [name for name in needed if name not in given]
    if missing and given:
        shown = ", ".join(f"{name!r}: ..." for name in needed)
        raise FeedError(
            f"fit: arrays were given for {', '.join(map(repr, given))}, in the order of the "
            f"inputs, and none for {', '.join(map(repr, missing))}",
            hint=f"gc.fit(ex, ({', '.join(ex.plan.data_names)})), or gc.fit(ex, {{{shown}}})",
        )


def check_choosable(ex: Executor, names: Iterable[str], shuffled: bool) -> None:
    """Raise FeedError for an input of which the rows of a batch cannot be chosen.

    Pairs of rows cannot, nor, in another order, numbers of the rows of their batch.
    """
    bounds = ex.plan.programs["infer"].index_bounds
    for name in names:
        node = ex.plan.declared[name]
        if node.type.pairs_rows:
            raise FeedError(
                f"{name!r} has the batch on two axes, so a batch cannot be chosen from its rows",
                operands=[node.described("pairs of rows")],
                hint="ex.evaluate takes arrays of one batch, gc.fit a function: def "
                "batches(epoch): yield x, pairs",
            )
        if shuffled and not isinstance(bounds.get(name, 0), int):
            raise FeedError(
                f"{name!r} numbers the rows of a batch, so they cannot be shuffled",
                operands=[node.described("numbers of rows")],
                hint=f"shuffle=False, or yield the batches: def batches(epoch): yield x, {name}",
            )


def blank(ex: Executor, name: str, shape: tuple[int, ...], dtype: Any = None) -> Array:
    """Return zeros for an input, or lengths of 1, that take no memory; of its dtype by default."""
    node = ex.plan.declared.nodes.get(name)
    dtype = dtype or (node.type.dtype if node else "float32")
    one = node is not None and node.op.role.kind == "lengths"
    return np.broadcast_to(np.asarray(int(one), dtype), shape)


class ArraySource(Source):
    """Batches of rows of arrays, shuffled by the seed and the epoch unless `seed` is None.

    All memory is allocated here, none by an epoch.  `arrays` have `rows` rows on the batch axis of
    their `types`; arrays without a batch axis are fed as they are, and of a list of rows, lists.
    Arrays of another dtype are converted a batch at a time if that is safe, and are otherwise left
    to the check of each step.
    """

    rows: int

    def __init__(
        self,
        named: Mapping[str, Any],
        types: Mapping[str, TensorType],
        rows: int,
        batch: int,
        seed: int | None = None,
    ) -> None:
        self.names, self.rows, self.named = frozenset(named), rows, named
        self._lists = {name: one for name, one in named.items() if isinstance(one, list)}
        arrays = {name: one for name, one in named.items() if name not in self._lists}
        self.lengths: Array | None = None
        """The lengths by which rows are sorted into batches of like length."""
        self.rank_range: Callable[[int], tuple[int, int]] | None = None
        """A function from a batch's number of rows to the range of rows needed here; the other rows
        may hold those of earlier batches.  None for all rows."""
        self.counting: Collection[str] = ()
        """The arrays of which all rows are needed nevertheless."""
        self._seed, self._batch = seed, min(batch, rows)
        self._order = np.arange(rows, dtype=np.intp)
        axes = {k: axis for k in arrays if (axis := RowAxis.of(types[k])) is not None}
        self._axes = {name: axis.axis for name, axis in axes.items()}
        self._sources = {name: axis.split(arrays[name]) for name, axis in axes.items()}
        mapped = [name for name in axes if isinstance(arrays[name], np.memmap)]
        self._ahead = ReadAhead({name: self._sources.pop(name) for name in mapped}, self._axes)
        self._window = self._batch * max(1, min(self._ahead.rows, rows) // self._batch)
        self._sizes = {n: _Buffers() for n in {self._batch, rows % self._batch} - {0}}
        """The buffers by the rows of a batch, which is smaller at the end of an epoch."""
        fixed = {name: array for name, array in arrays.items() if name not in axes}
        for name, axis in axes.items():
            array, type = arrays[name], types[name]
            buffer = axis.buffer(array, self._batch)
            converts = array.dtype != type.dtype and type.is_float and array.dtype.kind in "fiub"
            cast = np.empty(buffer.size, type.dtype) if converts else None
            for n, buffers in self._sizes.items():
                buffers.add(name, axis, array, n, buffer, cast)
        for buffers in self._sizes.values():
            buffers.feeds.update(fixed)

    def _batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Shuffle the rows, from any order, and return the batches, all in the same memory."""
        if self._seed is not None or self.lengths is not None:
            self._order.sort()
        if self._seed is not None:
            numbers = generator(self._seed, f"epoch {epoch}")
            numbers.shuffle(self._order)
            if self.lengths is not None:
                self._sort_batches(self.lengths, numbers)
        elif self.lengths is not None:
            self._order = by_lengths(self.lengths)
        return self._since(start * self._batch)

    def _sort_batches(self, lengths: Array, numbers: np.random.Generator) -> None:
        """Let each batch have rows of like length, in a random order of batches.

        Rows of the same length stay in their random order.  Which rows the last batch has, if it is
        smaller than the others, is random, too.
        """
        whole = self._order[: len(self._order) // self._batch * self._batch]
        whole[...] = whole[by_lengths(lengths[whole])]
        numbers.shuffle(whole.reshape(-1, self._batch))

    @property
    def arrays(self) -> Mapping[str, Array]:
        """The data: arrays, and the steps of the rows of each list one after the other."""
        steps = {name: np.concatenate(rows) for name, rows in self._lists.items()}
        return {**self.named, **steps}

    def _since(self, begin: int) -> Iterator[Batch]:
        """Yield the batches from the row at position `begin` on."""
        for start in range(begin, len(self._order), self._batch):
            chosen = self._order[start : start + self._batch]
            buffers = self._sizes[len(chosen)]
            for name, source in self._sources.items():
                rows, out = chosen, buffers.read[name]
                if self.rank_range is not None and not self.whole and self._reads_rank_range(name):
                    kept = slice(*self.rank_range(len(chosen)))
                    rows, out = chosen[kept], out[kept]
                # Any mode but "raise" writes straight into `out`; the rows are all in range.
                np.take(source, rows, self._axes[name], out, "clip")
            offset = (start - begin) % self._window
            if offset == 0:
                self._ahead.read(self._order[start : start + self._window])
            for name in self._ahead.names:
                self._ahead.take(name, offset, offset + len(chosen), buffers.read[name])
            for name, cast in buffers.cast.items():
                np.copyto(cast, buffers.read[name], casting="unsafe")
            for name, rows_of in self._lists.items():
                buffers.feeds[name] = [rows_of[i] for i in chosen]
            yield len(chosen), buffers.feeds

    def _reads_rank_range(self, name: str) -> bool:
        """Return whether only the rows needed here are taken of an array.

        All rows are taken of arrays with one number per row, of arrays by which means are
        weighted, and of arrays whose rows are not on the first axis.
        """
        many = self._axes[name] == 0 and self._sources[name].size > len(self._order)
        return many and name not in self.counting

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the index in the arrays of a row of a batch of the epoch that was begun last."""
        return int(self._order[step * self._batch + row])


class _Buffers:
    """The memory of batches of one size: rows as they are read, those converted, and the feeds."""

    def __init__(self) -> None:
        self.read: dict[str, Array] = {}
        self.cast: dict[str, Array] = {}
        self.feeds: dict[str, Any] = {}

    def add(
        self, name: str, axis: RowAxis, array: Array, n: int, buffer: Array, cast: Array | None
    ) -> None:
        """Add `n` rows of the memory of an array, and of its memory for converted rows, if any."""
        rows = self.read[name] = axis.cut(buffer, array, n)
        if cast is not None:
            rows = self.cast[name] = axis.cut(cast, array, n)
        self.feeds[name] = axis.join(rows)


_AHEAD = 128 * 2**20
"""The bytes of rows, about, that are read ahead."""

_PIECE = 1024
"""The rows after which pages are given back.  Systems map some 64 KiB around each row that is read.
"""


class ReadAhead:
    """Rows of memory-mapped arrays for the next batches, read in the order of the file.

    Rows in a random order lie anywhere in a file, and each would cost a separate access.
    `arrays` have one entry of their `axes` for each row.
    """

    def __init__(self, arrays: Mapping[str, Array], axes: Mapping[str, int]) -> None:
        self._arrays, self._axes, self._pages = arrays, axes, Pages(arrays.values())
        self.names = tuple(arrays)
        count = max((a.shape[axes[name]] for name, a in arrays.items()), default=1)
        self.rows = max(1, _AHEAD * count // max(1, sum(a.nbytes for a in arrays.values())))
        """The number of rows that are read at a time."""
        self._memory: dict[str, Array] = {}
        self._places = np.empty(0, np.intp)

    def read(self, rows: NDArray[np.intp]) -> None:
        """Read these rows; `take` then gives them by their number in this array."""
        if not self.names:
            return
        ascending = np.argsort(rows)
        self._places = np.empty(len(rows), np.intp)
        self._places[ascending] = np.arange(len(rows))
        for name, array in self._arrays.items():
            axis = self._axes[name]
            shape = (*array.shape[:axis], len(rows), *array.shape[axis + 1 :])
            if name not in self._memory or self._memory[name].shape != shape:
                self._memory[name] = np.empty(shape, array.dtype)
        for start in range(0, len(rows), _PIECE):
            piece = rows[ascending[start : start + _PIECE]]
            for name, array in self._arrays.items():
                axis = self._axes[name]
                part = (*[slice(None)] * axis, slice(start, start + len(piece)))
                self._memory[name][part] = np.take(array, piece, axis)
            self._pages.give_back()

    def take(self, name: str, start: int, stop: int, buffer: Array) -> None:
        """Copy rows that were read, by their numbers, into a buffer."""
        np.take(self._memory[name], self._places[start:stop], self._axes[name], buffer, "clip")
