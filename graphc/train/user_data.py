"""The source of batches for a user's data, with the weights of its rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.arguments import whole
from graphc.base.errors import FeedError, GraphError
from graphc.runtime.executor import Executor
from graphc.runtime.means import WeightInput, weight_input
from graphc.runtime.rows import Piece, by_position
from graphc.train.arrays import ArraySource, checked_arrays
from graphc.train.part_files import PartFileSource
from graphc.train.source import Batch, FunctionSource, IteratorSource, Source


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
    classes = None if class_weight is None else _ClassWeights(ex, class_weight)
    if sample_weight is not None:
        data = _with_weights(ex, data, sample_weight)
    return _weighted(ex, _source(ex, data, batch, seed, train=True), classes)


def held_out_source(ex: Executor, data: Any) -> Source:
    """Return a source of batches to evaluate on, in order; raise FeedError if a loss needs more."""
    if isinstance(data, Iterator):
        raise FeedError(
            "validation: a generator is used up after one epoch",
            hint="give arrays, a folder of shards, or a function of the epoch's number",
        )
    if isinstance(data, (int, float)):
        raise FeedError(
            f"validation is {data!r}, not data",
            hint="graphc.data.stratified_split(labels, 0.2, seed=0) cuts rows in two; then "
            "validation=(x[held], y[held])",
        )
    source = _weighted(ex, _source(ex, data, ex.plan.batch, None, train=False))
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


def shard_batches(ex: Executor, folder: str | Path) -> Iterator[Piece]:
    """Return inference on a folder's part files; raise FeedError or DataError for a misfit."""
    source = _weighted(ex, PartFileSource(ex, _folder(folder), ex.plan.batch, None, False))
    return ((n, feeds, ex.forward(feeds, copy=False)) for n, feeds in source.batches(0))


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
    return ArraySource(ex, arrays, rows, batch, seed, train)


def _folder(path: str | Path) -> Path:
    if not os.path.isdir(path):
        raise FeedError(
            f"data is {str(path)!r}, which is not a folder of shards",
            hint="a file: np.load(path, mmap_mode='r') gives an array; gc.fit(ex, (x, y))",
        )
    return Path(path)


def _with_weights(ex: Executor, data: Any, weights: Any) -> dict[str, Any]:
    name = _needed_input(ex, "sample_weight").name
    if streamed(data):
        raise GraphError(
            "fit: sample_weight is for arrays only",
            hint=f"shards and generators give the weights themselves, as {name!r}",
        )
    feeds = by_position(ex.plan.input_names, (data,), {})
    if name in feeds:
        raise GraphError(
            f"fit: sample_weight is given, and so is {name!r}, which takes it",
            hint="give one of them",
        )
    return {**feeds, name: weights}


_HINT = 'w = net.input("w", (gc.N,)), then gc.softmax_loss(scores, y, weight=w)'


def _weighted(ex: Executor, source: Source, classes: _ClassWeights | None = None) -> Source:
    """Return the source, with weights of rows added if a loss takes them and they are needed.

    They are needed if the source does not have them, or if classes have weights.
    """
    takes = weight_input(ex.plan)
    if takes is None:
        return source
    # A source of unknown names, such as a function, fills the weights of its batches itself.
    filled = source.names is None or takes.name in source.names
    return source if filled and classes is None else _Weighted(ex, source, takes.name, classes)


class _Weighted(Source):
    """A source whose batches also feed an input of weights.

    A row's weight is what the source feeds, or 1, times that of its class.
    """

    def __init__(
        self, ex: Executor, inner: Source, name: str, classes: _ClassWeights | None
    ) -> None:
        self._inner, self._name, self._classes = inner, name, classes
        self.names = None if inner.names is None else inner.names | {name}
        self.rows = inner.rows
        self._ones: NDArray[Any] = np.ones(ex.plan.rows, ex.plan.declared[name].type.dtype)

    @property
    def unweighted(self) -> Source:
        """The source without the weights."""
        return self._inner

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the source with weights."""
        for n, feeds in self._inner.batches(epoch, start):
            weight = feeds.get(self._name, self._ones[:n])
            if self._classes is not None:
                weight = weight * self._classes.of(feeds)
            yield n, {**feeds, self._name: weight}

    def release(self, epoch: int, start: int) -> None:
        """Release the batches of the source."""
        self._inner.release(epoch, start)

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the index that the source gives."""
        return self._inner.row(epoch, step, row)


class _ClassWeights:
    """The weight of each class of the labels that an input takes; 1 if none is given."""

    def __init__(self, ex: Executor, given: Any) -> None:
        """Check the weights given; raise GraphError if they make no sense."""
        labels = self._labels = _needed_input(ex, "class_weight").labels
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
        self._table = np.ones(classes)
        for label, weight in given.items():
            self._table[_class(label, classes)] = _weight(label, weight)

    def of(self, feeds: Mapping[str, Any]) -> NDArray[Any]:
        """Return the weights of a batch; a label out of range is left to the check of the step."""
        labels = np.asarray(feeds[self._labels])
        return np.take(self._table, labels, mode="clip")


def _needed_input(ex: Executor, option: str) -> WeightInput:
    """Return the one input of weights; raise GraphError if there is none or there are several."""
    found = weight_input(ex.plan)
    if found is None:
        raise GraphError(
            f"fit: {option} is given, but the net does not have exactly one input that is the "
            "weight of a loss",
            hint=_HINT,
        )
    return found


def _class(label: Any, classes: int) -> int:
    number = whole(label, 0)
    if number is not None and number < classes:
        return number
    raise GraphError(f"fit: class_weight names the class {label!r}, there are 0 to {classes - 1}")


def _weight(label: Any, weight: Any) -> float:
    if isinstance(weight, (int, float, np.number)) and np.isfinite(weight) and weight >= 0:
        return float(weight)
    raise GraphError(
        f"fit: the weight of class {label} is {weight!r}, it must be a number from 0 up"
    )
