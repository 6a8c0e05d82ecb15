"""Optimizers, one family a file; `Optimizer` is their common base.

A family is imported when first used: most programs use one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graphc.declare.optim.optimizer import Group, Optimizer

if TYPE_CHECKING:
    from graphc.declare.optim.adagrad import Adadelta, Adagrad, RMSprop
    from graphc.declare.optim.adam import Adam, Adamax, AdamW, Lion, NAdam
    from graphc.declare.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Group",
    "Lion",
    "NAdam",
    "Optimizer",
    "RMSprop",
]

_FILES = {
    "SGD": "sgd",
    "Adadelta": "adagrad",
    "Adagrad": "adagrad",
    "Adam": "adam",
    "AdamW": "adam",
    "Adamax": "adam",
    "Lion": "adam",
    "NAdam": "adam",
    "RMSprop": "adagrad",
}
"""The file of each optimizer."""


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_FILES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value


def every_kind() -> dict[str, type[Any]]:
    """Return all optimizers, and `Group`, by name."""
    return {name: globals().get(name) or __getattr__(name) for name in __all__}
