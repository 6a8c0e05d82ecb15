"""A cache of objects that is nobody's, and more threads than this machine may have cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from graphc.backends.native import libraries, pool
from tests.backends.native.shared_runs import shared_runs
from tests.extras import needs


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for compiled objects; the folder does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GRAPHC_CACHE", str(folder))
    # What nobody uses is forgotten at once.
    monkeypatch.setattr(libraries, "_recent", deque(maxlen=0))
    return folder


@pytest.fixture
def four_threads() -> Iterator[pool.Pool]:
    """The pool of a machine with four cores, where every run is shared."""
    needs("native")
    with shared_runs(4) as workers:
        yield workers
