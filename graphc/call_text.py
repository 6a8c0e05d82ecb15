"""The text of a frozen description: the call that makes it, without what is so by default."""

from __future__ import annotations

from dataclasses import fields

import numpy as np


def call_text(made: object) -> str:
    """Such as SGD(lr=0.1, momentum=0.9); what is given by name alone comes last."""
    of_all = fields(made)  # type: ignore[arg-type]
    given = (
        f"{field.name}={_plain(value)!r}"
        for field in sorted(of_all, key=lambda field: field.kw_only is True)
        if (value := getattr(made, field.name)) != field.default
    )
    return f"{type(made).__name__}({', '.join(given)})"


def _plain(value: object) -> object:
    """NumPy's numbers as Python's; others as they are."""
    return value.item() if isinstance(value, np.generic) else value
