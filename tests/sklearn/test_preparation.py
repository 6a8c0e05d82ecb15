"""Columns with gaps, categories and words, which the net prepares, beside scikit-learn's ways."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import graphc as gc
from graphc.sklearn import GraphClassifier, GraphRegressor

pytestmark = pytest.mark.filterwarnings("ignore:training did not converge")

OPTIONS: dict[str, Any] = {"hidden": (6,), "epochs": 3, "random_state": 0, "backend": "numpy"}


def _gaps(rows: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Three columns of numbers and, at 1, one of the categories 0, 1, 2 and 5; each with gaps."""
    rng = np.random.default_rng(0)
    x = rng.normal(3.0, 2.0, size=(rows, 4))
    x[:, 1] = np.array([0, 1, 2, 5])[rng.integers(0, 4, rows)]
    x[:, [0, 1, 3]] = np.where(rng.random((rows, 3)) < 0.2, np.nan, x[:, [0, 1, 3]])
    return x, (np.nan_to_num(x[:, 0]) + (x[:, 1] == 2) > 2.5).astype(int)


def _worded(x: np.ndarray) -> np.ndarray:
    """The same table with words for the categories."""
    found = x.astype(object)
    names = {0.0: "amber", 1.0: "blue", 2.0: "cyan", 5.0: "green"}
    found[:, 1] = [names.get(value) for value in x[:, 1]]
    return found


def _scikit_learn() -> Any:
    """The same features from scikit-learn, of a table whose missing categories are -1."""
    scaled = make_pipeline(SimpleImputer(), StandardScaler())
    hot = OneHotEncoder(categories=[[0, 1, 2, 5]], handle_unknown="ignore", sparse_output=False)
    numbers = [0, 2, 3]
    parts = [("scaled", scaled, numbers), ("gaps", MissingIndicator(), numbers), ("hot", hot, [1])]
    return ColumnTransformer(parts)


def _minus_one(x: np.ndarray) -> np.ndarray:
    found = x.copy()
    found[:, 1] = np.nan_to_num(x[:, 1], nan=-1)
    return found


def test_a_net_prepares_columns_as_scikit_learn_does() -> None:
    x, y = _gaps()
    net = GraphClassifier(**OPTIONS, prepare=True, categorical_features=[1]).fit(x[:150], y[:150])
    before = _scikit_learn().fit(_minus_one(x[:150]))
    plain = GraphClassifier(**OPTIONS, standardize=False)
    plain.fit(before.transform(_minus_one(x[:150])).astype(float), y[:150])
    wanted = plain.predict_proba(before.transform(_minus_one(x)).astype(float))
    np.testing.assert_allclose(net.predict_proba(x), wanted, rtol=1e-9)


def test_words_are_categories_by_themselves() -> None:
    x, y = _gaps()
    codes = np.where(x[:, 1] == 5, 3, x[:, 1])
    coded = np.column_stack([x[:, 0], codes, x[:, 2:]])
    chosen = [[1], [False, True, False, False]]
    nets = [GraphClassifier(**OPTIONS, prepare=True, categorical_features=c) for c in chosen]
    wanted = [net.fit(coded, y).predict_proba(coded).tobytes() for net in nets]
    found = GraphClassifier(**OPTIONS, prepare=True).fit(_worded(x), y)
    assert {found.predict_proba(_worded(x)).tobytes()} == set(wanted)
    again = pickle.loads(pickle.dumps(found))
    assert again.predict_proba(_worded(x)).tobytes() == wanted[0]


def test_words_that_fit_has_not_seen_are_none_of_those_that_it_has() -> None:
    x, y = _gaps()
    model = GraphClassifier(**OPTIONS, prepare=True).fit(_worded(x), y)
    one, none = _worded(x[:1]), _worded(x[:1])
    one[0, 1], none[0, 1] = "violet", None
    np.testing.assert_array_equal(model.predict_proba(one), model.predict_proba(none))


def test_weights_count_as_rows_do() -> None:
    x, y = _gaps(40)
    weight = np.arange(40) % 3
    options = OPTIONS | {"prepare": True, "categorical_features": [1]}
    weighed = GraphRegressor(**options).fit(x, 2.0 * y, sample_weight=weight)
    repeated = GraphRegressor(**options).fit(x.repeat(weight, axis=0), 2.0 * y.repeat(weight))
    for name in ("features.mean", "features.scale"):
        first, second = (model.executor_.state[name] for model in (weighed, repeated))
        np.testing.assert_allclose(first, second)


def test_a_saved_model_prepares_by_itself(tmp_path: Path) -> None:
    x, y = _gaps()
    model = GraphClassifier(**OPTIONS, prepare=True, categorical_features=[1]).fit(x, y)
    gc.save(tmp_path / "m.gc", model.executor_)
    again = gc.load(tmp_path / "m.gc")
    np.testing.assert_array_equal(again.predict(x=x), model.executor_.predict(x=x))
    files = gc.export_c(model.executor_, tmp_path / "m.c", infer_only=True)
    assert all(path.exists() for path in files)


@pytest.mark.parametrize(
    ("options", "x", "message"),
    [
        (
            {"categorical_features": [1]},
            [[0.0, 1.0]] * 4,
            "categorical_features is given, which needs prepare=True",
        ),
        (
            {"prepare": True, "categorical_features": [2]},
            [[0.0, 1.0]] * 4,
            "categorical_features is [2]: X has no column 2",
        ),
        (
            {"prepare": True, "categorical_features": ["size"]},
            [[0.0, 1.0]] * 4,
            "categorical_features is ['size']: X has no column 'size'",
        ),
        (
            {"prepare": True, "categorical_features": [0]},
            [[np.nan]] * 4,
            "X has no column with a value",
        ),
    ],
)
def test_columns_that_make_no_sense(options: dict[str, Any], x: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        GraphClassifier(**options).fit(x, [0, 1, 0, 1])
    assert str(caught.value) == message


def test_gaps_and_words_are_refused_unless_they_are_prepared() -> None:
    x, y = _gaps()
    hint = r"\n.*GraphClassifier\(prepare=True\) takes missing values and words"
    with pytest.raises(ValueError, match=rf"(?s)contains NaN.*{hint}"):
        GraphClassifier().fit(x, y)
    with pytest.raises(ValueError, match=rf"could not convert string.*{hint}"):
        GraphClassifier().fit(_worded(np.nan_to_num(x)), y)
    fitted = GraphClassifier((4,), epochs=1).fit(np.nan_to_num(x), y)
    with pytest.raises(ValueError, match=rf"(?s)contains NaN.*{hint}"):
        fitted.predict(x)
    with pytest.raises(ValueError) as caught:
        GraphClassifier().fit(np.full_like(x, np.inf), y)
    assert "prepare" not in str(caught.value)


@pytest.mark.slow
@parametrize_with_checks([kind(prepare=True) for kind in (GraphClassifier, GraphRegressor)])
@pytest.mark.filterwarnings("ignore")
def test_check(estimator: Any, check: Any) -> None:
    """scikit-learn's own checks of estimators."""
    check(estimator)
