"""Estimators for scikit-learn, `GraphClassifier` and `GraphRegressor`, and `SweepSearchCV`."""

from __future__ import annotations

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError:
    raise ImportError(
        "graphc.sklearn needs scikit-learn, which is not installed: "
        "pip install 'graphc-nn[sklearn]'"
    ) from None

from graphc.sklearn.models import GraphClassifier, GraphRegressor
from graphc.sklearn.search import SweepSearchCV

__all__ = ["GraphClassifier", "GraphRegressor", "SweepSearchCV"]
