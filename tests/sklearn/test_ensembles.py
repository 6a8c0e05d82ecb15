"""Ensembles: nets with seeds of their own whose predictions are averaged."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import graphc as gc
from graphc.sklearn import GraphClassifier, GraphRegressor
from tests.sklearn.test_sweep import LABELS, OPTIONS, TARGETS, X

DOUBLE = OPTIONS | {"dtype": "float64"}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def softmax(scores: Any) -> Any:
    numbers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return numbers / numbers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("more", [{}, {"early_stopping": True, "patience": 1, "dropout": 0.3}])
def test_a_classifier_averages_probabilities(more: dict[str, Any]) -> None:
    model = GraphClassifier((4,), ensemble=3, **DOUBLE, **more).fit(X, LABELS)
    each = softmax(model.population_.predict(X))
    assert len(each) == 3 and np.ptp(each, axis=0).max() > 1e-3
    np.testing.assert_allclose(model.predict_proba(X), each.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(model.predict_log_proba(X), np.log(each.mean(axis=0)), rtol=1e-9)
    np.testing.assert_array_equal(model.predict(X), each.mean(axis=0).argmax(axis=1))
    one = GraphClassifier((4,), **DOUBLE, **more).fit(X, LABELS)
    np.testing.assert_array_equal(one.predict_proba(X), softmax(model.executor_.predict(X)))
    assert model.histories_[0] is model.history_
    assert model.loss_curve_ == one.loss_curve_ and len(model.histories_) == 3


def test_several_labels_a_row() -> None:
    y = np.stack([LABELS, X[:, 0] > 0], axis=1).astype(int)
    model = GraphClassifier((4,), ensemble=2, **DOUBLE).fit(X, y)
    each = 1 / (1 + np.exp(-model.population_.predict(X)))
    np.testing.assert_allclose(model.predict_proba(X), each.mean(axis=0), rtol=1e-9)


def test_a_regressor_averages_predictions_and_trains_on() -> None:
    many, one = GraphRegressor((4,), ensemble=3, **OPTIONS), GraphRegressor((4,), **OPTIONS)
    for _ in range(2):
        many.partial_fit(X, TARGETS)
        one.partial_fit(X, TARGETS)
    np.testing.assert_array_equal(one.executor_.predict(X), many.executor_.predict(X))
    each = many.population_.predict(X)
    np.testing.assert_allclose(many.predict(X), each.mean(axis=0)[:, 0], rtol=1e-12)
    assert [history.epochs for history in many.histories_] == [[1, 2]] * 3
    copy = pickle.loads(pickle.dumps(many))
    np.testing.assert_array_equal(copy.predict(X), many.predict(X))
    np.testing.assert_array_equal(
        copy.partial_fit(X, TARGETS).predict(X), many.partial_fit(X, TARGETS).predict(X)
    )


def test_sparse_rows() -> None:
    x = np.where(X > 0, X, 0)
    options = {"ensemble": 2, **OPTIONS, "standardize": False}
    dense = GraphClassifier((4,), **options).fit(x, LABELS)
    sparse = GraphClassifier((4,), **options).fit(csr_array(x), LABELS)
    np.testing.assert_array_equal(sparse.predict_proba(csr_array(x)), dense.predict_proba(x))


def test_mistakes() -> None:
    for ensemble in (0, 1.5, "all"):
        with pytest.raises(ValueError, match="ensemble is"):
            GraphClassifier((4,), ensemble=ensemble, **OPTIONS).fit(X, LABELS)
    warm = GraphClassifier((4,), ensemble=3, warm_start=True, **OPTIONS).fit(X, LABELS)
    chances = warm.predict_proba(X)
    for ensemble, had in ((2, "3 nets"), (1, "3 nets")):
        with pytest.raises(ValueError, match=rf"^warm_start: ensemble is {ensemble}, .* {had}: "):
            warm.set_params(ensemble=ensemble).fit(X, LABELS)
        np.testing.assert_array_equal(warm.predict_proba(X), chances)
    with pytest.raises(gc.NotFiniteError, match="member 0 of the ensemble"):
        GraphRegressor((4,), ensemble=2, **DOUBLE | {"lr": 1e300}).fit(X, TARGETS)
