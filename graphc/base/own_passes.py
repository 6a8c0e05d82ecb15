"""The package `passes` of this distribution, and not another of that name."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from graphc.base.errors import GraphError


def own_passes() -> ModuleType:
    """Return the `passes` package beside graphc; raise GraphError if the import finds another."""
    passes = importlib.import_module("passes")
    home = Path(__file__).resolve().parents[2] / "passes"
    found = getattr(passes, "__file__", None) or next(iter(getattr(passes, "__path__", [])), "")
    if Path(found).resolve().parent == home:
        return passes
    raise GraphError(
        f"{found} hides graphc's own package 'passes'", hint="rename it: graphc imports that name"
    )
