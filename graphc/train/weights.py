"""Weights of rows: the input of the net that takes them, and the numbers fed to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.numbers import whole
from graphc.ops.source import Input
from graphc.runtime.executor import Executor
from graphc.runtime.means import WeightInput, weight_input
from graphc.runtime.row_axis import RowAxis
from graphc.train.source import Batch, Source

_HINT = 'w = net.input("w", (gc.N,)), then gc.softmax_loss(scores, y, weight=w)'


def weighted(ex: Executor, source: Source, classes: ClassWeights | None = None) -> Source:
    """Return the source, with weights of rows added if a loss takes them and they are needed.

    They are needed if the source does not have them, or if classes have weights.
    """
    takes = weight_input(ex.plan)
    if takes is None:
        return source
    # A source of unknown names, such as a function, fills the weights of its batches itself.
    filled = source.names is None or takes.name in source.names
    return source if filled and classes is None else Weighted(ex, source, takes.name, classes)


class Weighted:
    """A source whose batches also feed an input of weights.

    A row's weight is what the source feeds, or 1, times that of its class.
    """

    def __init__(
        self, ex: Executor, inner: Source, name: str, classes: ClassWeights | None
    ) -> None:
        self.inner, self._name, self._classes = inner, name, classes
        self._ones: NDArray[Any] = np.ones(ex.plan.rows, ex.plan.declared[name].type.dtype)

    @property
    def names(self) -> frozenset[str] | None:
        """The inputs of the source, and that of the weights."""
        return None if self.inner.names is None else self.inner.names | {self._name}

    @property
    def rows(self) -> int | None:
        """The number of rows of the source."""
        return self.inner.rows

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of the source with weights."""
        for n, feeds in self.inner.batches(epoch, start):
            weight = feeds.get(self._name, self._ones[:n])
            if self._classes is not None:
                weight = weight * self._classes.of(feeds)
            yield n, {**feeds, self._name: weight}

    def release(self, epoch: int, start: int) -> None:
        """Release the batches of the source."""
        self.inner.release(epoch, start)

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """Return the index that the source gives."""
        return self.inner.row(epoch, step, row)


class ClassWeights:
    """The weight of each class of the labels that an input takes; 1 if none is given."""

    def __init__(self, ex: Executor, labels: str, given: Mapping[int, float]) -> None:
        self._labels = labels
        classes = ex.plan.programs["infer"].index_bounds.get(labels, 0)
        self._table = np.ones(classes)
        for label, weight in given.items():
            self._table[_class(label, classes)] = _weight(label, weight)

    def of(self, feeds: Mapping[str, Any]) -> NDArray[Any]:
        """Return the weights of a batch; a label out of range is left to the check of the step."""
        labels = np.asarray(feeds[self._labels])
        return np.take(self._table, labels, mode="clip")


def filled(ex: Executor, feeds: dict[str, Any]) -> dict[str, Any]:
    """Return the feeds, with weights of 1 added if a loss takes weights and there are none."""
    takes = weight_input(ex.plan)
    if takes is None or takes.name in feeds:
        return feeds
    for name, array in feeds.items():
        axis = RowAxis.of(ex.plan.declared[name].type) if name in ex.plan.input_names else None
        if axis is not None and np.ndim(array) > axis.axis:
            rows = np.shape(array)[axis.axis] // axis.factor
            one = np.ones((), ex.plan.declared[takes.name].type.dtype)
            return {**feeds, takes.name: np.broadcast_to(one, (rows,))}
    return feeds


def class_weights(ex: Executor, given: Any) -> ClassWeights:
    """Return checked class weights; raise GraphError if they make no sense."""
    labels = needed_input(ex, "class_weight").labels
    if not isinstance(given, Mapping):
        raise GraphError(
            f"fit: class_weight is {type(given).__name__}, not a mapping",
            loc=caller_loc(),
            hint="class_weight={0: 1.0, 1: 5.0}",
        )
    node = ex.plan.declared[labels]
    if node.type.is_float or not isinstance(node.op, Input):
        raise GraphError(
            f"fit: class_weight is given, but {labels!r} is not an input of class numbers",
            loc=caller_loc(),
            hint="sample_weight= gives each row a weight of its own",
        )
    return ClassWeights(ex, labels, given)


def needed_input(ex: Executor, option: str) -> WeightInput:
    """Return the one input of weights; raise GraphError if there is none or there are several."""
    found = weight_input(ex.plan)
    if found is None:
        raise GraphError(
            f"fit: {option} is given, but the net does not have exactly one input that is the "
            "weight of a loss",
            loc=caller_loc(),
            hint=_HINT,
        )
    return found


def _class(label: Any, classes: int) -> int:
    number = whole(label, 0)
    if number is not None and number < classes:
        return number
    raise GraphError(
        f"fit: class_weight names the class {label!r}, there are 0 to {classes - 1}",
        loc=caller_loc(),
    )


def _weight(label: Any, weight: Any) -> float:
    if isinstance(weight, (int, float, np.number)) and np.isfinite(weight) and weight >= 0:
        return float(weight)
    raise GraphError(
        f"fit: the weight of class {label} is {weight!r}, it must be a number from 0 up",
        loc=caller_loc(),
    )
