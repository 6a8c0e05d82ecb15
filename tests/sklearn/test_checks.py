"""scikit-learn's own checks of estimators, all of them, on both backends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from graphc.sklearn import GraphClassifier, GraphRegressor, SweepSearchCV

ESTIMATORS = (GraphClassifier, GraphRegressor)


@pytest.mark.one_in(60)
@parametrize_with_checks([kind() for kind in ESTIMATORS])
@pytest.mark.filterwarnings("ignore")
def test_check(estimator: Any, check: Callable[[Any], None]) -> None:
    """On the backend that is used by default."""
    check(estimator)


@pytest.mark.slow
@pytest.mark.needs("native")
@parametrize_with_checks([kind(backend="numpy") for kind in ESTIMATORS])
@pytest.mark.filterwarnings("ignore")
def test_check_on_numpy(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


SEARCHES = [
    SweepSearchCV(kind(epochs=9, random_state=0), {"lr": [1e-3, 1e-2]}, cv=2) for kind in ESTIMATORS
]
ENSEMBLES = [kind(epochs=50, ensemble=2) for kind in ESTIMATORS]
OF_EVERY_SEARCH = {
    "check_classifiers_one_label_sample_weights": "no split has two classes, whatever the search"
}


@pytest.mark.slow
@pytest.mark.one_in(8)
@parametrize_with_checks(
    [*SEARCHES, *ENSEMBLES],
    expected_failed_checks=lambda made: OF_EVERY_SEARCH if hasattr(made, "cv") else {},
)
@pytest.mark.filterwarnings("ignore")
def test_check_of_several_nets(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


ARRAY_API = """
from sklearn.utils.estimator_checks import estimator_checks_generator
from graphc.sklearn import GraphClassifier, GraphRegressor
for kind in GraphClassifier, GraphRegressor:
    for estimator, check in estimator_checks_generator(kind()):
        if "array_api" in str(check):
            check(estimator)
            print("checked", kind.__name__)
"""


@pytest.mark.slow
def test_checks_that_need_a_process_of_their_own() -> None:
    """Those that are skipped where SciPy was imported without SCIPY_ARRAY_API."""
    done = subprocess.run(
        [sys.executable, "-c", ARRAY_API],
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
        capture_output=True,
        text=True,
    )
    wanted = [
        f"checked {kind.__name__}"
        for kind in ESTIMATORS
        for _, check in estimator_checks_generator(kind())
        if "array_api" in str(check)
    ]
    assert done.stdout.splitlines() == wanted, done.stderr
    assert done.returncode == 0, done.stderr
