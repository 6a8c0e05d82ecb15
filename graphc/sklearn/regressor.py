"""`GraphRegressor`, a scikit-learn regressor that trains a compiled net."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import RegressorMixin
from sklearn.utils import Tags

from graphc.ir.op import Array
from graphc.sklearn.estimator import GraphEstimator, RegressorNet, Rows


class GraphRegressor(RegressorMixin, GraphEstimator):  # type: ignore[misc]
    """A regressor by a net that graphc compiles, trained by the mean squared error.

    The error is counted in standard deviations of the target, so that `lr` and `tol` suit
    targets of any size; predictions are in the target's own units.

    A function given as `net` declares inputs x (N, features), y (N, targets) and, to take
    sample weights, weight (N,); an output "prediction" (N, targets); and a loss.

    Attributes after `fit`: `executor_` (for `gc.save`, `gc.freeze` and all else), `history_`
    with the loss of each epoch, `n_iter_`, `n_features_in_`.
    """

    _output = "prediction"
    _perceptron = RegressorNet

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags of the estimator, which takes several targets, too."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train from scratch on X (N, features) and y, (N,) or (N, targets).

        A row of weight 0 counts as absent, and one of weight 2 as two rows.  Raise ValueError for
        data that cannot be trained on.
        """
        stopping = self._stopping()
        rows, flat = self._targets(X, y, sample_weight, reset=True)
        self._begin(rows, rows.y.shape[1])
        self._flat = flat
        return self._train(rows, self.epochs, stopping)

    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train one more epoch, over these rows.

        Features and targets are standardised by the rows of the first call.  Raise ValueError for
        data that cannot be trained on.
        """
        first = not hasattr(self, "executor_")
        rows, flat = self._targets(X, y, sample_weight, reset=first)
        if first:
            self._begin(rows, rows.y.shape[1])
            self._flat = flat
        elif flat != self._flat:
            declared = "(N,)" if self._flat else "(N, targets)"
            raise ValueError(f"y has shape {np.shape(y)}, in the first call it was {declared}")
        return self._train(rows, 1)

    def predict(self, X: ArrayLike) -> Array:
        """Return the prediction for each row, in the shape that y had."""
        found = self._predict(X)
        return found[:, 0] if self._flat else found

    def _targets(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, *, reset: bool
    ) -> tuple[Rows, bool]:
        """Return the rows, their targets as (N, targets), and whether those came as (N,)."""
        rows = self._rows(X, y, sample_weight, reset=reset, multi_output=True, y_numeric=True)
        targets = rows.y.reshape(len(rows.y), -1).astype(rows.x.dtype)
        return rows._replace(y=targets).ready(), rows.y.ndim == 1
