"""Data for a model: arrays of a file matched with the inputs of a net, and their split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from graphc.base.errors import DataError
from graphc.cli.columns import Feeds, training_feeds
from graphc.data import load_data, stratified_split
from graphc.files.model_file import Columns
from graphc.ir.init import generator
from graphc.ir.plan import Plan


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
