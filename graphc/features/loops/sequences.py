"""Feeds whose rows have fewer steps than declared: their lengths, and zeros behind their ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.compiler.index_bounds import through_moves
from graphc.ir.graph import Graph, Node
from graphc.ir.op import Array
from graphc.ops.loops.lengths import with_lengths
from graphc.ops.loops.op import Scan
from graphc.runtime.errors import FeedErrors
from graphc.runtime.feeds import Feed, check_kind, read

Rows = Array | list[Array]
"""The rows of an input: one array (n, t, ...), or an array (t_i, ...) for each row."""


class Sequences:
    """The inputs of a net whose rows have lengths of their own.

    Rows are copied into memory made once for each input, as soon as one is fed with fewer steps.
    """

    @classmethod
    def of(cls, graph: Graph, capacity: int) -> Sequences | None:
        """Return those of a graph for batches of at most `capacity` rows; None if it has none."""
        return cls(graph, capacity) if any(map(with_lengths, graph)) else None

    def __init__(self, graph: Graph, capacity: int | None = None) -> None:
        """`capacity` is the largest number of rows; None makes new memory for each call."""
        inputs = {node.name: Feed(node, None) for node in graph if node.op.is_input}
        errors = FeedErrors("input", inputs, {}, capacity or 0)
        self._capacity = capacity
        self._groups = [
            _Group(node, members, errors, capacity)
            for node in graph
            if (members := [graph[name] for name in with_lengths(node) if name in graph])
        ]

    @property
    def nbytes(self) -> int:
        """The bytes of the memory that rows are copied into."""
        return sum(group.nbytes for group in self._groups)

    def whole(self, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the feeds with all steps and with lengths; raise FeedError if they do not fit.

        Nothing is written before all have been checked.  The next call overwrites the arrays.
        """
        checked = [group.checked(feeds, self._capacity) for group in self._groups]
        more: dict[str, Array] = {}
        for group, given in zip(self._groups, checked, strict=True):
            if given is not None:
                more.update(group.whole(given))
        return {**feeds, **more}

    def checked(self, feeds: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Rows]]:
        """Return feeds for the usual check, and the rows in whose place they are.

        These are not copied.  The feeds have the declared shapes; floats in them are zeros that
        take no memory.  Raise FeedError if rows do not fit.
        """
        shown, kept = dict(feeds), dict[str, Rows]()
        for group in self._groups:
            found = group.checked(feeds)
            if found is not None and not found.declared:
                kept.update(found.rows)
            if found is not None:
                shown |= group.shown(found)
        return shown, kept


@dataclass(frozen=True, slots=True)
class _Given:
    """The rows of inputs with the same lengths, and these."""

    rows: Mapping[str, Rows]
    lengths: Array
    declared: bool
    """True if all steps that are declared are there in one array, so that nothing is copied."""


class _Group:
    """Inputs with the same lengths."""

    def __init__(
        self, node: Node, inputs: Sequence[Node], errors: FeedErrors, capacity: int | None
    ) -> None:
        self.name, self._capacity, self._errors = node.name, capacity, errors
        self._inputs = {one.name: one.type for one in inputs}
        self._steps: int = inputs[0].type.shape[1]  # type: ignore[assignment]
        self._memory: dict[str, _Padded] = {}
        self._lengths = np.full(capacity or 0, self._steps, np.int32)
        self._all = self._lengths.copy()

    @property
    def nbytes(self) -> int:
        """The bytes of the group's memory."""
        return sum(one.array.nbytes for one in self._memory.values())

    # ------------------------------------------------------------------ checks

    def checked(self, feeds: Mapping[str, Any], most: int | None = None) -> _Given | None:
        """Return the rows and lengths, or None if no rows are fed; raise FeedError for misfits."""
        rows: dict[str, Rows] = {}
        for name in self._inputs:
            if feeds.get(name) is not None:
                rows[name] = self._rows(name, feeds[name])
        if not rows:
            return None
        self._check_counts(rows, most)
        lengths = self._found(rows, feeds.get(self.name))
        full = all(isinstance(x, np.ndarray) and x.shape[1] == self._steps for x in rows.values())
        least = int(lengths.min()) if len(lengths) else self._steps
        return _Given(rows, lengths, full and least == self._steps)

    def _rows(self, name: str, value: Any) -> Rows:
        """Return the rows of an input; raise FeedError if they do not fit."""
        type, rank = self._inputs[name], self._inputs[name].rank
        several = isinstance(value, (list, tuple)) or (
            isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 1
        )
        if not several:
            array = read(self._errors, name, value)
            fits = array.ndim == rank and array.shape[2:] == type.shape[2:]
            if not fits:
                raise self._errors.wrong_shape(name, array)
            if not 0 < array.shape[1] <= self._steps:
                raise self._errors.wrong_steps(name, array.shape[1])
            return check_kind(self._errors, name, type, array)
        return [self._row(name, i, row) for i, row in enumerate(value)]

    def _row(self, name: str, number: int, row: Any) -> Array:
        """Return a row (t, ...) of an input; raise FeedError if it does not fit."""
        type = self._inputs[name]
        array = read(self._errors, name, row)
        fits = array.ndim == type.rank - 1 and array.shape[1:] == type.shape[2:]
        if not fits or not 0 < len(array) <= self._steps:
            raise self._errors.wrong_row(name, number, array.shape)
        return check_kind(self._errors, name, type, array)

    def _check_counts(self, rows: Mapping[str, Rows], most: int | None) -> None:
        """Raise FeedError if inputs have different numbers of rows, or more than `most`."""
        (first, one), *others = rows.items()
        for name, other in others:
            if len(other) != len(one):
                raise self._errors.other_rows(first, len(one), name, len(other))
        if most is not None and len(one) > most:
            raise self._errors.too_many(len(one))

    def _found(self, rows: Mapping[str, Rows], given: Any) -> Array:
        """Return the lengths of all rows; raise FeedError if they are wrong or differ."""
        (first, one), *others = rows.items()
        known = _lengths(one)
        lengths = known if given is None else self._given(given, first, len(one))
        for name, other in rows.items() if given is not None else others:
            own = _lengths(other)
            exact = given is None or isinstance(other, list)
            wrong = own != lengths if exact else own < lengths
            if wrong.any():
                row = int(wrong.argmax())
                by = first if given is None else self.name
                raise self._errors.other_length(by, lengths[row], name, own[row], row)
        return lengths

    def _given(self, value: Any, first: str, rows: int) -> Array:
        """Return lengths that are fed; raise FeedError unless each row of `first` has one."""
        array = read(self._errors, self.name, value)
        if array.dtype.kind not in "iu":
            raise self._errors.wrong_dtype(self.name, array)
        if array.ndim != 1:
            raise self._errors.wrong_shape(self.name, array)
        if len(array) != rows:
            raise self._errors.other_rows(first, rows, self.name, len(array))
        wrong = (array < 1) | (array > self._steps)
        if wrong.any():
            row = int(wrong.argmax())
            raise self._errors.wrong_length(self.name, array[row], row, self._steps)
        return array

    # ------------------------------------------------------------------ arrays

    def whole(self, given: _Given) -> dict[str, Array]:
        """Return the arrays of all steps that are declared, and the lengths."""
        n = len(given.lengths)
        if self._capacity is None:
            made = {name: self._padded(name, n) for name in given.rows}
            lengths = given.lengths.astype(np.int32)
        elif given.declared:
            return {**given.rows, self.name: self._all[:n]}  # type: ignore[dict-item]
        else:
            for name in given.rows.keys() - self._memory.keys():
                self._memory[name] = self._padded(name, self._capacity)
            made, lengths = self._memory, self._lengths[:n]
            lengths[...] = given.lengths
        found = {name: made[name].filled(rows, lengths) for name, rows in given.rows.items()}
        return {**found, self.name: lengths}

    def _padded(self, name: str, rows: int) -> _Padded:
        type = self._inputs[name]
        return _Padded(np.zeros((rows, *type.shape[1:]), type.dtype))  # type: ignore[arg-type]

    def shown(self, given: _Given) -> dict[str, Array]:
        """Return lengths and arrays of all steps, whose floats are zeros that take no memory."""
        n, found = len(given.lengths), {self.name: given.lengths.astype(np.int32, copy=False)}
        for name, rows in ({} if given.declared else given.rows).items():
            type = self._inputs[name]
            if type.is_float:
                zero = np.zeros((), type.dtype)
                found[name] = np.broadcast_to(zero, (n, *type.shape[1:]))  # type: ignore[arg-type]
            else:
                found[name] = self._padded(name, n).filled(rows, given.lengths)
        return found


class _Padded:
    """The memory of an input's rows: behind their ends it holds zeros."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self._ends = np.zeros(len(array), np.intp)
        """The number of steps of each row that may hold other numbers than zeros."""

    def filled(self, rows: Rows, lengths: Array) -> Array:
        """Copy the rows in, each up to its length, and return them."""
        found = self.array[: len(lengths)]
        if isinstance(rows, np.ndarray) and rows.base is self.array:
            return rows
        for i, (row, steps) in enumerate(zip(rows, lengths.tolist(), strict=True)):
            np.copyto(found[i, :steps], row[:steps], casting="unsafe")
            if self._ends[i] > steps:
                found[i, steps : self._ends[i]] = 0
            self._ends[i] = steps
        return found


def _lengths(rows: Rows) -> Array:
    """Return the number of steps of each row."""
    if isinstance(rows, np.ndarray):
        return np.full(len(rows), rows.shape[1], np.int32)
    return np.fromiter(map(len, rows), np.int32, len(rows))


def steps_of_loops(graph: Graph) -> dict[str, int]:
    """Return the steps of the loops that feeds of lengths belong to."""
    found: dict[str, int] = {}
    for node in graph:
        if isinstance(node.op, Scan) and (name := node.op.step.lengths):
            operand = node.inputs[node.op.step.inputs.index(name)]
            found[through_moves(graph, operand)] = node.op.steps
    return {name: steps for name, steps in found.items() if graph[name].op.is_input}
