"""Data for a model: the arrays of a file, or the columns of a table, as inputs of a net."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError, first_of
from graphc.compiler.plan import Plan
from graphc.data import load_data, stratified_split
from graphc.data.table import Header, Read, Table, no_number, read_table
from graphc.ir.init import generator
from graphc.ir.tensor_type import N, TensorType, shape_at, shape_text
from graphc.runtime.columns import Columns

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Roles:
    """The input that takes the features, and the one that takes the label, if there is one."""

    features: str
    label: str | None


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


def training_feeds(
    plan: Plan, source: str, label: str | None, known: Columns | None = None
) -> tuple[Feeds, Columns]:
    """Return features and label of every row in the types of their inputs, and the columns' names.

    `known` are those of a model that is trained on: columns are then found by their names, and
    words keep their classes.  Raise DataError if there are not as many columns as the net takes, if
    one is missing, or if a cell is not a number that its input takes.
    """
    roles = _roles(plan, source)
    table = read_table(source, lambda header: _training_read(plan, header, roles, label, known))
    if not len(table.values):
        raise DataError(
            f"{table.path} has a header but no rows", hint="add a line of numbers per sample"
        )
    read = _training_read(plan, table, roles, label, known)
    found = {roles.features: _taken(plan, table, roles.features, list(read.numbers))}
    classes = known.classes if known is not None else ()
    if roles.label is not None and read.words is not None:
        array, classes = _labels(plan, table, roles.label, read.words, classes)
        found[roles.label] = array
    try:
        names = tuple(table.header[column] for column in read.numbers)
        label = "" if read.words is None else table.header[read.words]
        return found, Columns(names, label, classes)
    except ValueError as error:
        raise DataError(
            f"{source} has column names that cannot be kept: {error}",
            hint="rename them in its first line",
        ) from None


def predicting_read(
    plan: Plan, header: Header, label: str | None, known: Columns | None = None
) -> Read:
    """Return the columns of the features only.

    They are found by the names that the model was trained on, if it has them; otherwise they are
    all but the label, in their order.  Raise DataError if one is missing, or if there are not as
    many as the net takes.
    """
    features = _features(plan, header.path)
    at = None if label is None else header.column(label)
    if known is not None and known.features:
        return Read(_by_name(plan, header, features, known))
    columns = list(range(len(header.header)))
    if label is None and len(columns) == _width(plan, features) + 1:
        at = header.label
    return Read(_all_but(plan, header, features, columns, at))


def predicting_feeds(plan: Plan, table: Table, read: Read) -> Feeds:
    """Return the features of every row; raise DataError if a cell is not a valid number."""
    features = _features(plan, table.path)
    return {features: _taken(plan, table, features, list(read.numbers))}


def _training_read(
    plan: Plan, header: Header, roles: Roles, label: str | None, known: Columns | None
) -> Read:
    """Return the columns of the features, and that of the label if the net takes one."""
    if roles.label is None:
        return predicting_read(plan, header, label, known)
    if known is None or not known.features:
        at = header.column(label)
        return Read(_all_but(plan, header, roles.features, range(len(header.header)), at), at)
    if known.label and label is None and known.label not in header.header:
        raise _missing(header, [known.label])
    at = header.column(known.label if label is None and known.label else label)
    columns = _by_name(plan, header, roles.features, known)
    if at in columns:
        raise DataError(
            f"the label {header.header[at]!r} is one of the columns that the model reads",
            hint="--label COLUMN names another",
        )
    return Read(columns, at)


def _by_name(plan: Plan, header: Header, name: str, known: Columns) -> list[int]:
    """Return the positions of the known columns; ignore columns of other names.

    An ignored column cannot replace a known one, since all known ones must be there by name.
    """
    width = _width(plan, name)
    if len(known.features) != width:
        raise DataError(
            f"the model names {_counted(len(known.features))}, its input {name!r} takes {width}",
            hint="train it again, or give a .npz file",
        )
    missing = [column for column in known.features if column not in header.header]
    if missing:
        raise _missing(header, missing)
    columns = [header.header.index(column) for column in known.features]
    header.check_distinct(columns)
    return columns


def _missing(header: Header, missing: Sequence[str]) -> MissingColumns:
    """Return the error for columns that the model was trained on and the table does not have."""
    return MissingColumns(
        f"{header.path} has no column{'' if len(missing) == 1 else 's'} "
        f"{first_of(map(repr, missing))}, which the model was trained on",
        hint=f"its columns are {first_of(header.header, 20)}; they are found by name, in any order",
    )


def _counted(number: int) -> str:
    return f"{number} column{'' if number == 1 else 's'}"


def _labels(
    plan: Plan, table: Table, name: str, column: int, classes: tuple[str, ...]
) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Return the label of each row, and the words for classes in alphabetical order, if any.

    Labels are words if none of them is a number and the net scores as many classes.
    """
    odd = np.flatnonzero(np.isnan(table.values[:, column]))
    bound = _bound(plan, name)
    if not classes and (len(odd) < len(table.lines) or bound is None):
        if len(odd):
            row = int(odd[0])
            raise no_number(table, int(table.lines[row]), column, table.words[row])
        return _taken(plan, table, name, [column]), ()
    found = classes or tuple(sorted(set(table.words)))
    if not classes and len(found) != bound:
        raise DataError(
            f"{table.path} has {len(found)} different labels in column {table.header[column]!r}, "
            f"the net has {bound} classes",
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
    type = _type(plan, name)
    array = np.array([codes[word] for word in table.words], type.dtype)
    return array.reshape(shape_at(type.shape, len(array))), found


def _features(plan: Plan, source: str) -> str:
    """Return the one input that predictions depend on, or that takes the features."""
    found = predicting_inputs(plan)
    return found[0] if len(found) == 1 else _roles(plan, source).features


def _roles(plan: Plan, source: str) -> Roles:
    names = plan.input_names
    if set(names) == {"x", "y"}:
        return Roles("x", "y")
    features = predicting_inputs(plan)
    if len(features) == len(names) == 2:
        features = names[:1]
    labels = [name for name in names if name not in features]
    if len(features) != 1 or len(labels) > 1:
        raise DataError(
            f"{source} has features and a label, the net reads {', '.join(names)}",
            hint=f"give a .npz file with the arrays {', '.join(names)}",
        )
    return Roles(features[0], labels[0] if labels else None)


def _type(plan: Plan, name: str) -> TensorType:
    return plan.declared[name].type


def _bound(plan: Plan, name: str) -> int | None:
    """Return the number of classes of an input's labels, or None if it has no bound."""
    program = plan.programs["grad" if "grad" in plan.programs else "infer"]
    return program.index_bounds.get(name)


def _width(plan: Plan, name: str) -> int:
    """Return how many numbers of a row the input takes; raise DataError if rows cannot fill it."""
    type = _type(plan, name)
    if not type.shape or type.shape[0] != N:
        raise DataError(
            f"input {name!r} takes {shape_text(type.shape)}, which rows of a table cannot fill",
            hint="give a .npz file",
        )
    return type.size(1)


def _all_but(
    plan: Plan, header: Header, name: str, columns: Sequence[int], left_out: int | None
) -> list[int]:
    """Return the columns but one; raise DataError if they are not as many as the input takes."""
    header.check_distinct(columns)
    kept = [column for column in columns if column != left_out]
    width = _width(plan, name)
    if len(kept) != width:
        raise _wrong_columns(header, name, width, kept, left_out)
    return kept


def _taken(plan: Plan, table: Table, name: str, columns: list[int]) -> NDArray[Any]:
    """Return the columns as the array of an input."""
    type, values = _type(plan, name), table.values[:, columns]
    if len(columns) != _width(plan, name):
        raise _wrong_columns(table, name, _width(plan, name), columns, None)
    if not type.is_float:
        _check_whole(plan, table, name, columns, values)
    return values.astype(type.dtype).reshape(shape_at(type.shape, len(values)))


def _wrong_columns(
    header: Header, name: str, width: int, columns: list[int], left_out: int | None
) -> DataError:
    names = [header.header[column] for column in columns]
    beside = "" if left_out is None else f" beside the label {header.header[left_out]!r}"
    hint = f"{'it is' if len(names) == 1 else 'they are'} {first_of(names)}; " if names else ""
    return DataError(
        f"{header.path} has {_counted(len(columns))}{beside}, input {name!r} takes {width}",
        hint=f"{hint}--label COLUMN says which is the label",
    )


def _check_whole(
    plan: Plan, table: Table, name: str, columns: list[int], values: NDArray[np.float64]
) -> None:
    """Raise DataError for the first number that is not an integer, or not one of the classes."""
    bound = _bound(plan, name)
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


def feeds_of(
    plan: Plan, source: str, label: str | None = None, known: Columns | None = None
) -> tuple[Feeds, Columns | None]:
    """Return the arrays of a data set or file for each input, matched by name or read from a table.

    Also return the names of the columns, which are `known` if the source has no columns.  `label`
    names the column of a `.csv` file that becomes y.  Raise DataError if an input has no array, or
    if arrays have different numbers of rows.
    """
    if is_table(source):
        return training_feeds(plan, source, label, known)
    arrays = load_data(source, label)
    feeds = named(plan.input_names, arrays, source)
    rows = {name: len(array) for name, array in feeds.items() if array.ndim}
    if len(set(rows.values())) > 1:
        text = ", ".join(f"{name!r} has {count}" for name, count in rows.items())
        raise DataError(f"the arrays of {source} differ in their number of rows: {text}")
    return feeds, known


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
    if len(labels) == 1:
        train, held = stratified_split(labels[0], part, seed)
    else:
        order = generator(seed, "validation").permutation(len(next(iter(feeds.values()))))
        count = round(part * len(order))
        train, held = np.sort(order[count:]), np.sort(order[:count])
    if not len(train) or not len(held):
        raise DataError(
            f"a fraction of {part:g} of {len(train) + len(held)} rows leaves nothing on one side",
            hint="give more rows, another --validation, or --validation 0",
        )
    return (
        {name: array[train] for name, array in feeds.items()},
        {name: array[held] for name, array in feeds.items()},
    )
