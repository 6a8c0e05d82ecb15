"""These tests need scikit-learn."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("sklearn") else ["test_*.py"]
