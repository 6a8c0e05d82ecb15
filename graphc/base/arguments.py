"""Errors for arguments that a function does not take, which say what it does take.

They serve functions for whose options other libraries have other names.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def takes(example: str, **elsewhere: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that makes a wrong argument a GraphError, with an example of a call.

    `elsewhere` maps options of other libraries to what to write in graphc instead.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                    raise  # from inside the function
                raise _misfit(function, kwargs, str(error), example, elsewhere) from None

        return call

    return decorate


def options(example: str, **elsewhere: str) -> Callable[[C], C]:
    """Return the same decorator for a class and the arguments that it is made with."""

    def decorate(made: C) -> C:
        made.__init__ = takes(example, **elsewhere)(made.__init__)  # type: ignore[misc]
        return made

    return decorate


def takes_one(function: Callable[..., object]) -> bool:
    """Return whether a user's function can be called with one argument, as far as can be seen."""
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
    elsewhere: Mapping[str, str],
) -> GraphError:
    from difflib import get_close_matches

    called = function.__qualname__.removesuffix(".__init__").rstrip("_")
    known = [name for name in inspect.signature(function).parameters if name != "self"]
    odd = next((name for name in given if name not in known), None)
    if odd is None:
        _, _, rest = problem.partition("() ")
        return GraphError(f"{called}: {rest}", loc=caller_loc(), hint=example)
    close = get_close_matches(odd, known, n=1, cutoff=0.75)
    hint = elsewhere.get(odd) or (f"did you mean {close[0]}=?" if close else "")
    return GraphError(
        f"{called} has no option {odd!r}",
        loc=caller_loc(),
        hint=hint or f"it has {', '.join(known)}",
    )
