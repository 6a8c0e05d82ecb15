"""The table of backends, and the choice of one: only here a backend is named outside its folder."""

from __future__ import annotations

import os
import warnings
from functools import cache, lru_cache
from importlib import import_module

from graphc.backends.backend import Backend
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc

BACKENDS = ("native", "numpy")
"""The names of all backends, the preferred one first; each is a folder of that name."""
PORTABLE = "numpy"
"""The backend that is available everywhere."""


@cache
def backend(name: str) -> Backend:
    """Return the backend of that name."""
    found: Backend = import_module(f"graphc.backends.{name}.backend").BACKEND
    return found


def chosen_backend(asked: str | None) -> str:
    """Return the backend asked for, else that of GRAPHC_BACKEND, else the first that is available.

    Warn if that is not the one to be preferred.  Raise GraphError if the name is not a backend's,
    or if the backend is not available on this machine.
    """
    if asked is not None:
        return _checked(asked, f"there is no backend {asked!r}")
    forced = os.environ.get("GRAPHC_BACKEND", "").strip()
    if forced:
        return _checked(forced, f"GRAPHC_BACKEND is {forced!r}, which is not a backend")
    preferred = BACKENDS[0]
    reason = _missing(preferred)
    if reason is None:
        return preferred
    _warn(reason)
    return PORTABLE


def kept_backend(name: str) -> str:
    """Return the backend of a saved plan; if that is the preferred one, choose anew here."""
    return chosen_backend(None if name == BACKENDS[0] or name not in BACKENDS else name)


def _checked(name: str, complaint: str) -> str:
    if name not in BACKENDS:
        there = " and ".join(f'"{known}"' for known in BACKENDS)
        raise GraphError(complaint, loc=caller_loc(), hint=f"there are {there}")
    reason = _missing(name)
    if reason is not None:
        raise GraphError(
            f"there is no {name} backend here: {reason}",
            loc=caller_loc(),
            hint=f'leave backend out, or ask for "{PORTABLE}"',
        )
    return name


@lru_cache
def _missing(name: str) -> str | None:
    return backend(name).missing()


@lru_cache
def _warn(reason: str) -> None:
    """Warn, once per process, that plans run on NumPy and why."""
    warnings.warn(f"graphc runs on NumPy: {reason}", RuntimeWarning, stacklevel=4)
