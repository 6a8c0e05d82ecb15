"""The choice of the backend that a plan is made for."""

from __future__ import annotations

import os
import warnings
from functools import lru_cache

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc

BACKENDS = ("native", "numpy")


def chosen_backend(asked: str | None) -> str:
    """Return the backend asked for, else that of GRAPHC_BACKEND, else native if available.

    Warn and return "numpy" if native is not available.  Raise GraphError if the name is not a
    backend's, or if it is native and native is not available on this machine.
    """
    if asked is not None:
        return _checked(asked, f"there is no backend {asked!r}")
    forced = os.environ.get("GRAPHC_BACKEND", "").strip()
    if forced:
        return _checked(forced, f"GRAPHC_BACKEND is {forced!r}, which is not a backend")
    reason = _why_not_native()
    if reason is None:
        return "native"
    _warn(reason)
    return "numpy"


def _checked(name: str, complaint: str) -> str:
    if name not in BACKENDS:
        raise GraphError(complaint, loc=caller_loc(), hint='there are "native" and "numpy"')
    reason = _why_not_native() if name == "native" else None
    if reason is not None:
        raise GraphError(
            f"there is no native backend here: {reason}",
            loc=caller_loc(),
            hint='leave backend out, or ask for "numpy"',
        )
    return name


@lru_cache
def _why_not_native() -> str | None:
    from graphc.backends.native.target import available

    return available()


@lru_cache
def _warn(reason: str) -> None:
    """Warn, once per process, that plans run on NumPy and why."""
    warnings.warn(f"graphc runs on NumPy: {reason}", RuntimeWarning, stacklevel=4)
