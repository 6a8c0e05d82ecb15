"""Estimators, which need scikit-learn."""

from tests.extras import needs

needs("sklearn")
