"""Makes the source of batches for a user's data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from graphc.base.errors import FeedError, GraphError
from graphc.base.loc import caller_loc
from graphc.runtime.executor import Executor
from graphc.runtime.many_rows import by_position
from graphc.train.arrays import ArraySource, checked_arrays
from graphc.train.generated import FunctionSource, IteratorSource
from graphc.train.shards import ShardSource
from graphc.train.source import Source
from graphc.train.weights import class_weights, needed_input, weighted


def training_source(
    ex: Executor,
    data: Any,
    batch: int,
    seed: int | None,
    sample_weight: Any = None,
    class_weight: Any = None,
) -> Source:
    """Return a source of batches to train on; raise FeedError for data that do not fit.

    With `seed` None rows stay in their order.
    """
    classes = None if class_weight is None else class_weights(ex, class_weight)
    if sample_weight is not None:
        data = _with_weights(ex, data, sample_weight)
    return weighted(ex, _source(ex, data, batch, seed, train=True), classes)


def held_out_source(ex: Executor, data: Any) -> Source:
    """Return a source of batches to evaluate on, in order; raise FeedError if a loss needs more."""
    if isinstance(data, Iterator):
        raise FeedError(
            "validation: a generator is used up after one epoch",
            loc=caller_loc(),
            hint="give arrays, a folder of shards, or a function of the epoch's number",
        )
    if isinstance(data, (int, float)):
        raise FeedError(
            f"validation is {data!r}, not data",
            loc=caller_loc(),
            hint="graphc.data.stratified_split(labels, 0.2, seed=0) cuts rows in two; then "
            "validation=(x[held], y[held])",
        )
    source = weighted(ex, _source(ex, data, ex.plan.batch, None, train=False))
    missing = missing_for_losses(ex, source.names)
    if missing is not None:
        raise cannot_compute(missing)
    return source


def folder_source(ex: Executor, folder: str | Path) -> Source:
    """Return a source of the rows of a folder of part files, in order."""
    return weighted(ex, ShardSource(ex, _folder(folder), ex.plan.batch, None, False))


def missing_for_losses(ex: Executor, names: frozenset[str] | None) -> str | None:
    """Return an input that a loss needs and that is not fed; None if `names` are unknown."""
    program = ex.plan.programs["infer"]
    losses = [program.graph.outputs[name] for name in ex.plan.losses]
    needed = program.graph.upstream(losses)
    missing = (name for name in program.feeds if name in needed)
    return None if names is None else next((k for k in missing if k not in names), None)


def cannot_compute(missing: str) -> FeedError:
    """Return the error for validation data without an input that a loss needs."""
    return FeedError(
        f"validation: input {missing!r} is missing, which a loss needs",
        loc=caller_loc(),
        hint="validation=(x, y) holds the same inputs as the training data",
    )


def streamed(data: Any) -> bool:
    """Return whether the data are not arrays."""
    return callable(data) or isinstance(data, (Iterator, str, Path))


def _source(ex: Executor, data: Any, batch: int, seed: int | None, train: bool) -> Source:
    if isinstance(data, (str, Path)):
        return ShardSource(ex, _folder(data), batch, seed, train)
    if isinstance(data, Iterator):
        return IteratorSource(ex, data, train)
    if callable(data):
        return FunctionSource(ex, data, train)
    arrays, rows = checked_arrays(ex, data, train=train)
    return ArraySource(ex, arrays, rows, batch, seed, train)


def _folder(path: str | Path) -> Path:
    if not os.path.isdir(path):
        raise FeedError(
            f"data is {str(path)!r}, which is not a folder of shards",
            loc=caller_loc(),
            hint="a file: np.load(path, mmap_mode='r') gives an array; gc.fit(ex, (x, y))",
        )
    return Path(path)


def _with_weights(ex: Executor, data: Any, weights: Any) -> dict[str, Any]:
    name = needed_input(ex, "sample_weight").name
    if streamed(data):
        raise GraphError(
            "fit: sample_weight is for arrays only",
            loc=caller_loc(),
            hint=f"shards and generators give the weights themselves, as {name!r}",
        )
    feeds = by_position(ex.plan.input_names, (data,), {})
    if name in feeds:
        raise GraphError(
            f"fit: sample_weight is given, and so is {name!r}, which takes it",
            loc=caller_loc(),
            hint="give one of them",
        )
    return {**feeds, name: weights}
