"""A search over several processes shares the cores between them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from graphc.base.usable_cores import cores, thread_count
from graphc.sklearn import GraphClassifier

pytestmark = pytest.mark.needs("native")


class CountsThreads(GraphClassifier):
    """Writes down how many threads its process has for running programs."""

    def __init__(self, folder: str = "", epochs: int = 2) -> None:
        super().__init__(hidden=(4,), epochs=epochs, backend="native", random_state=0)
        self.folder = folder

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> CountsThreads:
        super().fit(X, y)
        (Path(self.folder) / str(os.getpid())).write_text(str(thread_count(self.threads)))
        return self


@pytest.mark.slow
def test_two_jobs_use_no_more_threads_than_cores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)).astype(np.float32), np.arange(60) % 3
    model = CountsThreads(str(tmp_path))
    GridSearchCV(model, {"epochs": [1, 2]}, cv=2, n_jobs=2, refit=False).fit(x, y)
    counts = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert set(counts) == {1}
    model.fit(x, y)  # alone it may use them all
    assert int((tmp_path / str(os.getpid())).read_text()) == cores()
