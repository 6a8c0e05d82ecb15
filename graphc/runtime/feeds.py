"""The checking and copying of a user's feeds.  Every check precedes the first write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.base.errors import FeedError, Operand
from graphc.base.loc import caller_loc
from graphc.compiler.index_bounds import ignored_labels, indexed
from graphc.ir.graph import Node
from graphc.ir.op import Array
from graphc.ir.plan import Plan, Program
from graphc.ir.tensor_type import Batch, TensorType, shape_text
from graphc.kernels.feed_masks import counts_rows
from graphc.ops.exchange import ShardInput
from graphc.ops.gather import ByPlace
from graphc.ops.index_nd import FlatIndex
from graphc.runtime.feed_hints import dtype_hint, shape_hint
from graphc.runtime.refusals import accumulates


@dataclass(frozen=True, slots=True)
class Feed:
    """The feed that an input accepts: `indexed` has the `bound` entries that indices may name."""

    node: Node
    bound: int | None
    indexed: tuple[Node, ...] = ()
    ignored: int | None = None
    """The one label that need not be a class."""

    @property
    def type(self) -> TensorType:
        """The declared shape and dtype."""
        return self.node.type

    @property
    def is_label(self) -> bool:
        """Whether the input takes the numbers of classes."""
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
    """Whether inputs may be missing."""


_UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


class FeedCheck:
    """The checks of a program's feeds, prepared once."""

    def __init__(
        self,
        feeds: Mapping[str, Feed],
        known: Collection[str],
        capacity: int,
        word: str = "input",
        unread: Mapping[str, Feed] | None = None,
        by_shape: Collection[str] = (),
    ) -> None:
        self._feeds = feeds
        self.unread = unread or {}
        """The inputs that the program does not read; they determine the number of rows, too."""
        inputs = {**feeds, **self.unread}
        self._with_rows = frozenset(name for name, feed in inputs.items() if feed.type.batched)
        self._by_shape = frozenset(by_shape if self._with_rows else ())
        """The nodes that have rows by their shape alone."""
        self._word = word
        self._known = frozenset(known)
        self._capacity = capacity
        self._dtypes = {name: np.dtype(feed.type.dtype) for name, feed in feeds.items()}
        self._bounds = {name: feed.bound for name, feed in feeds.items() if feed.bound is not None}
        self._specs = [
            (name, self._dtypes[name], feed.type.rank, *_tail(feed.type), feed.bound)
            for name, feed in feeds.items()
        ]
        """One tuple per input: the check of a small batch costs well under a microsecond."""

    def counted(self, feeds: Mapping[str, Any]) -> tuple[dict[str, Array], int]:
        """Return the arrays as they are, converted later, and their number of rows, from 0 up.

        Raise FeedError for the first whose shape or kind of numbers does not fit.  Inputs may be
        missing.  If no input that is read has rows, one of the others that does is included.
        """
        found: dict[str, Array] = {}
        rows, owner = 0, ""
        for name, _, rank, axis, factor, tail, _ in self._specs:
            if name not in feeds:
                continue
            if feeds[name] is None:
                raise self._missing(name, feeds)
            value = feeds[name]
            if not isinstance(value, np.ndarray):
                value = self._array(name, value)
            self._convert(name, np.empty((0,) * value.ndim, value.dtype))
            if value.ndim != rank or value.shape[:axis] + value.shape[axis + 1 :] != tail:
                raise self._wrong_shape(name, value)
            if factor and (not owner or value.shape[axis] != rows * factor):
                rows, owner = self._rows(name, value, rows, owner), name
            found[name] = value
        return found, self._whole(feeds, found, rows, owner, optional=True)

    def arrays(
        self,
        feeds: Mapping[str, Any],
        *,
        optional: bool = False,
        limit: bool = True,
        first: int = 0,
    ) -> tuple[dict[str, Array], int]:
        """Return the arrays to copy in and their number of rows; raise FeedError for a misfit.

        With `optional`, inputs may be missing; without `limit`, any number of rows fits.  Errors
        count rows from `first`.  If no input that is read has rows, one of the others that does
        is included.
        """
        found: dict[str, Array] = {}
        rows, owner = 0, ""
        for name, dtype, rank, axis, factor, tail, bound in self._specs:
            value = feeds.get(name)
            if value is None:
                if optional and name not in feeds:
                    continue
                raise self._missing(name, feeds)
            if not isinstance(value, np.ndarray) or value.dtype is not dtype:
                value = self._convert(name, value)
            shape = value.shape
            if len(shape) != rank or shape[:axis] + shape[axis + 1 :] != tail:
                raise self._wrong_shape(name, value)
            if factor and (not rows or shape[axis] != rows * factor):
                rows, owner = self._rows(name, value, rows, owner), name
            if bound is not None:
                self._check_range(name, value, first)
            found[name] = value
        n = self._whole(feeds, found, rows, owner, optional)
        if not n or (limit and n > self._capacity):
            raise self._too_many(n)
        return found, n

    def feeds(self, feeds: Mapping[str, Any], *, optional: bool = False) -> Feeds:
        """Return the checked feeds of one run; raise FeedError as `arrays` does."""
        arrays, n = self.arrays(feeds, optional=optional)
        missing = self.undetermined(arrays) if optional else frozenset[str]()
        return Feeds(arrays, n, tuple(feeds), missing, optional)

    def undetermined(self, given: Collection[str]) -> frozenset[str]:
        """Return the missing inputs; without any rows, also nodes that have rows by shape alone."""
        missing = frozenset(self._feeds.keys() - given)
        return missing | self._by_shape if self._with_rows.isdisjoint(given) else missing

    def _whole(
        self,
        feeds: Mapping[str, Any],
        found: dict[str, Array],
        rows: int,
        owner: str,
        optional: bool,
    ) -> int:
        """Return the rows of all feeds; raise FeedError for unknown names or unknown rows.

        The rows are unknown if no feed has any though they count.
        """
        if len(found) < len(feeds):
            if not self._known.issuperset(feeds):
                raise self._unknown(next(name for name in feeds if name not in self._known))
            rows, owner = self._count_unread(feeds, found, rows, owner)
        if owner:
            return rows
        if self._by_shape and not optional:
            raise self._no_rows()
        return 1

    def _count_unread(
        self, feeds: Mapping[str, Any], found: dict[str, Array], rows: int, owner: str
    ) -> tuple[int, str]:
        """Return the rows of all feeds and their owner; raise FeedError if unread inputs differ.

        The first unread input that has rows is put among the arrays found, if none there has rows.
        """
        for name, feed in self.unread.items():
            axis, factor, tail = _tail(feed.type)
            if not factor or feeds.get(name) is None:
                continue
            value = self._array(name, feeds[name])
            if value.ndim != feed.type.rank or value.shape[:axis] + value.shape[axis + 1 :] != tail:
                raise self._wrong_shape(name, value)
            if not owner:
                found[name] = value
            if not owner or value.shape[axis] != rows * factor:
                rows, owner = self._rows(name, value, rows, owner), name
        return rows, owner

    def _feed(self, name: str) -> Feed:
        return self._feeds.get(name) or self.unread[name]

    def _rows(self, name: str, value: Array, known: int, owner: str) -> int:
        """Return the array's number of rows; raise FeedError if that of the others differs."""
        axis, factor, _ = _tail(self._feed(name).type)
        size: int = value.shape[axis]
        n, rest = divmod(size, factor)
        if rest:
            raise self._wrong_shape(name, value)
        if owner and known != n:
            raise FeedError(
                f"{owner!r} has {known} rows, {name!r} has {n}",
                operands=self._operands(owner, name),
                loc=caller_loc(),
                hint="all inputs of a run take the same batch",
            )
        return n

    def _array(self, name: str, value: Any) -> Array:
        try:
            return np.asarray(value)
        except ValueError:
            raise FeedError(
                f"{self._word} {name!r} is not an array: its parts have different lengths",
                operands=self._operands(name),
                loc=caller_loc(),
                hint="all rows of a batch must have the same shape",
            ) from None

    def _convert(self, name: str, value: Any) -> Array:
        feed, dtype = self._feeds[name], self._dtypes[name]
        array = self._array(name, value)
        if array.dtype.kind in "fiub" and feed.type.is_float:
            return array.astype(dtype)
        if array.dtype.kind in "iu" and dtype.kind in "iu":
            return self._to_integers(name, array)
        if array.dtype == dtype:
            return array.astype(dtype)
        raise FeedError(
            f"{self._word} {name!r} takes {feed.type.dtype}, the array is {_kind(array)}",
            operands=self._operands(name),
            loc=caller_loc(),
            hint=dtype_hint(name, feed.type, feed.is_label, array),
        )

    def _to_integers(self, name: str, array: Array) -> Array:
        dtype = self._dtypes[name]
        info = np.iinfo(dtype)
        if array.size and (array.min() < info.min or array.max() > info.max):
            raise FeedError(
                f"{self._word} {name!r} holds numbers too large for {dtype}",
                operands=self._operands(name),
                loc=caller_loc(),
                hint="declare the input with dtype='int64'",
            )
        return array.astype(dtype)

    def _check_range(self, name: str, value: Array, first: int) -> None:
        bound = self._bounds[name]
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
        axis, factor, _ = _tail(self._feeds[name].type)
        row = f" at row {first + bad[axis] // factor}" if factor else ""
        by = self._feeds[name].indexed
        one, many = ("index", "entries") if by else ("label", "classes")
        raise FeedError(
            f"{self._word} {name!r} holds the {one} {value[tuple(bad)]}{row}, "
            f"there are {bound} {many}",
            operands=[
                *self._operands(name),
                *(node.described("indexed") for node in by),
            ],
            loc=caller_loc(),
            hint=f"{'indices' if by else 'labels'} go from 0 to {bound - 1}"
            + ("" if ignored is None else f", and {ignored} is ignored"),
        )

    def _operands(self, *names: str) -> list[Operand]:
        return [replace(self._feed(n).node.described(self._word), name=n) for n in names]

    def _missing(self, name: str, feeds: Iterable[str]) -> FeedError:
        odd = [given for given in feeds if given not in self._known]
        hint = f"there is no {self._word} {odd[0]!r}; " if odd else ""
        how = f"feed it by name: {name}=..." if name.isidentifier() else f"{{{name!r}: array}}"
        return FeedError(
            f"{self._word} {name!r} is {'None, not an array' if name in feeds else 'missing'}",
            operands=self._operands(name),
            loc=caller_loc(),
            hint=hint + how,
        )

    def _no_rows(self) -> FeedError:
        with_rows = [name for name, feed in self.unread.items() if feed.type.batched]
        return FeedError(
            "nothing that was fed has rows, so their number is not known",
            operands=self._operands(*with_rows[:1]),
            loc=caller_loc(),
            hint=f"feed it by name: {with_rows[0]}=..., though only its rows count",
        )

    def _unknown(self, name: str) -> FeedError:
        known = ", ".join(sorted(self._known)) or "none"
        return FeedError(
            f"there is no {self._word} {name!r}", loc=caller_loc(), hint=f"there are: {known}"
        )

    def _wrong_shape(self, name: str, value: Array) -> FeedError:
        feed = self._feed(name)
        wanted = shape_text(feed.type.shape)
        return FeedError(
            f"{self._word} {name!r} takes {wanted}, the array has shape {value.shape}",
            operands=self._operands(name),
            loc=caller_loc(),
            hint=shape_hint(name, feed.type, feed.is_label, value.shape),
        )

    def _too_many(self, n: int) -> FeedError:
        if n < 1:
            return FeedError(
                "the batch has 0 rows", loc=caller_loc(), hint="a run takes at least one row"
            )
        return FeedError(
            f"the batch has {n} rows, the plan takes up to {self._capacity}",
            loc=caller_loc(),
            hint=f"compile with batch={n}, or use ex.predict or ex.evaluate, which cut batches",
        )


def _kind(array: Array) -> str:
    return {"U": "text", "S": "bytes", "O": "Python objects"}.get(
        array.dtype.kind, str(array.dtype)
    )


def _tail(type: TensorType) -> tuple[int, int, tuple[int, ...]]:
    """Return the batch axis, its factor (0 if there is none), and the other dimensions."""
    rest = tuple(dim for dim in type.shape if isinstance(dim, int))
    for axis, dim in enumerate(type.shape):
        if isinstance(dim, Batch):
            return axis, dim.factor, rest
    return type.rank, 0, rest


def merged(feeds: Mapping[str, Any] | None, by_name: Mapping[str, Any]) -> dict[str, Any]:
    """Return feeds from a mapping and by name as one dict; raise FeedError for anything else."""
    if feeds is not None and not isinstance(feeds, Mapping):
        raise FeedError(
            f"feeds are given by name, not as {type(feeds).__name__}",
            loc=caller_loc(),
            hint='ex.forward(x=array) or ex.forward({"x": array}); ex.predict(array) takes arrays',
        )
    return {**(feeds or {}), **by_name}


def program_check(program: Program, plan: Plan) -> FeedCheck:
    """Return the check of a program's feeds; it knows all inputs of the net, also unread ones."""
    limits, ignored = indexed(program.graph), ignored_labels(program.graph)
    nodes = [program.graph[name] for name in program.feeds]
    users = [node for node in nodes if not isinstance(node.op, ShardInput)]
    feeds = {n.name: _feed(n, limits.get(n.name), ignored.get(n.name)) for n in users}
    others = (name for name in plan.input_names if name not in feeds)
    unread = {name: Feed(plan.declared[name], None) for name in others}
    known = {**unread, **feeds}
    by_shape = [node.name for node in program.graph if counts_rows(program.graph, node)]
    return FeedCheck(feeds, known, program.capacity, unread=unread, by_shape=by_shape)


def _feed(node: Node, limit: tuple[int, Node] | None, ignored: int | None) -> Feed:
    """Return the feed that an input accepts; losses and the like have labels, not indices."""
    bound, by = limit or (None, None)
    indexed = (by,) if by and isinstance(by.op, (ByPlace, FlatIndex)) else ()
    return Feed(node, bound, indexed, ignored)


def gradient_arrays(apply: Program, plan: Plan, gradients: Mapping[str, Any]) -> dict[str, Array]:
    """Return checked gradients of parameters, by the feeds of the program that applies them.

    Raise StateError if the optimizer accumulates its own.
    """
    if plan.accumulate > 1:
        raise accumulates()
    feeds = {name.removeprefix("gradient:"): name for name in apply.feeds}
    known = {name: Feed(apply.graph[feed], None) for name, feed in feeds.items()}
    arrays, _ = FeedCheck(known, {*known, *plan.wrt}, 1, "gradient").arrays(gradients)
    return {feeds[name]: array for name, array in arrays.items()}
