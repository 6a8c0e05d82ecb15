"""What users of scikit-learn do with classifiers and regressors: each use runs, and says something.

Every use of the list works for MLPClassifier and MLPRegressor, too.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn import calibration, ensemble, inspection, metrics, multiclass, multioutput
from sklearn import feature_selection as selection
from sklearn import model_selection as search
from sklearn.base import clone
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.decomposition import PCA
from sklearn.experimental import enable_halving_search_cv
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from graphc.sklearn import GraphClassifier, GraphRegressor

pytestmark = pytest.mark.filterwarnings("ignore")
del enable_halving_search_cv

X, Y = (array[:200] for array in load_breast_cancer(return_X_y=True))
NAMES = np.array(["bad", "good"])[Y]
X3, Y3 = load_iris(return_X_y=True)
XR, YR = (array[:200] for array in load_diabetes(return_X_y=True))
TEXTS = ["red green blue", "green blue", "red black", "black white", "white", "white red black"] * 3
MIXED = np.random.default_rng(0).permutation(150)
UNKNOWN = np.where(np.arange(150) % 3, Y3, -1)


def model(**options: Any) -> GraphClassifier:
    given: dict[str, Any] = {"hidden": (8,), "epochs": 15, "lr": 0.02, "backend": "numpy"}
    return GraphClassifier(**given | options, random_state=0)


def regressor() -> GraphRegressor:
    return GraphRegressor((8,), epochs=15, lr=0.02, backend="numpy", random_state=0)


def accuracy(found: Any, x: Any = X, y: Any = Y) -> float:
    return float(found.fit(x, y).score(x, y))


def mean(*args: Any, **options: Any) -> float:
    return float(search.cross_val_score(model(), *args, cv=2, **options).mean())


def one_hot() -> Any:
    return ColumnTransformer(
        [("a", StandardScaler(), [0, 1, 2]), ("b", OneHotEncoder(handle_unknown="ignore"), [3])],
        sparse_threshold=1.0,
    )


def found_by(searcher: Any, x: Any = X, y: Any = Y) -> float:
    return float(searcher.fit(x, y).best_score_)


def in_parts() -> float:
    found = model()
    for _ in range(4):
        for part in range(3):
            found.partial_fit(X[part::3], Y[part::3], classes=[0, 1])
    return float(found.score(X, Y))


def two(x: Any) -> Any:
    return np.column_stack([x, x])


HALVING = {"cv": 2, "resource": "epochs", "min_resources": 4, "max_resources": 12}
BOTH = [("a", model()), ("b", GaussianNB())]
PIPE = make_pipeline(StandardScaler(), PCA(), model())

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "pipeline": lambda: accuracy(PIPE),
    "clone": lambda: accuracy(clone(model().fit(X, Y))),
    "grid": lambda: found_by(search.GridSearchCV(model(), {"hidden": [(4,), ()]}, cv=2)),
    "grid of pipeline": lambda: found_by(
        search.GridSearchCV(
            PIPE, {"pca__n_components": [3, 5], "graphclassifier__dropout": [0, 0.1]}, cv=2
        )
    ),
    "random search": lambda: found_by(
        search.RandomizedSearchCV(model(), {"lr": [0.01, 0.02]}, n_iter=2, cv=2), y=NAMES
    ),
    "halving": lambda: found_by(
        search.HalvingGridSearchCV(model(), {"batch": [20, 50]}, **HALVING)
    ),
    "nested": lambda: search.cross_val_score(
        search.GridSearchCV(model(), {"lr": [0.01, 0.02]}, cv=2), X, Y, cv=2
    ).mean(),
    "roc auc": lambda: mean(X, NAMES, scoring="roc_auc"),
    "several scores": lambda: search.cross_validate(
        model(), X3, Y3, cv=3, scoring=["f1_macro", "neg_log_loss"]
    )["test_f1_macro"].mean(),
    "groups": lambda: search.cross_val_score(
        model(), X, Y, cv=search.GroupKFold(2), groups=np.arange(200) % 4
    ).mean(),
    "predicted folds": lambda: metrics.accuracy_score(
        Y3, search.cross_val_predict(model(), X3, Y3, cv=3, method="predict_proba").argmax(axis=1)
    ),
    "calibration": lambda: accuracy(
        calibration.CalibratedClassifierCV(model(), cv=2, method="isotonic"), y=NAMES
    ),
    "calibration of a fitted one": lambda: accuracy(
        calibration.CalibratedClassifierCV(FrozenEstimator(model().fit(X, Y)))
    ),
    "stacking": lambda: accuracy(ensemble.StackingClassifier(BOTH, cv=2), y=NAMES),
    "voting": lambda: accuracy(ensemble.VotingClassifier(BOTH, voting="soft"), y=NAMES),
    "bagging": lambda: accuracy(
        ensemble.BaggingClassifier(model(), n_estimators=3, max_features=0.5, random_state=0)
    ),
    "boosting": lambda: accuracy(ensemble.AdaBoostClassifier(model(), n_estimators=2)),
    "one against the rest": lambda: accuracy(multiclass.OneVsRestClassifier(model()), X3, Y3),
    "one against one": lambda: accuracy(multiclass.OneVsOneClassifier(model()), X3, Y3),
    "several outputs": lambda: accuracy(
        multioutput.MultiOutputClassifier(model()), X3, two(Y3 == 0)
    ),
    "a chain": lambda: accuracy(multioutput.ClassifierChain(model()), X3, two(Y3 == 0)),
    "several labels": lambda: mean(X3[MIXED], np.eye(3, dtype=int)[Y3[MIXED]], scoring="f1_micro"),
    "text": lambda: accuracy(
        make_pipeline(TfidfVectorizer(), model(epochs=40)), TEXTS, [0, 0, 1, 1, 1, 1] * 3
    ),
    "columns": lambda: accuracy(make_pipeline(one_hot(), model()), X3, Y3),
    "chosen features": lambda: accuracy(
        make_pipeline(
            selection.SequentialFeatureSelector(model(), n_features_to_select=1, cv=2), model()
        ),
        X3,
        Y3,
    ),
    "self-training": lambda: SelfTrainingClassifier(model()).fit(X3, UNKNOWN).score(X3, Y3),
    "a threshold": lambda: accuracy(search.TunedThresholdClassifierCV(model(), cv=2)),
    "parts": in_parts,
    "lists": lambda: accuracy(model(), X3.tolist(), Y3.tolist()),
    "copies": lambda: pickle.loads(pickle.dumps(copy.deepcopy(model().fit(X, Y)))).score(X, Y),
    "permutations": lambda: search.permutation_test_score(model(), X3, Y3, cv=2, n_permutations=2)[
        0
    ],
    "learning curve": lambda: search.learning_curve(
        model(batch=5), X, Y, cv=2, train_sizes=[0.5, 1.0], exploit_incremental_learning=True
    )[2].mean(),
    "validation curve": lambda: search.validation_curve(
        model(), X, Y, param_name="epochs", param_range=[10, 20], cv=2
    )[1].mean(),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "transformed target": lambda: accuracy(
        TransformedTargetRegressor(regressor(), func=np.log, inverse_func=np.exp), XR, YR
    ),
    "stacking": lambda: accuracy(ensemble.StackingRegressor([("a", regressor())], cv=2), XR, YR),
    "voting": lambda: accuracy(ensemble.VotingRegressor([("a", regressor())]), XR, YR),
    "bagging": lambda: accuracy(
        ensemble.BaggingRegressor(regressor(), n_estimators=2, random_state=0), XR, YR
    ),
    "several outputs": lambda: accuracy(multioutput.MultiOutputRegressor(regressor()), XR, two(YR)),
    "a chain": lambda: accuracy(multioutput.RegressorChain(regressor()), XR, two(YR)),
}


@pytest.mark.one_in(8)
@pytest.mark.parametrize("use", CLASSIFIERS)
def test_a_use_of_the_classifier(use: str) -> None:
    assert CLASSIFIERS[use]() > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("use", REGRESSORS)
def test_a_use_of_the_regressor(use: str) -> None:
    assert REGRESSORS[use]() > 0.1


def test_inspection() -> None:
    found = model().fit(X3, Y3)
    importances = inspection.permutation_importance(found, X3, Y3, n_repeats=3, random_state=0)
    assert importances.importances_mean.argmax() in (2, 3)  # petals
    curve = inspection.partial_dependence(found, X3, [2], grid_resolution=5)["average"]
    assert curve.shape == (3, 5) and np.allclose(curve.sum(axis=0), 1)
    found = regressor().fit(XR, YR)
    curve = inspection.partial_dependence(found, XR, [2], grid_resolution=5)["average"][0]
    assert curve[-1] > curve[0]  # the body mass index


def test_weights_and_biases_are_those_of_the_layers() -> None:
    found = model(standardize=False).fit(X3, Y3)
    assert [w.shape for w in found.coefs_] == [(4, 8), (8, 3)]
    assert [b.shape for b in found.intercepts_] == [(8,), (3,)]
    (w1, w2), (b1, b2) = found.coefs_, found.intercepts_
    scores = np.maximum(X3 @ w1 + b1, 0) @ w2 + b2
    np.testing.assert_array_equal(scores.argmax(axis=1), found.predict(X3))
    assert found.loss_ == found.loss_curve_[-1]


def test_a_warm_start_begins_with_the_weights_of_the_fit_before() -> None:
    plain = model(lr=1e-30).fit(X3, Y3)
    warm = model(warm_start=True).fit(X3, Y3)
    chances = warm.predict_proba(X3)
    warm.set_params(lr=1e-30).fit(X3, Y3)
    np.testing.assert_allclose(warm.predict_proba(X3), chances, rtol=1e-6)
    assert np.abs(plain.predict_proba(X3) - chances).max() > 0.1
    with pytest.raises(ValueError, match=r"^warm_start: features, classes and layers must be"):
        warm.fit(X3[:, :3], Y3)
    assert warm.n_features_in_ == 4
    np.testing.assert_allclose(warm.predict_proba(X3), chances, rtol=1e-6)
