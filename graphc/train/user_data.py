"""The sources of batches for a user's data, and the weights of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.arguments import whole
from graphc.base.errors import FeedError, GraphError
from graphc.compiler.loss_share import divisors
from graphc.runtime.executor import Executor
from graphc.runtime.rows import (
    Piece,
    WeightInput,
    by_position,
    check_one_batch,
    lengths_of,
    scalars,
    weight_input,
)
from graphc.train.part_files import PartFileSource
from graphc.train.source import (
    ArraySource,
    Batch,
    FunctionSource,
    IteratorSource,
    Source,
    check_choosable,
    checked_arrays,
)


def training_source(
    ex: Executor,
    data: Any,
    batch: int,
    seed: int | None,
    sample_weight: Any = None,
    class_weight: Any = None,
    by_length: bool = False,
) -> Source:
    """Return a source of batches to train on; raise FeedError for data that do not fit.

    With `seed` None rows stay in their order, or are sorted `by_length`.
    """
    if sample_weight is not None:
        data = _with_weights(ex, data, sample_weight)
    source = _source(ex, data, batch, seed, train=True)
    if by_length:
        _sort(ex, source)
    return _weighted(ex, source, class_weight)


def _sort(ex: Executor, source: Source) -> None:
    """Let batches have rows of like length; raise GraphError if rows do not have lengths."""
    if not isinstance(source, ArraySource):
        raise GraphError(
            "fit: by_length is given, but the data come in batches already, or in part files",
            hint="give arrays, or lists of the arrays of rows",
        )
    if not any(ex.plan.declared[name].op.role.kind == "lengths" for name in ex.plan.input_names):
        raise GraphError(
            "fit: by_length is given, but no input of the net has lengths",
            hint="n = gc.lengths(x), then gc.scan(step, x, h0, lengths=n)",
        )
    source.lengths = lengths_of(ex.plan, source.named)


def validation_source(ex: Executor, data: Any) -> Source:
    """Return a source of batches to evaluate on, in order; raise FeedError if a loss needs more."""
    if isinstance(data, Iterator):
        raise FeedError(
            "validation: a generator is used up after one epoch",
            hint="give arrays, a folder of part files, or a function of the epoch's number",
        )
    if isinstance(data, (int, float)):
        raise FeedError(
            f"validation is {data!r}, not data",
            hint="graphc.data.stratified_split(labels, 0.2, seed=0) cuts rows in two; then "
            "validation=(x[held], y[held])",
        )
    unsorted = _source(ex, data, ex.plan.batch, None, train=False)
    if isinstance(unsorted, ArraySource):
        unsorted.lengths = lengths_of(ex.plan, unsorted.named)
    source = _weighted(ex, unsorted)
    check_losses_fed(ex, source.names)
    return source


def check_losses_fed(ex: Executor, names: frozenset[str] | None) -> None:
    """Raise FeedError if an input that a loss needs is not fed; do nothing for unknown names."""
    if names is None:
        return
    program = ex.plan.programs["infer"]
    needed = program.graph.upstream([program.graph.outputs[name] for name in ex.plan.losses])
    missing = [name for name in program.feeds if name in needed and name not in names]
    if missing:
        raise FeedError(
            f"validation: input {missing[0]!r} is missing, which a loss needs",
            hint="validation=(x, y) holds the same inputs as the training data",
        )


def part_file_batches(ex: Executor, folder: str | Path) -> Iterator[Piece]:
    """Return inference on a folder's part files; raise FeedError or DataError for a misfit."""
    files = PartFileSource(ex, _folder(folder), ex.plan.batch, None, False)
    check_one_batch(ex, "evaluate", files.rows, files.stored, scalars(ex.plan))
    source = _weighted(ex, files)
    batches = ((n, dict(ex.padded(feeds))) for n, feeds in source.batches(0))
    return ((n, feeds, ex.forward(feeds, copy=False)) for n, feeds in batches)


def streamed(data: Any) -> bool:
    """Return whether the data are not arrays."""
    return callable(data) or isinstance(data, (Iterator, str, Path))


def _source(ex: Executor, data: Any, batch: int, seed: int | None, train: bool) -> Source:
    if isinstance(data, (str, Path)):
        return PartFileSource(ex, _folder(data), batch, seed, train)
    if isinstance(data, Iterator):
        return IteratorSource(ex, data, train)
    if callable(data):
        return FunctionSource(ex, data, train)
    arrays, rows = checked_arrays(ex, data, train=train)
    check_choosable(ex, arrays, shuffled=seed is not None)
    types = {name: ex.plan.declared[name].type for name in arrays}
    source = ArraySource(arrays, types, rows, batch, seed)
    if train and ex.sharded is not None:
        source.rank_range = ex.sharded.rank_rows
        weighted = divisors(ex.plan.declared)
        source.counting = {name for divisor in weighted for name in divisor.inputs}
    return source


def _folder(path: str | Path) -> Path:
    if not os.path.isdir(path):
        raise FeedError(
            f"data is {str(path)!r}, which is not a folder of part files",
            hint="a file: np.load(path, mmap_mode='r') gives an array; gc.fit(ex, (x, y))",
        )
    return Path(path)


def _with_weights(ex: Executor, data: Any, weights: Any) -> dict[str, Any]:
    name = _needed_input(ex, "sample_weight").name
    if streamed(data):
        raise GraphError(
            "fit: sample_weight is for arrays only",
            hint=f"part files and generators give the weights themselves, as {name!r}",
        )
    feeds = by_position(ex.plan.data_names, (data,), {})
    if name in feeds:
        raise GraphError(
            f"fit: sample_weight is given, and so is {name!r}, which takes it",
            hint="give one of them",
        )
    return {**feeds, name: weights}


def _weighted(ex: Executor, source: Source, class_weight: Any = None) -> Source:
    """Return the source, with weights of rows added if a loss takes them and they are needed.

    They are needed if the source does not have them, or if classes have weights.  A row's weight is
    what the source feeds, or 1, times that of its class.
    """
    factors = None if class_weight is None else _class_factors(ex, class_weight)
    takes = weight_input(ex.plan)
    if takes is None:
        return source
    name = takes.name
    # A source of unknown names, such as a function, fills the weights of its batches itself.
    if factors is None and (source.names is None or name in source.names):
        return source
    ones = np.ascontiguousarray(takes.ones(ex.plan.rows))

    def weigh(batch: Batch) -> Batch:
        n, feeds = batch
        weight = feeds.get(name, ones if n == ex.plan.rows else takes.ones(n))
        return n, {**feeds, name: weight if factors is None else weight * factors(feeds)}

    source.weigh = weigh
    source.names = None if source.names is None else source.names | {name}
    return source


def _class_factors(ex: Executor, given: Any) -> Callable[[Mapping[str, Any]], NDArray[Any]]:
    """Return the function from feeds to the weight of each row's class, 1 if none is given.

    Raise GraphError for weights that make no sense.
    """
    labels = _needed_input(ex, "class_weight").labels
    if not isinstance(given, Mapping):
        raise GraphError(
            f"fit: class_weight is {type(given).__name__}, not a mapping",
            hint="class_weight={0: 1.0, 1: 5.0}",
        )
    node = ex.plan.declared[labels]
    if node.type.is_float or not node.op.is_input:
        raise GraphError(
            f"fit: class_weight is given, but {labels!r} is not an input of class numbers",
            hint="sample_weight= gives each row a weight of its own",
        )
    classes = ex.plan.programs["infer"].index_bounds.get(labels, 0)
    if not isinstance(classes, int):
        raise GraphError(
            f"fit: class_weight is given, but {labels!r} numbers the rows of a batch",
            hint="sample_weight= gives each row a weight of its own",
        )
    table = _table(classes, given)
    # A label out of range is left to the check of the step.
    return lambda feeds: np.take(table, np.asarray(feeds[labels]), mode="clip")


def _table(classes: int, given: Mapping[Any, Any]) -> NDArray[Any]:
    """Return the weight of each class; raise GraphError for one that makes no sense."""
    table = np.ones(classes)
    for label, weight in given.items():
        number = whole(label, 0)
        if number is None or number >= classes:
            raise GraphError(
                f"fit: class_weight names the class {label!r}, there are 0 to {classes - 1}"
            )
        if not (isinstance(weight, (int, float, np.number)) and 0 <= weight < np.inf):
            raise GraphError(
                f"fit: the weight of class {label} is {weight!r}, it must be a number from 0 up"
            )
        table[number] = weight
    return table


def _needed_input(ex: Executor, option: str) -> WeightInput:
    """Return the one input of weights; raise GraphError if there is none or there are several."""
    found = weight_input(ex.plan)
    if found is None:
        raise GraphError(
            f"fit: {option} is given, but the net does not have exactly one input that is the "
            "weight of a loss",
            hint='w = net.input("w", (gc.N,)), then gc.softmax_loss(scores, y, weight=w)',
        )
    return found
