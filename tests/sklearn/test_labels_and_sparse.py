"""Rows with several labels, and sparse features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn.metrics import f1_score

from graphc.sklearn import GraphClassifier, GraphRegressor

pytestmark = pytest.mark.filterwarnings("ignore:training did not converge")


def _counts(rows: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Counts of words, most of which are 0, and classes."""
    rng = np.random.default_rng(0)
    x = rng.poisson(0.2, size=(rows, 30)).astype(float)
    return x, (x[:, :5].sum(axis=1) > x[:, 5:10].sum(axis=1)).astype(int)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_sparse_features_give_the_bits_of_dense_ones(kind: Any) -> None:
    x, y = _counts()
    weight = np.linspace(0.0, 2.0, len(y))
    options = {"hidden": (4,), "epochs": 3, "batch": 32, "random_state": 0, "backend": "numpy"}
    options |= {"early_stopping": True, "validation_fraction": 0.2}
    model = GraphClassifier(**options).fit(x, y, sample_weight=weight)
    other = GraphClassifier(**options).fit(kind(x), y, sample_weight=weight)
    assert other.predict_proba(kind(x)).tobytes() == model.predict_proba(x).tobytes()
    assert other.predict_proba(x).tobytes() == model.predict_proba(x).tobytes()
    assert other.history_.val_loss == model.history_.val_loss


def test_only_a_batch_of_sparse_features_is_ever_dense() -> None:
    """Rows are so wide that predictions, too, take fewer than a batch at a time."""
    at = np.arange(400)
    x = sparse.csr_array((np.ones(400, np.float32), (at, at % 7)), (400, 24_000))
    dense = []
    toarray = sparse.csr_array.toarray

    def counted(self: Any, *args: Any) -> Any:
        dense.append(self.shape[0])
        return toarray(self, *args)

    options = {"hidden": (2,), "epochs": 1, "batch": 50, "backend": "numpy"}
    model = GraphRegressor(**options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse.csr_array, "toarray", counted)
        found = model.fit(x, at % 7).predict(x)
    assert found.shape == (400,) and max(dense) == 50


def _labelled() -> tuple[np.ndarray, np.ndarray]:
    """Four labels, each on one side of a plane."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((300, 12))
    return x, (x @ rng.standard_normal((12, 4)) > 0).astype(int)


def test_several_labels_a_row() -> None:
    x, y = _labelled()
    model = GraphClassifier((30,), epochs=60, lr=0.02, random_state=0).fit(x[:200], y[:200])
    chances, found = model.predict_proba(x[200:]), model.predict(x[200:])
    assert chances.shape == found.shape == (100, 4) and model.classes_.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found, chances > 0.5)
    assert f1_score(y[200:], found, average="micro") > 0.75
    np.testing.assert_allclose(model.predict_log_proba(x[200:]), np.log(chances))
    assert np.ptp(chances.sum(axis=1)) > 0.5  # they do not exclude each other


def test_the_loss_of_several_labels_is_the_cross_entropy_of_sigmoid() -> None:
    x, y = _labelled()
    options = {"hidden": (5,), "epochs": 1, "batch": 300, "backend": "numpy", "random_state": 0}
    before = GraphClassifier(**options, lr=1e-30).fit(x, y)
    p = before.predict_proba(x)
    wanted = -np.where(y, np.log(p), np.log(1 - p)).mean()
    np.testing.assert_allclose(before.loss_curve_, [wanted])


def test_several_labels_by_partial_fit_and_as_a_sparse_matrix() -> None:
    x, y = _labelled()
    options = {"hidden": (5,), "epochs": 2, "backend": "numpy", "random_state": 0}
    whole = GraphClassifier(**options).fit(x, sparse.csr_array(y))
    parts = GraphClassifier(**options)
    for _ in range(2):
        parts.partial_fit(x, y)
    assert parts.predict_proba(x).tobytes() == whole.predict_proba(x).tobytes()
    with pytest.raises(ValueError, match=r"^y has 3 labels a row, there are 4$"):
        parts.partial_fit(x, y[:, :3])
    with pytest.raises(ValueError, match=r"^y has shape \(300,\), unlike that of the first call$"):
        parts.partial_fit(x, y[:, 0])
    with pytest.raises(ValueError, match=r"^class_weight is for classes of which a row has one"):
        GraphClassifier(class_weight="balanced").fit(x, y)
    with pytest.raises(ValueError, match=r"several labels a row must be 0 or 1$"):
        GraphClassifier().fit(x, y + y[:, ::-1])
    with pytest.raises(ValueError, match=r"several labels a row must be 0 or 1$"):
        GraphClassifier().fit(x, 2 * y)


def test_logarithms_of_probabilities_stay_finite() -> None:
    x, y = _counts()
    model = GraphClassifier((4,), epochs=1, random_state=0, backend="numpy").fit(x, y)
    np.testing.assert_allclose(model.predict_log_proba(x), np.log(model.predict_proba(x)))
    assert np.isfinite(model.predict_log_proba(x * 1e6)).all()
