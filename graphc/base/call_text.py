"""The text of a frozen dataclass as the call that makes it, without fields at their defaults."""

from __future__ import annotations

from dataclasses import fields

import numpy as np


def call_text(made: object) -> str:
    """Return such as SGD(lr=0.1, momentum=0.9), keyword-only fields last."""
    of_all = fields(made)  # type: ignore[arg-type]
    given = (
        f"{field.name}={_plain(value)!r}"
        for field in sorted(of_all, key=lambda field: field.kw_only is True)
        if (value := getattr(made, field.name)) != field.default
    )
    return f"{type(made).__name__}({', '.join(given)})"


def _plain(value: object) -> object:
    """Return a NumPy number as Python's, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
