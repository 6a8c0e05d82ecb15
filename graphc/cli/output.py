"""The JSON output of commands, for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def print_json(found: Mapping[str, Any]) -> None:
    """Print one JSON object, a line for each of its keys.

    Numbers that are not finite, which JSON does not have, are null.
    """
    lines = (f"{json.dumps(key)}: {_text(value)}" for key, value in found.items())
    print("{" + ",\n ".join(lines) + "}")


def _text(value: Any) -> str:
    return json.dumps(_plain(value), allow_nan=False)


def _plain(value: Any) -> Any:
    """Return the value in types that JSON has."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
