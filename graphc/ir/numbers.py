"""Checks of numbers that users give: whole numbers of any library, floats that a dtype can hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.tensor_type import plain


def whole(given: Any, least: int | None = None) -> int | None:
    """Return a whole number from `least` up as Python's own int; None for anything else."""
    number = plain(given)
    if type(number) is not int or (least is not None and number < least):
        return None
    return number


def checked_whole(
    what: str,
    given: Any,
    least: int | None = 1,
    *,
    hint: str = "",
    error: type[GraphError] = GraphError,
) -> int:
    """Return `given` as an int; raise `error`, at the user's line, if it is not such a number."""
    number = whole(given, least)
    if number is None:
        start = "" if least is None else f" from {least} up"
        raise error(
            f"{what} is {given!r}, it must be a whole number{start}", loc=caller_loc(), hint=hint
        )
    return number


def listed(given: Any) -> tuple[Any, ...] | None:
    """Return the members of a list, a tuple or an array, whole numbers as ints; None otherwise."""
    if isinstance(given, np.ndarray) and given.ndim:
        return tuple(given.tolist())
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(map(plain, given))
    return None


def sizes_of(shape: Any) -> tuple[Any, ...]:
    """Return the sizes of a shape; one number alone is a shape of one."""
    several = listed(shape)
    return (plain(shape),) if several is None else several


def finite(given: Any) -> float | None:
    """Return a finite number of any library as Python's own float; None for anything else."""
    if not isinstance(given, Real) or isinstance(given, bool):
        return None
    try:
        number = float(given)
    except OverflowError:  # a whole number larger than any float
        return None
    return number if math.isfinite(number) else None


def lost_in(dtype: Any, number: float) -> str:
    """Return what a finite number would become in a float dtype that cannot hold it, or ""."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.dtype(dtype).type(number)
    if not np.isfinite(held):
        return "infinite"
    return "0" if held == 0 and number != 0 else ""
