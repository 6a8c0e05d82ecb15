"""Checks that a value which was read has the declared type of its field."""

from __future__ import annotations

import math
import types
from functools import lru_cache
from typing import Any, Union, get_args, get_origin, get_type_hints


def misfit(cls: type, name: str, value: Any) -> str | None:
    """Return what is wrong with a field's value, in words; None if it fits."""
    hint = _hints(cls).get(name, Any)
    if _fits(value, hint):
        return None
    wanted = getattr(hint, "__name__", str(hint)) if get_origin(hint) is None else str(hint)
    return f"{cls.__name__}: {name} is {str(value)[:40]!r}, not of type {wanted}"


@lru_cache(maxsize=1024)
def _hints(cls: type) -> dict[str, Any]:
    """Return the declared types of a class, or none if they cannot be resolved."""
    try:
        return get_type_hints(cls)
    except (NameError, TypeError, AttributeError):  # names that only type checkers know
        return {}


def _fits(value: Any, hint: Any) -> bool:
    if hint is Any:
        return True
    if isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return any(_fits(value, one) for one in get_args(hint))
    if hint is None or hint is type(None):
        return value is None
    if hint is float:
        return type(value) in (int, float) and _is_number(value)
    if hint in (int, bool, str, bytes):
        return type(value) is hint
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and _fit(value, get_args(hint))
    if isinstance(hint, type) and not issubclass(hint, tuple):
        return isinstance(value, hint)
    return True


def _is_number(value: float) -> bool:
    """Return whether it is neither NaN nor a whole number beyond all floats."""
    try:
        return not math.isnan(value)
    except OverflowError:
        return False


def _fit(values: tuple[Any, ...], hints: tuple[Any, ...]) -> bool:
    if len(hints) == 2 and hints[1] is Ellipsis:
        return all(_fits(value, hints[0]) for value in values)
    return len(values) == len(hints) and all(map(_fits, values, hints))
