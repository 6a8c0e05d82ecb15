"""SweepSearchCV beside scikit-learn's GridSearchCV, which fits one estimator after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.model_selection import GridSearchCV, KFold, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

import graphc as gc
from graphc.sklearn import GraphClassifier, GraphRegressor, SweepSearchCV, estimator, together
from graphc.sklearn.rows import Rows

ROWS = np.random.default_rng(0)
X = ROWS.normal(size=(50, 3))
LABELS = (X @ [1.0, -2.0, 0.5] + ROWS.normal(size=50) > 0).astype(int)
TARGETS = X @ [1.0, -2.0, 0.5] + 0.1 * ROWS.normal(size=50)
OPTIONS: dict[str, Any] = {"batch": 16, "epochs": 4, "backend": "numpy", "random_state": 3}

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The executors that are trained alone, and not as members of a population."""
    trained: list[Any] = []
    original = together.train_alone

    def recorded(ex: Any, task: Any) -> None:
        trained.append(ex)
        original(ex, task)

    monkeypatch.setattr(estimator, "train_alone", recorded)
    return trained


def assert_equal_searches(
    model: Any, grid: Any, y: Any, alone: list[Any], cv: Any = 3, x: Any = X, **params: Any
) -> SweepSearchCV:
    """Assert that both searches find the same; only the refit is then trained alone."""
    options = {"cv": cv, "return_train_score": True}
    swept = SweepSearchCV(model, grid, **options).fit(x, y, **params)
    assert len(alone) == 1
    searched = GridSearchCV(model, grid, **options).fit(x, y, **params)
    assert swept.best_params_ == searched.best_params_
    assert swept.cv_results_.keys() == searched.cv_results_.keys()
    for name, values in searched.cv_results_.items():
        if "score" in name and "time" not in name:
            np.testing.assert_array_equal(swept.cv_results_[name], values)
    assert (swept.cv_results_["mean_fit_time"] > 0).all()
    np.testing.assert_array_equal(swept.predict(x), searched.predict(x))
    return swept


def test_scores_are_those_of_a_grid_search(
    alone: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, original = [], together.Population

    def made(plan: Any, seeds: Any) -> Any:
        sizes.append(len(seeds))
        return original(plan, seeds=seeds)

    monkeypatch.setattr(together, "Population", made)
    model = GraphClassifier((4,), **OPTIONS)
    grid = [
        {"lr": [0.01, 0.1], "epochs": [2, 5], "class_weight": [None, "balanced"]},
        {"hidden": [(3, 2)], "lr": [0.05], "weight_decay": [0.0, 0.1]},
        {"dropout": [0.5], "early_stopping": [True], "patience": [1], "epochs": [20]},
    ]
    assert_equal_searches(model, grid, LABELS, alone)
    assert sorted(sizes) == [3, 6, 24]


def test_native_code_finds_the_same(alone: list[Any]) -> None:
    model = GraphClassifier((4,), **OPTIONS | {"backend": None})
    grid = {"lr": [0.01, 0.1], "early_stopping": [False, True]}
    assert_equal_searches(model, grid, LABELS, alone)


def test_a_pipeline_and_weights_of_rows(alone: list[Any]) -> None:
    model = make_pipeline(MinMaxScaler(), GraphRegressor((4,), **OPTIONS))
    grid = {"graphregressor__lr": [0.01, 0.1], "minmaxscaler__feature_range": [(0, 1), (-1, 1)]}
    weight = np.linspace(0.5, 2, 50)
    splits = KFold(2, shuffle=True, random_state=0)
    assert_equal_searches(
        model, grid, TARGETS, alone, cv=splits, graphregressor__sample_weight=weight
    )


def test_ensembles_are_searched(alone: list[Any]) -> None:
    grid = {"ensemble": [1, 3], "lr": [0.1]}
    swept = SweepSearchCV(GraphRegressor((4,), **OPTIONS), grid, cv=2).fit(X, TARGETS)
    searched = GridSearchCV(GraphRegressor((4,), **OPTIONS), grid, cv=2).fit(X, TARGETS)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(swept.cv_results_[name], searched.cv_results_[name])


def test_generators_and_random_splits_are_drawn_once(alone: list[Any]) -> None:
    model = GraphClassifier((4,), **OPTIONS | {"random_state": None})
    splits = ShuffleSplit(2, random_state=np.random.RandomState(0))
    for cv in (splits, iter(list(KFold(2).split(X)))):
        alone.clear()
        search = SweepSearchCV(model, {"lr": [0.01, 0.1]}, cv=cv).fit(X, LABELS)
        assert len(alone) == 1
        assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_sparse_rows_are_trained_one_after_the_other() -> None:
    model, grid = GraphClassifier((4,), **OPTIONS), {"lr": [0.01, 0.1]}
    sparse = csr_array(np.where(X > 0, X, 0))
    swept = SweepSearchCV(model, grid, cv=2).fit(sparse, LABELS)
    searched = GridSearchCV(model, grid, cv=2).fit(sparse, LABELS)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(swept.cv_results_[name], searched.cv_results_[name])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("grid", [{"lr": [0.01, 1e300]}, {"hidden": [(4,), (0,), 7]}])
def test_a_candidate_that_fails_scores_nan(grid: dict[str, Any]) -> None:
    model = GraphRegressor((4,), **OPTIONS)
    swept = SweepSearchCV(model, grid, cv=2).fit(X, TARGETS)
    searched = GridSearchCV(model, grid, cv=2).fit(X, TARGETS)
    scores = swept.cv_results_["mean_test_score"]
    np.testing.assert_array_equal(scores, searched.cv_results_["mean_test_score"])
    assert np.isnan(scores).tolist() == [False] + [True] * (len(scores) - 1)
    with pytest.raises(Exception, match=r"hidden|units|lr|inf|finite|positive"):
        SweepSearchCV(model, grid, cv=2, error_score="raise").fit(X, TARGETS)


def test_jobs_are_not_used() -> None:
    model, grid = GraphClassifier((4,), **OPTIONS), {"lr": [0.01, 0.1]}
    one = SweepSearchCV(model, grid, cv=2).fit(X, LABELS)
    two = SweepSearchCV(model, grid, cv=2, n_jobs=2).fit(X, LABELS)
    np.testing.assert_array_equal(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )


def test_rows_of_a_fold_are_checked_once_and_predicted_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []

    def counted(owner: Any, name: str) -> None:
        original = getattr(owner, name)
        monkeypatch.setattr(
            owner, name, lambda *args, **more: (calls.append(name), original(*args, **more))[1]
        )

    counted(GraphClassifier, "_rows")
    counted(together.Population, "predict")
    grid = {"lr": [0.01, 0.1], "weight_decay": [0.0, 0.1], "ensemble": [1, 2]}
    SweepSearchCV(GraphClassifier((4,), **OPTIONS), grid, cv=3, refit=False).fit(X, LABELS)
    assert sorted(calls) == ["_rows"] * 3 + ["predict"] * 3
    # Other weights of classes are other data.
    calls.clear()
    grid = {"class_weight": [None, "balanced", {0: 2.0}]}
    SweepSearchCV(GraphClassifier((4,), **OPTIONS), grid, cv=3, refit=False).fit(X, LABELS)
    assert calls.count("_rows") == 3 + 3 + 6


def test_trainings_that_differ_in_one_thing_are_not_taken_for_each_other() -> None:
    def rows() -> Rows:
        return Rows(X, LABELS, np.ones(50))

    choice = together.NetChoice(dict, 3, 2, "y", gc.Adam(0.1), 16, 1, "numpy", False)  # type: ignore[arg-type]
    stopping = gc.EarlyStopping(5, watch="loss")
    base = together.Training(choice, rows(), None, 16, (1, 2), 4, stopping, False)
    others = [
        *(
            replace(base, choice=replace(choice, **{name: other}))
            for name, other in {
                "declare": list, "features": 4, "units": 3, "output": "z", "batch": 17,
                "optimizer": gc.Adam(0.2), "threads": 2, "backend": "native", "own": True,
            }.items()
        ),
        replace(base, rows=rows()),
        replace(base, held=rows()),
        replace(base, batch=17),
        replace(base, seeds=(1, 3)),
        replace(base, seeds=(1, 2, 3)),
        replace(base, epochs=5),
        replace(base, random=True),
        replace(base, stopping=gc.EarlyStopping(6, watch="loss")),
        replace(base, stopping=gc.EarlyStopping(5, watch="val_loss")),
        replace(base, stopping=gc.EarlyStopping(5, watch="loss", least=0.1)),
    ]  # fmt: skip
    assert replace(base).key == base.key
    assert len({base.key, *(other.key for other in others)}) == 1 + len(others)
