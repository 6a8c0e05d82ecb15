"""Check a user's feeds, before anything is written: convert each array, or refuse it.

Arrays that native code can read where they lie skip it: see `ZeroCopyPrograms`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from graphc.base.arguments import array_of
from graphc.base.errors import FeedError
from graphc.compiler.index_bounds import ignored_labels, indexed
from graphc.compiler.plan import Plan
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array, step_of
from graphc.ir.tensor_type import Batch, Dim, TensorType, batch_axes, shape_at
from graphc.kernels.program import Program
from graphc.kernels.traits import counts_rows
from graphc.runtime.errors import FeedErrors, accumulates


@dataclass(frozen=True)
class Feed:
    """The feed that an input accepts; `bound` limits labels, or indices into `indexed`."""

    node: Node
    bound: Dim | None
    indexed: tuple[Node, ...] = ()
    ignored: int | None = None
    """The one label that is ignored and need not be a class."""
    looped: bool = False
    """True if a loop runs over its steps."""

    @property
    def type(self) -> TensorType:
        """The declared shape and dtype."""
        return self.node.type

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The dtype that the array is converted to."""
        return np.dtype(self.type.dtype)

    @cached_property
    def rows(self) -> tuple[int, int, tuple[int, ...] | None]:
        """The batch axis, its factor (0 if there is none), and the other dimensions.

        These are None for pairs of rows, whose shapes only `count` judges.
        """
        rest = tuple(dim for dim in self.type.shape if isinstance(dim, int))
        axis, dim = next(iter(batch_axes(self.type.shape)), (self.type.rank, None))
        return axis, dim.factor if dim else 0, None if self.type.pairs_rows else rest

    def count(self, shape: tuple[int, ...]) -> int | None:
        """Return the rows of an array of this shape, 1 without batch; None if it does not fit."""
        axis, factor, _ = self.rows
        dim = self.type.shape[axis] if factor and len(shape) == self.type.rank else 1
        n = dim.rows(shape[axis]) if isinstance(dim, Batch) else 1
        return n if n is not None and shape_at(self.type.shape, n) == shape else None

    @property
    def is_label(self) -> bool:
        """True if the input takes the numbers of classes."""
        return self.bound is not None and not self.indexed


@dataclass(frozen=True, slots=True)
class Feeds:
    """The checked feeds of a program: arrays for `n` rows, and the names that were given."""

    arrays: Mapping[str, Array]
    n: int
    names: tuple[str, ...]
    missing: frozenset[str]
    """Inputs that were not given, and nodes that have no rows without them."""
    optional: bool
    """True if inputs may be missing."""


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class FeedCheck:
    """The checks of a program's feeds, prepared once."""

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        capacity: int,
        word: str = "input",
        unread: Mapping[str, Feed] | None = None,
        by_shape: Collection[str] = (),
    ) -> None:
        self._feeds = feeds
        self._unread = unread or {}
        """The inputs that the program does not read; they determine the number of rows, too."""
        self._inputs = inputs = {**self._unread, **feeds}
        self._with_rows = frozenset(name for name, feed in inputs.items() if feed.type.batched)
        self._by_shape = frozenset(by_shape if self._with_rows else ())
        """The nodes that have rows by their shape alone."""
        self._capacity = capacity
        self._errors = FeedErrors(word, inputs, self._unread, capacity)
        self._specs = [
            (name, feed.dtype, feed.type.rank, *feed.rows, bound if type(bound) is int else None)
            for name, feed in feeds.items()
            for bound in (feed.bound,)
        ]
        """The facts of each input in one tuple, so that checking a small batch takes under 1 us."""
        self._numbers_rows = {k: x.bound for k, x in feeds.items() if isinstance(x.bound, Batch)}
        """The bounds of the inputs that number rows of the batch."""

    def counted(self, feeds: Mapping[str, Any]) -> tuple[dict[str, Array], int]:
        """Return the arrays, not yet converted, and their number of rows, which may be 0.

        Raise FeedError for the first whose shape or kind of numbers does not fit.  Inputs may be
        missing.  If no input that is read has rows, one of the others that does is included.
        """
        return self.arrays(feeds, optional=True, convert=False)

    def arrays(
        self,
        feeds: Mapping[str, Any],
        *,
        optional: bool = False,
        limit: bool = True,
        first: int = 0,
        convert: bool = True,
    ) -> tuple[dict[str, Array], int]:
        """Return the arrays to copy in and their number of rows; raise FeedError for a misfit.

        With `optional`, inputs may be missing; without `limit`, any number of rows fits.  Errors
        count rows from `first`.  If no input that is read has rows, one of the others that does
        is included.  Without `convert` the arrays are those of `counted`.
        """
        found: dict[str, Array] = {}
        rows, owner = 0, ""
        for name, dtype, rank, axis, factor, tail, bound in self._specs:
            value = feeds.get(name)
            if value is None:
                if optional and name not in feeds:
                    continue
                # Also for None given by name, which is a mistake rather than a missing input.
                raise self._errors.missing(name, feeds)
            # NumPy's native dtypes are one object each: any other object is converted.
            if not isinstance(value, np.ndarray) or value.dtype is not dtype:
                value = (self._convert if convert else self._of_kind)(name, value)
            shape = value.shape
            plain = len(shape) == rank and shape[:axis] + shape[axis + 1 :] == tail
            if not plain and not factor:
                raise self._errors.wrong_shape(name, value)
            if factor and not (plain and owner and shape[axis] == rows * factor):
                rows, owner = self._rows(name, value, rows, owner), name
            if bound is not None and convert:
                self._check_range(name, value, bound, first)
            found[name] = value
        n = self._whole(feeds, found, rows, owner, optional)
        if convert and (not n or (limit and n > self._capacity)):
            raise self._errors.too_many(n)
        if self._numbers_rows and convert:
            self._check_numbers(found, n, first)
        return found, n

    def feeds(self, feeds: Mapping[str, Any], *, optional: bool = False) -> Feeds:
        """Return the checked feeds of one run; raise FeedError as `arrays` does."""
        arrays, n = self.arrays(feeds, optional=optional)
        missing = frozenset(self._feeds.keys() - arrays) if optional else frozenset[str]()
        if optional and self._with_rows.isdisjoint(arrays):
            missing |= self._by_shape
        return Feeds(arrays, n, tuple(feeds), missing, optional)

    def _whole(
        self,
        feeds: Mapping[str, Any],
        found: dict[str, Array],
        rows: int,
        owner: str,
        optional: bool,
    ) -> int:
        """Return the rows of all feeds; raise FeedError for unknown names or unknown rows.

        The rows are unknown if no feed has any, but nodes have rows by their shapes.
        """
        if len(found) < len(feeds):
            if odd := [name for name in feeds if name not in self._inputs]:
                raise self._errors.unknown(odd[0])
            rows, owner = self._count_unread(feeds, found, rows, owner)
        if owner:
            return rows
        if self._by_shape and not optional:
            raise self._errors.no_rows()
        return 1

    def _count_unread(
        self, feeds: Mapping[str, Any], found: dict[str, Array], rows: int, owner: str
    ) -> tuple[int, str]:
        """Return the rows of all feeds and their owner; raise FeedError if unread inputs differ.

        The first unread input that has rows is put among the arrays found, if none there has rows.
        """
        for name, feed in self._unread.items():
            if not feed.type.batched or feeds.get(name) is None:
                continue
            value = self._array(name, feeds[name])
            rows = self._rows(name, value, rows, owner)
            if not owner:
                found[name], owner = value, name
        return rows, owner

    def _rows(self, name: str, value: Array, known: int, owner: str) -> int:
        """Return the array's number of rows; raise FeedError if that of the others differs."""
        n = self._inputs[name].count(value.shape)
        if n is None:
            raise self._errors.wrong_shape(name, value)
        if owner and known != n:
            raise self._errors.other_rows(owner, known, name, n)
        return n

    def _array(self, name: str, value: Any) -> Array:
        return read(self._errors, name, value)

    def converted(self, name: str, value: Any) -> Any:
        """Return an array in the dtype of its input, unless the program does not read it.

        Raise FeedError if its kind of numbers does not fit.
        """
        feed = self._feeds.get(name)
        if feed is None or (isinstance(value, np.ndarray) and value.dtype is feed.dtype):
            return value
        return self._convert(name, value)

    def _of_kind(self, name: str, value: Any) -> Array:
        """Return an array as it is; raise FeedError if its kind of numbers does not fit."""
        array = self._array(name, value)
        self._convert(name, np.empty((0,) * array.ndim, array.dtype))
        return array

    def _convert(self, name: str, value: Any) -> Array:
        feed, array = self._feeds[name], self._array(name, value)
        return check_kind(self._errors, name, feed.type, array).astype(feed.dtype)

    def _check_numbers(self, found: Mapping[str, Array], n: int, first: int) -> None:
        for name in self._numbers_rows.keys() & found.keys():
            self._check_range(name, found[name], self._numbers_rows[name].at(n), first)

    def _check_range(self, name: str, value: Array, bound: int, first: int) -> None:
        unsigned = value.view(_UNSIGNED[value.itemsize]).reshape(-1)  # negative numbers are huge
        if value.size == 0 or unsigned[unsigned.argmax()] < bound:
            return
        wrong = (value < 0) | (value >= bound)
        ignored = self._feeds[name].ignored
        if ignored is not None:
            wrong &= value != ignored
            if not wrong.any():
                return
        bad = np.argwhere(wrong)[0]
        axis, factor, _ = self._feeds[name].rows
        row = f" at row {first + bad[axis] // factor}" if factor else ""
        raise self._errors.out_of_range(name, value[tuple(bad)], row, bound)


def read(errors: FeedErrors, name: str, value: Any) -> Array:
    """Return what was fed as an array; raise FeedError if it cannot be one."""
    try:
        return array_of(f"{errors.word} {name!r}", value, FeedError)
    except FeedError:
        raise
    except ValueError:
        raise errors.ragged(name) from None


def check_kind(errors: FeedErrors, name: str, type: TensorType, array: Array) -> Array:
    """Return an array as it is; raise FeedError if its numbers do not fit an input's dtype."""
    dtype = np.dtype(type.dtype)
    if array.dtype == dtype or (array.dtype.kind in "fiub" and type.is_float):
        return array
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        info = np.iinfo(dtype)
        if array.size and (array.min() < info.min or array.max() > info.max):
            raise errors.too_large(name, dtype)
        return array
    raise errors.wrong_dtype(name, array)


def merged(feeds: Mapping[str, Any] | None, by_name: Mapping[str, Any]) -> dict[str, Any]:
    """Return feeds from a mapping and by name as one dict; raise FeedError for anything else."""
    # The test of the type alone, which suffices for most, is 0.15 us faster than isinstance.
    if feeds is not None and type(feeds) is not dict and not isinstance(feeds, Mapping):
        raise FeedError(
            f"feeds are given by name, not as {type(feeds).__name__}",
            hint='ex.forward(x=array) or ex.forward({"x": array}); ex.predict(array) takes arrays',
        )
    return {**(feeds or {}), **by_name}


def program_check(program: Program, plan: Plan) -> FeedCheck:
    """Return the check of a program's feeds; it knows all inputs of the net, also unread ones."""
    graph, feeds = program.graph, feeds_of(program, plan)
    others = (name for name in plan.input_names if name not in feeds)
    unread = {name: Feed(plan.declared[name], None) for name in others}
    by_shape = [node.name for node in graph if counts_rows(graph, node)]
    return FeedCheck(feeds, plan.batch, unread=unread, by_shape=by_shape)


def feeds_of(program: Program, plan: Plan) -> dict[str, Feed]:
    """Return the inputs that a program reads, with the bounds of indices."""
    graph = program.graph
    limits, ignored = indexed(graph), ignored_labels(graph)
    users = [graph[name] for name in program.feeds if not graph[name].op.is_of_shard]
    looped = plan.declared.upstream(_stepped(plan.declared))
    return {
        n.name: _feed(n, limits.get(n.name), ignored.get(n.name), n.name in looped) for n in users
    }


def _stepped(graph: Graph) -> Iterator[str]:
    """Yield the values over whose steps loops run."""
    for node in graph:
        step = step_of(node.op)
        if step is not None:
            yield from node.inputs[: len(step.sequences)]


def _feed(node: Node, limit: tuple[Dim, Node] | None, ignored: int | None, looped: bool) -> Feed:
    """Return the feed that an input accepts; losses and the like have labels, not indices."""
    bound, by = limit or (None, None)
    indexed = (by,) if by and by.op.takes_positions else ()
    return Feed(node, bound, indexed, ignored, looped)


def gradient_arrays(apply: Program, plan: Plan, gradients: Mapping[str, Any]) -> dict[str, Array]:
    """Return checked gradients of parameters, by the feeds of the program that applies them.

    Raise StateError if the optimizer accumulates its own.
    """
    if plan.accumulate > 1:
        raise accumulates()
    feeds = {wrt: name for name, wrt in apply.fed_gradients.items()}
    read = {name: Feed(apply.graph[feed], None) for name, feed in feeds.items()}
    unread = {name: Feed(plan.declared[name], None) for name in plan.wrt if name not in read}
    arrays, _ = FeedCheck(read, 1, "gradient", unread).arrays(gradients)
    return {feeds[name]: array for name, array in arrays.items()}
