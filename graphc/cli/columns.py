"""The columns of a table as the inputs of a net; what does not fit is told with line and column."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.data.table import Table
from graphc.errors import DataError
from graphc.plan import Plan
from graphc.tensor_type import N, TensorType, shape_at, shape_text

Feeds = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Roles:
    """The input that takes the features, and the one that takes the label, if there is one."""

    features: str
    label: str | None


def predicting_inputs(plan: Plan) -> tuple[str, ...]:
    """The inputs that the outputs with rows depend on; all where there are no such outputs."""
    graph = plan.declared
    outputs = [
        value
        for name, value in graph.outputs.items()
        if name not in plan.losses and graph[value].type.batched
    ]
    needed = graph.upstream(outputs)
    found = tuple(name for name in plan.input_names if name in needed)
    return found or plan.input_names


def training_feeds(plan: Plan, table: Table, label: str | None) -> Feeds:
    """Features and label of every row, in the types of their inputs.

    DataError when the columns are not as many as the net takes, or a cell is no such number.
    """
    roles = _roles(plan, table)
    if not len(table.values):
        raise DataError(
            f"{table.path} has a header but no rows", hint="add a line of numbers per sample"
        )
    if roles.label is None:
        return predicting_feeds(plan, table, label)
    at = table.column(label)
    columns = [column for column in range(len(table.header)) if column != at]
    return {
        roles.features: _taken(plan, table, roles.features, columns, at),
        roles.label: _taken(plan, table, roles.label, [at], None),
    }


def predicting_feeds(plan: Plan, table: Table, label: str | None) -> Feeds:
    """The features of every row; a label column may be there, and is left out.

    DataError when the columns are not as many as the net takes, or a cell is no such number.
    """
    features = _roles(plan, table).features
    columns = list(range(len(table.header)))
    at = None
    if label is not None:
        at = table.column(label)
    elif len(columns) == _width(plan, features) + 1:
        at = table.label
    if at is not None:
        columns.remove(at)
    return {features: _taken(plan, table, features, columns, at)}


def _roles(plan: Plan, table: Table) -> Roles:
    names = plan.input_names
    if set(names) == {"x", "y"}:
        return Roles("x", "y")
    features = predicting_inputs(plan)
    if len(features) == len(names) == 2:
        features = names[:1]
    labels = [name for name in names if name not in features]
    if len(features) != 1 or len(labels) > 1:
        raise DataError(
            f"{table.path} has features and a label, the net reads {', '.join(names)}",
            hint=f"give a .npz file with the arrays {', '.join(names)}",
        )
    return Roles(features[0], labels[0] if labels else None)


def _type(plan: Plan, name: str) -> TensorType:
    return plan.declared[name].type


def _width(plan: Plan, name: str) -> int:
    """How many numbers of a row the input takes."""
    type = _type(plan, name)
    if not type.shape or type.shape[0] != N:
        raise DataError(
            f"input {name!r} takes {shape_text(type.shape)}, which rows of a table cannot fill",
            hint="give a .npz file",
        )
    return prod(shape_at(type.shape, 1))


def _taken(
    plan: Plan, table: Table, name: str, columns: list[int], left_out: int | None
) -> NDArray[Any]:
    """The columns as the array of an input."""
    width, type = _width(plan, name), _type(plan, name)
    if len(columns) != width:
        raise _wrong_columns(table, name, width, columns, left_out)
    values = table.values[:, columns]
    if not type.is_float:
        _check_whole(plan, table, name, columns, values)
    return values.astype(type.dtype).reshape(shape_at(type.shape, len(values)))


def _wrong_columns(
    table: Table, name: str, width: int, columns: list[int], left_out: int | None
) -> DataError:
    names = [table.header[column] for column in columns]
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    count = f"{len(columns)} column{'' if len(columns) == 1 else 's'}"
    beside = "" if left_out is None else f" beside the label {table.header[left_out]!r}"
    told = [f"{'it is' if len(names) == 1 else 'they are'} {shown}"] if names else []
    told.append("--label COLUMN says which is the label")
    return DataError(
        f"{table.path} has {count}{beside}, input {name!r} takes {width}", hint="; ".join(told)
    )


def _check_whole(
    plan: Plan, table: Table, name: str, columns: list[int], values: NDArray[np.float64]
) -> None:
    """DataError for the first number that is not whole, or is none of the classes."""
    program = plan.programs["grad" if "grad" in plan.programs else "infer"]
    bound = program.index_bounds.get(name)
    odd = np.argwhere((np.rint(values) != values) | (np.abs(values) > 2.0**53))
    if len(odd):
        row, column = odd[0]
        raise table.wrong(
            row,
            columns[column],
            f"{values[row, column]:g} is no whole number, which input {name!r} takes",
            "classes are whole numbers from 0",
        )
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
