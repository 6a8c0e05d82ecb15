"""GraphClassifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets

from graphc.op import Array
from graphc.ops.functions import Softmax
from graphc.sklearn.estimator import GraphEstimator, Rows
from graphc.sklearn.nets import ClassifierNet


class GraphClassifier(ClassifierMixin, GraphEstimator):  # type: ignore[misc]
    """A classifier by a net that graphc compiles, trained by the cross-entropy of softmax.

    A function given as `net` declares inputs x (N, features), y (N,) of int64 and, to take
    sample weights, weight (N,); an output "scores" (N, classes); and a loss.

    Attributes after `fit`: `classes_`, `executor_` (for `gc.save`, `gc.freeze` and all else),
    `history_` with the loss of each epoch, `n_iter_`, `n_features_in_`.
    """

    _output = "scores"
    _perceptron = ClassifierNet

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train anew on X (N, features) and y (N,).

        A row of weight 0 is as if it were not there, and one of weight 2 as if it were there
        twice.  Raises ValueError for data that cannot be trained on.
        """
        stopping = self._stopping()
        rows = self._rows(X, y, sample_weight, reset=True)
        check_classification_targets(rows.y)
        classes = np.unique(rows.y)
        if len(classes) < 2:
            raise ValueError(
                f"a classifier needs 2 classes, y has only 1 class: {classes.tolist()[0]!r}"
                + ("" if sample_weight is None else " in rows of positive weight")
            )
        rows = _coded(rows, classes)
        self._begin(rows, len(classes))
        self.classes_ = classes
        return self._train(rows, self.epochs, stopping)

    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """One epoch more, over these rows; `classes` lists all of them at the first call.

        Features are standardised by the rows of the first call.  Raises ValueError for data
        that cannot be trained on, and for a label that is not among the classes.
        """
        first = not hasattr(self, "executor_")
        if first and classes is None:
            raise ValueError("the first call of partial_fit needs classes, a list of all of them")
        rows = self._rows(X, y, sample_weight, reset=first)
        check_classification_targets(rows.y)
        known = np.unique(np.asarray(classes)) if first else self.classes_
        if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), known):
            raise ValueError(f"classes are not those of the first call: {known.tolist()}")
        rows = _coded(rows, known)
        if first:
            self._begin(rows, len(known))
            self.classes_ = known
        return self._train(rows, 1)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable class of each row: (N,)."""
        best = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: ArrayLike) -> Array:
        """The probability of each of `classes_`: (N, classes)."""
        return Softmax().reference([self._predict(X)])


def _coded(rows: Rows, classes: NDArray[Any]) -> Rows:
    """Labels as positions among the classes; ValueError for one that is not there."""
    codes = np.searchsorted(classes, rows.y)
    strange = np.flatnonzero(np.take(classes, codes, mode="clip") != rows.y)
    if len(strange):
        label = rows.y[strange].tolist()[0]
        raise ValueError(f"the label {label!r} is not among the classes {classes.tolist()}")
    return rows._replace(y=codes)
