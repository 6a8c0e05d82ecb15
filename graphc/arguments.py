"""Arguments that a function does not take, told as other mistakes are: with what it does take.

Functions have this where other libraries call an option something else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import ParamSpec, TypeVar

from graphc.errors import GraphError
from graphc.loc import caller_loc

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type)


def takes(example: str, **elsewhere: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function tell what arguments it takes, by an example of a call.

    `elsewhere` says how to do here what options of these names do in other libraries.
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
    """The same for a class and what it is made with."""

    def decorate(made: C) -> C:
        made.__init__ = takes(example, **elsewhere)(made.__init__)  # type: ignore[misc]
        return made

    return decorate


def takes_one(function: Callable[..., object]) -> bool:
    """Whether a function of the user's can be called with one argument, as far as one can see."""
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
