"""A search over several processes shares the cores between them."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV

from graphc.backends.native.target import available
from graphc.backends.native.usable_cores import cores
from graphc.sklearn import GraphClassifier

pytestmark = [
    pytest.mark.skipif(available() is not None, reason="no native backend here"),
    pytest.mark.skipif(cores() < 2, reason="one core"),
]


class CountsThreads(GraphClassifier):
    """Writes down how many threads its process has for running programs."""

    def __init__(self, folder: str = "", epochs: int = 2) -> None:
        super().__init__(hidden=(512, 512), epochs=epochs, backend="native", random_state=0)
        self.folder = folder

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> CountsThreads:
        super().fit(X, y)
        (Path(self.folder) / threads_file()).write_text(str(running()))
        return self


def threads_file() -> str:
    return str(os.getpid())


def running() -> int:
    """The caller and graphc's workers."""
    return 1 + sum(thread.name.startswith("graphc-") for thread in threading.enumerate())


def test_two_jobs_use_no_more_threads_than_cores(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 256)).astype(np.float32), np.arange(600) % 3
    model = CountsThreads(str(tmp_path))
    GridSearchCV(model, {"epochs": [1, 2]}, cv=4, n_jobs=2, refit=False).fit(x, y)
    counts = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert len(counts) <= 2 and sum(counts) <= cores()
    model.fit(x, y)  # alone it would use them all
    assert int((tmp_path / threads_file()).read_text()) == cores()
