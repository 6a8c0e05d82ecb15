"""The table of backends: here alone a backend is named outside its own folder."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from graphc.backends.backend import Backend

BACKENDS = ("native", "numpy")
"""The names of all backends, the one to be preferred first; each is a folder of that name."""
PORTABLE = "numpy"
"""The backend that is available everywhere."""


@cache
def backend(name: str) -> Backend:
    """Return the backend of that name."""
    found: Backend = import_module(f"graphc.backends.{name}.backend").BACKEND
    return found
