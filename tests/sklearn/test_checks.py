"""scikit-learn's own checks of estimators, all of them, on both backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from graphc.backends.native.target import available
from graphc.sklearn import GraphClassifier, GraphRegressor

BACKENDS = ["numpy"] if available() is not None else ["numpy", "native"]


@parametrize_with_checks(
    [kind(backend=backend) for kind in (GraphClassifier, GraphRegressor) for backend in BACKENDS]
)
@pytest.mark.filterwarnings("ignore")
def test_check(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)
