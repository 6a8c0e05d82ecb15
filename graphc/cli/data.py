"""Data for a model: the arrays of a file, or the columns of a table, as inputs of a net."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError, counted, first_of
from graphc.compiler.plan import Plan
from graphc.data import load_data, two_parts
from graphc.data.table import PLAIN, Form, Header, Read, Table, no_number, read_table
from graphc.ir.tensor_type import N, shape_at, shape_text
from graphc.runtime.columns import Columns

Feeds = dict[str, NDArray[Any]]


class MissingColumns(DataError):
    """An error for a table without the columns that a model was trained on: a usage error."""


def predicting_inputs(plan: Plan) -> tuple[str, ...]:
    """Return the inputs that outputs with rows depend on, or all if there are no such outputs."""
    graph = plan.declared
    outputs = [
        value
        for name, value in graph.outputs.items()
        if name not in plan.losses and graph[value].type.batched
    ]
    needed = graph.upstream(outputs)
    found = tuple(name for name in plan.input_names if name in needed)
    return found or plan.input_names


def index_bounds(plan: Plan) -> Mapping[str, int]:
    """Return the number of classes of each input that holds labels or other indices."""
    bounds = plan.programs["grad" if "grad" in plan.programs else "infer"].index_bounds
    return {name: bound for name, bound in bounds.items() if isinstance(bound, int)}


@dataclass(frozen=True)
class TableInputs:
    """The inputs of a plan that the columns of a table feed: features, and a label if there is one.

    `label` is the column that the user names.  `known` are the columns that the model was trained
    on: they are then found by their names, and words keep their classes.
    """

    plan: Plan
    source: str
    label: str | None = None
    known: Columns | None = None
    form: Form = PLAIN
    fill: float | None = None

    @classmethod
    def of(cls, plan: Plan, args: argparse.Namespace, known: Columns | None) -> TableInputs:
        """Return the inputs that the options name."""
        return cls(plan, args.data, args.label, known, form_of(args), args.fill)

    def training_feeds(self) -> tuple[Feeds, Columns]:
        """Return features and label of every row in the types of their inputs, and column names.

        Raise DataError if there are not as many columns as the net takes, if one is missing, or if
        a cell is not a number that its input takes.
        """
        table = read_table(self.source, self.training_read, self.form)
        if not len(table.values):
            raise DataError(
                f"{table.path} has a header but no rows", hint="add a line of numbers per sample"
            )
        read = self.training_read(table)
        features, label = self._roles
        found = {features: self._taken(table, features, list(read.numbers))}
        classes = self.known.classes if self.known is not None else ()
        if label is not None and read.words is not None:
            found[label], classes = self._labels(table, label, read.words, classes)
        try:
            names = tuple(table.header[column] for column in read.numbers)
            columns = Columns(
                names, "" if read.words is None else table.header[read.words], classes
            )
            known = self.known
            if known is None:
                return found, columns
            return found, replace(columns, words=known.words, gaps=known.gaps)
        except ValueError as error:
            raise DataError(
                f"{self.source} has column names that cannot be kept: {error}",
                hint="rename them in its first line",
            ) from None

    def training_read(self, header: Header) -> Read:
        """Return the columns of the features, and that of the label if the net takes one."""
        features, label = self._roles
        known = self.known
        if label is None:
            return self.predicting_read(header)
        if known is None or not known.features:
            at = header.column(self.label)
            return self._read(self._all_but(header, features, at), at)
        if known.label and self.label is None and known.label not in header.header:
            raise _missing(header, [known.label])
        at = header.column((known.label or None) if self.label is None else self.label)
        columns = self._by_name(header, features, known)
        if at in columns:
            raise DataError(
                f"the label {header.header[at]!r} is one of the columns that the model reads",
                hint="--label COLUMN names another",
            )
        return self._read(columns, at)

    def _read(self, columns: list[int], label: int | None, **more: bool) -> Read:
        """Return the columns of features and label, with what the model knows of gaps and words."""
        words: tuple[tuple[str, ...], ...] = ()
        fill = self.fill
        if self.known is not None:
            words = self.known.words
            fill = nan if fill is None and self.known.gaps else fill
        pairs = zip(columns, words, strict=False)
        codes = {at: {word: code for code, word in enumerate(own)} for at, own in pairs if own}
        return Read(columns, label, codes, fill, **more)

    def predicting_read(self, header: Header) -> Read:
        """Return the columns of the features, and that of the label if there is one to compare.

        They are found by the names that the model was trained on, if it has them; otherwise they
        are all but the label, in their order.  Raise DataError if one is missing, or if there are
        not as many as the net takes.
        """
        features = self._predicting
        at, known = None if self.label is None else header.column(self.label), self.known
        if known is not None and known.features:
            if at is None and known.label in header.columns:
                at = header.columns[known.label][0]
            return self._read(self._by_name(header, features, known), at, optional=True)
        if self.label is None and len(header.header) == self._width(features) + 1:
            at = header.label
        return self._read(self._all_but(header, features, at), at, optional=True)

    def predicting_feeds(self, table: Table, read: Read) -> Feeds:
        """Return the features of every row; raise DataError if a cell is not a valid number."""
        return {self._predicting: self._taken(table, self._predicting, list(read.numbers))}

    @cached_property
    def _predicting(self) -> str:
        """The one input that predictions depend on, or that takes the features."""
        found = predicting_inputs(self.plan)
        return found[0] if len(found) == 1 else self._roles[0]

    @cached_property
    def _roles(self) -> tuple[str, str | None]:
        """The input that takes the features, and the one that takes the label, if there is one."""
        names = self.plan.input_names
        if set(names) == {"x", "y"}:
            return "x", "y"
        features = predicting_inputs(self.plan)
        if len(features) == len(names) == 2:
            features = names[:1]
        labels = [name for name in names if name not in features]
        if len(features) != 1 or len(labels) > 1:
            raise DataError(
                f"{self.source} has features and a label, the net reads {', '.join(names)}",
                hint=f"give a .npz file with the arrays {', '.join(names)}",
            )
        return features[0], labels[0] if labels else None

    def _by_name(self, header: Header, name: str, known: Columns) -> list[int]:
        """Return the positions of the known columns; ignore columns of other names.

        An ignored column cannot replace a known one, since all known ones must be there by name.
        """
        width = self._width(name)
        if len(known.features) != width:
            raise DataError(
                f"the model names {counted(len(known.features), 'column')}, its input {name!r} "
                f"takes {width}",
                hint="train it again, or give a .npz file",
            )
        missing = [column for column in known.features if column not in header.columns]
        if missing:
            raise _missing(header, missing)
        columns = [header.columns[column][0] for column in known.features]
        header.check_distinct(columns)
        return columns

    def _all_but(self, header: Header, name: str, left_out: int | None) -> list[int]:
        """Return all columns but one; raise DataError unless the input takes so many."""
        columns = range(len(header.header))
        header.check_distinct(columns)
        kept = [column for column in columns if column != left_out]
        self._check_count(header, name, kept, left_out)
        return kept

    def _check_count(
        self, header: Header, name: str, columns: Sequence[int], left_out: int | None = None
    ) -> None:
        """Raise DataError unless the input takes so many columns."""
        width = self._width(name)
        if len(columns) == width:
            return
        names = [header.header[column] for column in columns]
        beside = "" if left_out is None else f" beside the label {header.header[left_out]!r}"
        hint = f"{'it is' if len(names) == 1 else 'they are'} {first_of(names)}; " if names else ""
        raise DataError(
            f"{header.path} has {counted(len(names), 'column')}{beside}, input {name!r} takes "
            f"{width}",
            hint=f"{hint}--label COLUMN says which is the label",
        )

    def _width(self, name: str) -> int:
        """Return how many numbers of a row the input takes; raise DataError if rows do not fit."""
        type = self.plan.declared[name].type
        if not type.shape or type.shape[0] != N or type.pairs_rows:
            raise DataError(
                f"input {name!r} takes {shape_text(type.shape)}, which rows of a table cannot fill",
                hint="give a .npz file",
            )
        return type.size(1)

    def _taken(self, table: Table, name: str, columns: list[int]) -> NDArray[Any]:
        """Return the columns as the array of an input."""
        type, values = self.plan.declared[name].type, table.values[:, columns]
        self._check_count(table, name, columns)
        if not type.is_float:
            _check_whole(table, name, columns, index_bounds(self.plan).get(name))
        return values.astype(type.dtype).reshape(shape_at(type.shape, len(values)))

    def _labels(
        self, table: Table, name: str, column: int, classes: tuple[str, ...]
    ) -> tuple[NDArray[Any], tuple[str, ...]]:
        """Return the label of each row, and the words for classes in alphabetical order, if any.

        Labels are words if none of them is a number and the net scores as many classes.
        """
        odd = np.flatnonzero(np.isnan(table.values[:, column]))
        bound = index_bounds(self.plan).get(name)
        if not classes and (len(odd) < len(table.lines) or bound is None):
            if len(odd):
                row = int(odd[0])
                raise no_number(table, int(table.lines[row]), column, table.words[row])
            return self._taken(table, name, [column]), ()
        found = classes or tuple(sorted(set(table.words)))
        if not classes and len(found) != bound:
            raise DataError(
                f"{table.path} has {len(found)} different labels in column "
                f"{table.header[column]!r}, the net has {bound} classes",
                hint=f"the labels are {first_of(map(repr, found))}",
            )
        codes = {word: code for code, word in enumerate(found)}
        for row, word in enumerate(table.words):
            if word not in codes:
                raise table.wrong(
                    row,
                    column,
                    f"the model does not know the class {word[:40]!r}",
                    f"it was trained on {', '.join(map(repr, found[:8]))}",
                )
        type = self.plan.declared[name].type
        array = np.array([codes[word] for word in table.words], type.dtype)
        return array.reshape(shape_at(type.shape, len(array))), found


def _missing(header: Header, missing: Sequence[str]) -> MissingColumns:
    """Return the error for columns that the model was trained on and the table does not have."""
    return MissingColumns(
        f"{header.path} has no column{'' if len(missing) == 1 else 's'} "
        f"{first_of(map(repr, missing))}, which the model was trained on",
        hint=f"its columns are {first_of(header.header, 20)}; they are found by name, in any order",
    )


def _check_whole(table: Table, name: str, columns: list[int], bound: int | None) -> None:
    """Raise DataError for the first number that is not an integer, or not one of the classes."""
    values = table.values[:, columns]
    odd = np.argwhere(np.rint(values) != values)
    if len(odd):
        row, column = odd[0]
        raise table.wrong(
            row,
            columns[column],
            f"{values[row, column]:g} is not a whole number, but input {name!r} takes whole "
            "numbers",
            "classes are whole numbers from 0",
        )
    for column in columns:
        table.check_exact(column)
    if bound is None:
        return
    odd = np.argwhere((values < 0) | (values >= bound))
    if len(odd):
        row, column = odd[0]
        counts_from_1 = values.min() == 1 and values.max() == bound
        raise table.wrong(
            row,
            columns[column],
            f"there is no class {values[row, column]:.0f}, the net has {bound}",
            "the file counts from 1: subtract 1"
            if counts_from_1
            else f"classes go from 0 to {bound - 1}",
        )


def form_of(args: argparse.Namespace) -> Form:
    """Return how the options say that a `.csv` file is written."""
    drop = tuple(name for given in args.drop for name in given.split(","))
    return Form(args.separator, args.encoding, drop)


def feeds_of(
    plan: Plan, args: argparse.Namespace, known: Columns | None = None
) -> tuple[Feeds, Columns | None]:
    """Return the arrays of --data for each input, matched by name or read from a table.

    Also return the names of the columns, which are `known` if the data has no columns.  Raise
    DataError if an input has no array, or if arrays have different numbers of rows.
    """
    source = args.data
    if is_table(source):
        return TableInputs.of(plan, args, known).training_feeds()
    feeds = named(plan.input_names, arrays_of(args), source)
    for name, array in feeds.items():
        if array.ndim == 1 and plan.declared[name].type.shape == (N, 1):
            feeds[name] = array[:, None]
    rows = {name: len(array) for name, array in feeds.items() if array.ndim}
    if len(set(rows.values())) > 1:
        text = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise DataError(f"the arrays of {source} differ in their number of rows: {text}")
    return feeds, known


def first_rows(
    plan: Plan, args: argparse.Namespace, rows: int, known: Columns | None = None
) -> Feeds | None:
    """Return the first rows of the data that --data names, or None without that option."""
    if not args.data:
        return None
    feeds, _ = feeds_of(plan, args, known)
    return {name: array[:rows] for name, array in feeds.items()}


def arrays_of(args: argparse.Namespace) -> Feeds:
    """Return the arrays of data other than a table; raise DataError for options of tables."""
    if form_of(args) != PLAIN or args.fill is not None:
        raise DataError(
            f"{args.data} is not a .csv file",
            hint="--separator, --encoding, --drop and --fill say how one is read",
        )
    return load_data(args.data, args.label)


def is_table(source: str) -> bool:
    """Return whether the data is a table of columns rather than arrays by name."""
    return Path(source).suffix.lower() == ".csv"


def named(names: Sequence[str], arrays: Feeds, source: str) -> Feeds:
    """Return the arrays of these inputs; raise DataError for the first that is missing."""
    for name in names:
        if name not in arrays:
            raise DataError(
                f"{source} has no array for the input {name!r}",
                hint=f"it has {', '.join(arrays)}; the net reads {', '.join(names)}",
            )
    return {name: arrays[name] for name in names}


def split(feeds: Feeds, part: float, seed: int) -> tuple[Feeds, Feeds]:
    """Return training and validation rows, stratified by class if there is one vector of labels."""
    labels = [array for array in feeds.values() if array.ndim == 1 and array.dtype.kind in "iu"]
    rows = len(next(iter(feeds.values())))
    train, validation = two_parts(rows, part, seed, labels[0] if len(labels) == 1 else None)
    if not len(train) or not len(validation):
        raise DataError(
            f"a fraction of {part:g} of {len(train) + len(validation)} rows leaves nothing on one "
            "side",
            hint="give more rows, another --validation, or --validation 0",
        )
    return (
        {name: array[train] for name, array in feeds.items()},
        {name: array[validation] for name, array in feeds.items()},
    )
