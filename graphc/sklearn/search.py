"""`SweepSearchCV`: a grid search that trains all candidates on all folds side by side."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from joblib import parallel_config
from numpy.typing import ArrayLike
from sklearn.base import clone, is_classifier
from sklearn.model_selection import GridSearchCV, ParameterGrid, check_cv
from sklearn.utils import indexable
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.validation import _check_method_params

from graphc.sklearn.together import REFUSED, Sweep, sweep


class SweepSearchCV(GridSearchCV):  # type: ignore[misc]
    """A GridSearchCV whose fits run side by side, as the members of populations.

    Candidates of one architecture, on all folds, are one population; those that differ in more
    than the learning rate, weight decay and options of `fit` make another one.  The estimator is a
    GraphClassifier or GraphRegressor, or has them inside, such as a Pipeline.  Scores are those
    of GridSearchCV for the same seeds.

    Parameters
    ----------
    estimator, param_grid, scoring, refit, cv, verbose, error_score, return_train_score
        As in scikit-learn's GridSearchCV.
    n_jobs, pre_dispatch
        Ignored: the threads are those of the estimator.

    Examples
    --------
    >>> from graphc.sklearn import GraphClassifier, SweepSearchCV
    >>> x = np.arange(24.0).reshape(24, 1)
    >>> grid = {"lr": [0.1, 0.0], "epochs": [20]}
    >>> search = SweepSearchCV(GraphClassifier((4,), random_state=0), grid, cv=2)
    >>> search.fit(x, x[:, 0] > 11.5).best_params_["lr"]  # doctest: +SKIP
    0.1
    """

    def fit(self, X: ArrayLike, y: ArrayLike | None = None, **params: Any) -> Self:
        """Train all candidates, and the best one again on all rows.

        Parameters
        ----------
        X, y, **params
            As in scikit-learn's GridSearchCV.

        Returns
        -------
        Self
            The search.
        """
        self._given = X, y, params
        try:
            # Only this thread knows what was trained.
            with parallel_config(backend="sequential"):
                super().fit(X, y, **params)
        finally:
            del self._given
        return self

    def _run_search(self, evaluate_candidates: Callable[..., Any]) -> None:
        """Train all candidates together, then let each find its result when it is fitted."""
        grid = ParameterGrid(self.param_grid)
        with sweep() as trainings:
            begin = time.perf_counter()
            splits = self._note(trainings, grid)
            trainings.run()
            seconds = time.perf_counter() - begin
            self._seconds = seconds / max(1, len(grid) * len(splits))
            evaluate_candidates(grid, cv=check_cv(splits) if splits else None)

    def _note(self, trainings: Sweep, grid: ParameterGrid) -> list[Any]:
        """Let each candidate leave its training on each fold, and return the folds."""
        given, y, params = self._given
        X, y = indexable(given, y)
        routed = self._get_routed_params_for_fit(_check_method_params(X, params=params))
        cv = getattr(self, "_checked_cv_orig", None)
        cv = cv or check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        splits = list(cv.split(X, y, **routed.splitter.split))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for train, _ in splits:
                x, labels = _safe_split(self.estimator, X, y, train)
                options = _check_method_params(X, params=routed.estimator.fit, indices=train)
                for candidate in grid:
                    # An error comes again when the candidate is fitted to be scored.
                    with suppress(*REFUSED):
                        model = clone(self.estimator)
                        model.set_params(**clone(candidate, safe=False)).fit(x, labels, **options)
        return splits

    def _format_results(self, candidate_params: Any, n_splits: int, out: Any, *more: Any) -> Any:
        """Add the share of the common training to the time of each fit."""
        for found in out:
            found["fit_time"] += self._seconds
        return super()._format_results(candidate_params, n_splits, out, *more)
