"""Checks of arguments: the options that a function takes, whole numbers, finite numbers.

Errors say what is taken; some say what other libraries' options are called here.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields
from functools import wraps
from numbers import Real
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import GraphError, shown

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def takes(example: str, **hints: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes a wrong argument a GraphError, with an example of a call.

    `hints` maps options of other libraries to what to write in graphc instead.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        """Return the function, whose misfit calls raise GraphError."""
        function = getattr(function, "__wrapped__", function)  # of a decorator that says less

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise  # from inside the function
                raise _misfit(function, kwargs, str(error), example, hints) from None

        return call

    return decorate


def options(example: str, **hints: str) -> Callable[[C], C]:
    """Return the decorator `takes` for a class and the arguments of its `__init__`."""

    def decorate(made: C) -> C:
        made.__init__ = takes(example, **hints)(made.__init__)  # type: ignore[misc]
        return made

    return decorate


def takes_one(function: Callable[..., object]) -> bool:
    """Return whether a user's function can be called with one argument; True if unknown."""
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


def _misfit(
    function: Callable[..., object],
    given: Mapping[str, object],
    problem: str,
    example: str,
    hints: Mapping[str, str],
) -> GraphError:
    """Return the error for arguments that the signature of a function does not take."""
    called = function.__qualname__.removesuffix(".__init__").rstrip("_")
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    odd = next((name for name in given if name not in known), None)
    if odd is None:
        _, _, rest = problem.partition("() ")
        return GraphError(f"{called}: {rest}", hint=example)
    from graphc.base.door import ask  # mistakes alone need it

    hint = hints.get(odd) or ask("option hint", odd, known)
    return GraphError(f"{called} has no option {odd!r}", hint=hint or f"it has {', '.join(known)}")


def plain(number: Any) -> Any:
    """Return an integer of any library as an int, and anything else unchanged."""
    if type(number) is int or isinstance(number, bool) or not hasattr(number, "__index__"):
        return number  # isinstance(number, SupportsIndex) would take ten times as long
    try:
        return number.__index__()
    except TypeError:  # an array of several elements
        return number


def is_whole(number: object) -> bool:
    """Return whether a number is an int of any kind, and no bool."""
    return isinstance(number, int) and not isinstance(number, bool)


def whole(given: Any, least: int | None = None) -> int | None:
    """Return an integer of at least `least` as an int, or None for anything else."""
    number = plain(given)
    if type(number) is not int or (least is not None and number < least):
        return None
    return number


def array_of(what: str, given: Any, error: type[GraphError] = GraphError) -> NDArray[Any]:
    """Return what was given as an array; raise `error` if the library it is of refuses.

    Raise ValueError for nested lists of different lengths.
    """
    try:
        return np.asarray(given)
    except (TypeError, RuntimeError) as refusal:
        raise error(
            f"{what} cannot be read as an array: {str(refusal).strip().partition(chr(10))[0]}",
            hint="give numbers in memory; of PyTorch x.detach().cpu(), with .float() if "
            "it is bfloat16 and .to_dense() if it is sparse",
        ) from None


def checked_whole(
    what: str,
    given: Any,
    least: int | None = 1,
    *,
    hint: str = "",
    error: type[GraphError] = GraphError,
) -> int:
    """Return an integer of at least `least` as an int; raise `error` for anything else."""
    number = whole(given, least)
    if number is None:
        start = "" if least is None else f" from {least} up"
        raise error(f"{what} is {shown(given)}, it must be a whole number{start}", hint=hint)
    return number


def checked_number(
    what: str,
    given: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    hint: str = "",
    error: type[GraphError] = GraphError,
) -> float:
    """Return a finite number in a range as a float; raise `error` for anything else.

    It must be above `above`, at least `least`, below `below` and at most `most`.
    """
    number = finite(given)
    if number is None or not (above < number < below and least <= number <= most):
        wanted = _range_text(above, least, below, most)
        raise error(f"{what} is {given!r}, it must be {wanted}", hint=hint)
    return number


def check_choice(what: str, given: Any, choices: Collection[str], *, hint: str = "") -> None:
    """Raise GraphError, at the user's line, unless a word is one of several."""
    if given not in choices:
        raise GraphError(f"{what} {given!r} is not one of {', '.join(choices)}", hint=hint)


def checked_real(what: str, given: Any) -> float:
    """Return a number, which may be infinite or NaN, as a float; raise GraphError otherwise."""
    number = _real(given)
    if number is None:
        raise GraphError(f"{what} is {given!r}, it must be a number")
    return float(number)


def _range_text(above: float, least: float, below: float, most: float) -> str:
    """Return a range in words: "above 0", "0 or more", "from 0 to below 1"."""
    end = f"below {below:g}" if below < math.inf else f"{most:g}" if most < math.inf else ""
    if above > -math.inf:
        end = f"at most {end}" if most < math.inf else end
        return f"above {above:g} and {end}" if end else f"above {above:g}"
    if least > -math.inf:
        return f"from {least:g} to {end}" if end else f"{least:g} or more"
    return "a finite number"


def listed(given: Any) -> tuple[Any, ...] | None:
    """Return the members of a list, tuple or array, integers as ints; None for anything else."""
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
    real = _real(given)
    if real is None:
        return None
    try:
        number = float(real)
    except OverflowError:  # a whole number larger than any float
        return None
    return number if math.isfinite(number) else None


def _real(given: Any) -> Real | int | float | None:
    """Return a number of any library, or an array of one without axes; None for anything else."""
    number = plain(given)
    if isinstance(number, Real) and not isinstance(number, bool):
        return number
    if isinstance(given, np.ndarray) and given.ndim == 0 and given.dtype.kind == "f":
        return float(given)
    return None


def lost_in(dtype: Any, number: float) -> str:
    """Return "infinite" or "0" if a number overflows or underflows in a float dtype, or else ""."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.dtype(dtype).type(number)
    if not np.isfinite(held):
        return "infinite"
    return "0" if held == 0 and number != 0 else ""


def call_text(made: object) -> str:
    """Return the call that makes an object: SGD(lr=0.1, momentum=0.9), keyword-only fields last."""
    of_all = fields(made)  # type: ignore[arg-type]
    given = (
        f"{field.name}={value.item() if isinstance(value, np.generic) else value!r}"
        for field in sorted(of_all, key=lambda field: field.kw_only is True)
        if (value := getattr(made, field.name)) != field.default
    )
    return f"{type(made).__name__}({', '.join(given)})"


def is_power_of_two(number: int) -> bool:
    """Return whether the number is 1, 2, 4, 8, ..."""
    return number > 0 and number & (number - 1) == 0
