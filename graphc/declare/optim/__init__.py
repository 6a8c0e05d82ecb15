"""Optimizers, one family a file; `Optimizer` is their common base.

All files are imported when an optimizer is first asked for by name.  `graphc` exports the names in
`__all__` of each file.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

from graphc.declare.optim.optimizer import Group, Optimizer

if TYPE_CHECKING:
    from graphc.declare.optim.adam import *
    from graphc.declare.optim.adaptive import *
    from graphc.declare.optim.rule import *
    from graphc.declare.optim.sgd import *

__all__ = ["Group", "Optimizer"]


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in every_kind():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return every_kind()[name]


@cache
def every_kind() -> dict[str, type[Any]]:
    """Return all optimizers, and `Group`, by name."""
    files = [
        importlib.import_module(f"{__name__}.{f.name}") for f in pkgutil.iter_modules(__path__)
    ]
    return {name: getattr(file, name) for file in files for name in getattr(file, "__all__", ())}
