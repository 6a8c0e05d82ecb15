"""Weights of rows: which input of the net takes them, and what it is fed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import GraphError
from graphc.executor import Executor
from graphc.loc import caller_loc
from graphc.numbers import whole
from graphc.ops.source import Input
from graphc.runtime.means import WeightInput, weight_input
from graphc.runtime.row_axis import RowAxis
from graphc.train.source import Batch, Source

_HINT = 'w = net.input("w", (gc.N,)), then gc.softmax_loss(scores, y, weight=w)'


def weighted(ex: Executor, source: Source, classes: ClassWeights | None = None) -> Source:
    """The source; with weights where a loss takes some, and it has none or classes have some."""
    takes = weight_input(ex.plan)
    if takes is None:
        return source
    filled = source.names is None or takes.name in source.names  # batches by functions are
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
        """Those of the source, and the weights."""
        return None if self.inner.names is None else self.inner.names | {self._name}

    @property
    def rows(self) -> int | None:
        """As in the source."""
        return self.inner.rows

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of the source with weights."""
        for n, feeds in self.inner.batches(epoch, start):
            weight = feeds.get(self._name, self._ones[:n])
            if self._classes is not None:
                weight = weight * self._classes.of(feeds)
            yield n, {**feeds, self._name: weight}

    def release(self, epoch: int, start: int) -> None:
        """As in the source."""
        self.inner.release(epoch, start)

    def row(self, epoch: int, step: int, row: int) -> int | None:
        """As in the source."""
        return self.inner.row(epoch, step, row)


class ClassWeights:
    """The weight of each class of the labels that an input takes; 1 where none is given."""

    def __init__(self, ex: Executor, labels: str, given: Mapping[int, float]) -> None:
        self._labels = labels
        classes = ex.plan.programs["infer"].index_bounds.get(labels, 0)
        self._table = np.ones(classes)
        for label, weight in given.items():
            self._table[_class(label, classes)] = _weight(label, weight)

    def of(self, feeds: Mapping[str, Any]) -> NDArray[Any]:
        """The weights of a batch; a label out of range is left to the check of the step."""
        labels = np.asarray(feeds[self._labels])
        return np.take(self._table, labels, mode="clip")


def filled(ex: Executor, feeds: dict[str, Any]) -> dict[str, Any]:
    """The feeds; weights of 1 with them where a loss takes some and none are there."""
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
    """Class weights, checked; GraphError where they make no sense."""
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
            f"fit: class_weight is given, but {labels!r} is no input of class numbers",
            loc=caller_loc(),
            hint="sample_weight= gives each row a weight of its own",
        )
    return ClassWeights(ex, labels, given)


def needed_input(ex: Executor, option: str) -> WeightInput:
    """The input of weights; GraphError where there is not just one."""
    found = weight_input(ex.plan)
    if found is None:
        raise GraphError(
            f"fit: {option} is given, but not just one input of the net is the weight of a loss",
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
