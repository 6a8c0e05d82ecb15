"""The estimators for scikit-learn that train a compiled net: a classifier and a regressor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from graphc.base.docstrings import with_shared
from graphc.declare.perceptrons import ClassifierNet, MultiLabelNet, Perceptron, RegressorNet
from graphc.ir.op import Array
from graphc.ops.functions import LogSoftmax, Sigmoid, Softmax, Softplus
from graphc.sklearn.estimator import GraphEstimator
from graphc.sklearn.rows import Rows
from graphc.sklearn.together import Checked


@dataclass(kw_only=True, repr=False, eq=False)
class GraphClassifier(ClassifierMixin, GraphEstimator):  # type: ignore[misc]
    """A classifier by a net that graphc compiles, trained by the cross-entropy of softmax.

    Parameters
    ----------
    hidden
        The widths of the hidden layers, each of affine and relu.  Weights begin as in `gc.Glorot`,
        those of the last layer as 0.
    batchnorm, dropout
        Whether hidden layers have batchnorm, and the share of their values that is dropped.
    standardize
        Whether the net standardises features by the statistics of the rows in `fit`.
    prepare
        Whether the net prepares its columns, so that X may have missing values, and words.  A
        missing number (NaN) becomes the mean, and a further feature says that it was missing.  A
        column of words or categories becomes a feature for each of its values in `fit`.  X is
        then dense, of floats, or of objects.
    categorical_features
        The columns of numbers that are categories: positions, names or a mask.
    dtype
        "float32" or "float64", in which the net computes after it has standardised X in the dtype
        of X; None takes that of X, float64 unless it is float32.  Predictions have the dtype of X.
        float32 takes half the time, and rounds to seven digits.
    net
        A function from the numbers of features and classes to a Net, in place of the seven options
        above.  The net has inputs x (N, features), y (N,) of int64 and, to take sample weights,
        weight (N,), an output "scores" (N, classes), and a loss.
    lr, weight_decay
        The learning rate and the weight decay of AdamW: each update takes `lr * weight_decay` of
        every weight, by default 0.15 %.  Smaller decay suits tables of little noise.
    optimizer
        Another optimizer of graphc, in place of these two options.
    batch
        The rows of a step, or all rows if there are fewer.  "auto" divides them into steps of at
        most 200 rows, and tables of fewer than 1600 rows into 8 steps an epoch if each has 16 rows
        then: with fewer steps small tables would learn little in 200 epochs.
    epochs
        The most epochs.
    tol, patience
        Training ends when the loss was not `tol` better than its best for `patience` epochs, by
        default 10, or 30 with `early_stopping`.  If it has not ended after all epochs, `fit` warns.
    early_stopping, validation_fraction
        Whether `fit` keeps this fraction of the rows, stratified by class, out of training, ends
        by their loss instead, and returns to the epoch at which it was smallest.
    ensemble
        The number of nets, with seeds and orders of rows of their own, which are trained side by
        side.  Predictions are the means of theirs, of probabilities for a classifier.
    warm_start
        Whether `fit` begins with the weights of the fit before it.
    verbose
        Whether a line is printed after each epoch.
    class_weight
        A mapping from class to weight, 1 for classes that it omits, or "balanced", which gives
        every class the same total weight.  A row's weight is its class's times its own.
    backend, threads
        As in `gc.compile`.
    random_state
        The seed of weights, shuffling and masks, or a generator that draws it.

    Attributes
    ----------
    classes_
        The classes in ascending order.
    executor_
        The trained Executor, for `gc.save`, `gc.freeze` and all else; that of the first net.
    population_
        The trained Population of an ensemble.
    history_, histories_
        The History with the loss of each epoch, and of the validation rows; that of the first net,
        and those of all.
    loss_curve_
        The loss of each epoch.

    Examples
    --------
    >>> from graphc.sklearn import GraphClassifier
    >>> x = np.arange(8.0).reshape(8, 1)
    >>> model = GraphClassifier((8,), lr=0.05, random_state=0).fit(x, ["low"] * 4 + ["high"] * 4)
    >>> model.predict([[1.0], [6.0]]).tolist()
    ['low', 'high']
    """

    _output = "scores"
    class_weight: Mapping[Any, float] | str | None = None

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags of the estimator, which takes several labels a row, too."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _perceptron(self, rows: Rows) -> type[Perceptron]:
        return ClassifierNet if rows.y.ndim == 1 else MultiLabelNet

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train from scratch.

        Parameters
        ----------
        X, y
            Features (N, features), dense or sparse, and their classes (N,), of any type; or
            (N, labels) of 0 and 1 for labels that do not exclude each other.
        sample_weight
            The weight of each row (N,), 1 by default.  A row of weight 0 counts as absent, and one
            of weight 2 as two rows.

        Returns
        -------
        Self
            The estimator.

        Raises
        ------
        ValueError
            If the data cannot be trained on, or an option is out of range.
        """
        return self._fit(X, y, sample_weight)

    def _checked(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Checked:
        """Return the coded rows, and set the classes."""
        rows = self._labelled(X, y, sample_weight, reset=True)
        self._multilabel = rows.y.ndim == 2
        classes = _classes(rows.y)
        if len(classes) < 2:
            raise ValueError(
                f"a classifier needs 2 classes, y has only 1 class: {classes.tolist()[0]!r}"
                + ("" if sample_weight is None else " in rows of positive weight")
            )
        self.classes_ = classes
        return self._by_class(rows, classes), len(classes), _words(classes)

    def _labelled(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, *, reset: bool
    ) -> Rows:
        """Return the rows with classes (N,), or labels (N, labels) of 0 and 1."""
        rows = self._rows(X, y, sample_weight, reset=reset, multi_output=True)
        if rows.y.ndim == 2 and rows.y.shape[1] == 1:
            rows = rows._replace(y=column_or_1d(rows.y, warn=True))
        check_classification_targets(rows.y)
        if rows.y.ndim == 2 and not np.isin(rows.y, (0, 1)).all():
            raise ValueError(f"y has shape {rows.y.shape}; several labels a row must be 0 or 1")
        return rows

    @with_shared(fit.__doc__)
    def partial_fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train one more epoch, over these rows.

        Features are standardised by the rows of the first call.

        Parameters
        ----------
        X, y
            Features (N, features), and their classes (N,), or labels (N, labels).
        classes
            All classes, which the first call needs unless a row has several labels.

        Raises
        ------
        ValueError
            If the data cannot be trained on, if a label is not one of the classes, or if class
            weights are "balanced", which needs all rows.
        """
        first = not hasattr(self, "executor_")
        if first and classes is None and np.ndim(y) < 2:
            raise ValueError("the first call of partial_fit needs classes, a list of all of them")
        rows = self._labelled(X, y, sample_weight, reset=first)
        known = self.classes_ if not first else _classes(rows.y if classes is None else classes)
        if not first and (rows.y.ndim == 2) != self._multilabel:
            raise ValueError(f"y has shape {rows.y.shape}, unlike that of the first call")
        if classes is not None and not np.array_equal(np.unique(np.asarray(classes)), known):
            raise ValueError(f"classes are not those of the first call: {known.tolist()}")
        if isinstance(self.class_weight, str):
            raise ValueError(
                f"partial_fit takes class_weight as a mapping, not as {self.class_weight!r}: it "
                "does not know the rows to come"
            )
        rows = self._by_class(rows, known)
        if first:
            self._begin(rows, self._choice(rows, len(known)).plan(), _words(known), self._seeds())
            self.classes_, self._multilabel = known, rows.y.ndim == 2
        return self._train(rows, 1)

    def _by_class(self, rows: Rows, classes: NDArray[Any]) -> Rows:
        """Return the coded rows with their weights multiplied by those of their classes."""
        dtype = self._computes_in(rows.x)
        rows = _coded(rows, classes, dtype)
        if self.class_weight is None:
            return rows.ready(dtype)
        if rows.y.ndim == 2:
            raise ValueError("class_weight is for classes of which a row has one, y has several")
        factors = class_factors(self.class_weight, classes, rows.y, rows.weight)
        weight = rows.weight * factors[rows.y]
        if not weight.any():
            raise ValueError("class_weight is 0 for every row, so there is nothing to train on")
        return rows._replace(weight=weight).ready(dtype)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable class of each row.

        Parameters
        ----------
        X
            Features (N, features).

        Returns
        -------
        array
            Classes (N,), or labels (N, labels) of 0 and 1.
        """
        chances = self.predict_proba(X)
        if self._multilabel:
            return (chances > 0.5).astype(np.int64)
        return np.asarray(self.classes_[chances.argmax(axis=1)])

    def _combined(self, outputs: Array) -> Array:
        """Return the scores whose probabilities are the means of those of the members."""
        if self._multilabel:
            yes, no = self._logarithms(outputs), self._logarithms(-outputs)
            return np.asarray(logsumexp(yes, axis=0) - logsumexp(no, axis=0))
        return np.asarray(logsumexp(self._logarithms(outputs), axis=0) - math.log(len(outputs)))

    def _logarithms(self, scores: Array) -> Array:
        """Return the logarithms of the probabilities of scores."""
        if self._multilabel:
            return -Softplus().reference([-scores])
        return LogSoftmax().reference([scores])

    @with_shared(predict.__doc__)
    def predict_proba(self, X: ArrayLike) -> Array:
        """Return the probability of each class.

        Returns
        -------
        array
            Probabilities (N, classes), in the order of `classes_`.
        """
        scores = self._predict(X)
        return (Sigmoid() if self._multilabel else Softmax()).reference([scores])

    @with_shared(predict_proba.__doc__)
    def predict_log_proba(self, X: ArrayLike) -> Array:
        """Return the logarithm of the probability of each class.

        Returns
        -------
        array
            Logarithms (N, classes), in the order of `classes_`.
        """
        return self._logarithms(self._predict(X))


def _classes(y: ArrayLike) -> NDArray[Any]:
    """Return the classes in ascending order, or the numbers of the labels."""
    labels = np.asarray(y)
    return np.arange(labels.shape[1]) if labels.ndim == 2 else np.unique(labels)


def _words(classes: NDArray[Any]) -> list[str]:
    """Return the names of the classes, or an empty list if they are the numbers from 0."""
    given = classes.tolist()
    return [] if given == list(range(len(given))) else list(map(str, given))


def _coded(rows: Rows, classes: NDArray[Any], dtype: np.dtype[Any]) -> Rows:
    """Return labels as positions among the classes, several a row as numbers of this dtype.

    Raise ValueError for an unknown label.
    """
    if rows.y.ndim == 2:
        if rows.y.shape[1] != len(classes):
            raise ValueError(f"y has {rows.y.shape[1]} labels a row, there are {len(classes)}")
        return rows._replace(y=rows.y.astype(dtype))
    codes = np.searchsorted(classes, rows.y)
    unknown = np.flatnonzero(np.take(classes, codes, mode="clip") != rows.y)
    if len(unknown):
        label = rows.y[unknown].tolist()[0]
        raise ValueError(f"the label {label!r} is not among the classes {classes.tolist()}")
    return rows._replace(y=codes)


def class_factors(
    given: Mapping[Any, float] | str,
    classes: NDArray[Any],
    codes: NDArray[np.intp],
    weight: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return the factor of each class (K,), for rows of these codes and weights (N,).

    A mapping gives factors by label, 1 for labels that it omits.  "balanced" gives every class the
    same total weight: the factor is N / (K * count) if all rows weigh 1.  Raise ValueError for
    anything else, and for a mapping with other labels or with weights below 0.
    """
    if isinstance(given, str) and given == "balanced":
        sums = np.bincount(codes, weight, len(classes))
        return np.asarray(sums.sum() / (len(classes) * sums))
    if not isinstance(given, Mapping):
        raise ValueError(
            f"class_weight is {given!r}, it must be None, 'balanced', or a mapping from class to "
            "weight"
        )
    unknown = [label for label in given if label not in classes.tolist()]
    if unknown:
        raise ValueError(
            f"class_weight names {unknown[0]!r}, which is not among the classes {classes.tolist()}"
        )
    factors = np.asarray(compute_class_weight(given, classes=classes, y=classes), np.float64)
    if not (np.isfinite(factors).all() and (factors >= 0).all()):
        raise ValueError(f"class_weight is {given!r}, weights are numbers of 0 or more")
    return factors


@with_shared(GraphClassifier.__doc__)
class GraphRegressor(RegressorMixin, GraphEstimator):  # type: ignore[misc]
    """A regressor by a net that graphc compiles, trained by the mean squared error.

    The error counts in standard deviations of the target, so that `lr` and `tol` suit targets of
    any size; predictions are in the target's own units.

    Parameters
    ----------
    net
        A function from the numbers of features and targets to a Net, in place of the seven options
        above.  The net has inputs x (N, features), y (N, targets) and, to take sample weights,
        weight (N,), an output "prediction" (N, targets), and a loss.

    Attributes
    ----------
    executor_
        The trained Executor, for `gc.save`, `gc.freeze` and all else; that of the first net.
    population_
        The trained Population of an ensemble.
    history_, histories_
        The History with the loss of each epoch, and of the validation rows; that of the first net,
        and those of all.
    loss_curve_
        The loss of each epoch.

    Examples
    --------
    >>> from graphc.sklearn import GraphRegressor
    >>> x = np.linspace(0.0, 1.0, 50).reshape(50, 1)
    >>> model = GraphRegressor((16,), lr=0.02, random_state=0).fit(x, 3.0 * x[:, 0] + 1.0)
    >>> bool(abs(model.predict([[0.5]])[0] - 2.5) < 0.1)
    True
    """

    _output = "prediction"

    def _perceptron(self, rows: Rows) -> type[Perceptron]:
        return RegressorNet

    def __sklearn_tags__(self) -> Tags:
        """Return scikit-learn's tags of the estimator, which takes several targets, too."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @with_shared(GraphClassifier.fit.__doc__)
    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train from scratch.

        Parameters
        ----------
        X, y
            Features (N, features), and targets, (N,) or (N, targets).
        """
        return self._fit(X, y, sample_weight)

    def _checked(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Checked:
        """Return the rows, and set whether targets are (N,)."""
        rows, self._flat = self._targets(X, y, sample_weight, reset=True)
        return rows, rows.y.shape[1], ()

    @with_shared(GraphClassifier.fit.__doc__)
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train one more epoch, over these rows.

        Features and targets are standardised by the rows of the first call.

        Parameters
        ----------
        X, y
            Features (N, features), and targets, (N,) or (N, targets) as in the first call.
        """
        first = not hasattr(self, "executor_")
        rows, flat = self._targets(X, y, sample_weight, reset=first)
        if first:
            self._begin(rows, self._choice(rows, rows.y.shape[1]).plan(), (), self._seeds())
            self._flat = flat
        elif flat != self._flat:
            declared = "(N,)" if self._flat else "(N, targets)"
            raise ValueError(f"y has shape {np.shape(y)}, in the first call it was {declared}")
        return self._train(rows, 1)

    @with_shared(GraphClassifier.predict.__doc__)
    def predict(self, X: ArrayLike) -> Array:
        """Return the prediction for each row.

        Returns
        -------
        array
            Predictions, (N,) or (N, targets) as y had in `fit`.
        """
        found = self._predict(X)
        return found[:, 0] if self._flat else found

    def _targets(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None, *, reset: bool
    ) -> tuple[Rows, bool]:
        """Return the rows, their targets as (N, targets), and whether those came as (N,)."""
        rows = self._rows(X, y, sample_weight, reset=reset, multi_output=True, y_numeric=True)
        targets = rows.y.reshape(len(rows.y), -1).astype(rows.x.dtype)
        return rows._replace(y=targets).ready(self._computes_in(rows.x)), rows.y.ndim == 1
