"""Many quick cases of a parameter as one test: an item of pytest takes longer than most of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import pytest

Test = Callable[..., None]


def together(names: str, cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Return a decorator for a test that runs all cases, as `parametrize` would one by one.

    `names` are the parameter's, with commas between them.  Every case is run, whichever fail, and a
    failure has its case as a note.
    """
    parts = [part.strip() for part in names.split(",")]

    def decorate(test: Test) -> Test:
        @wraps(test)
        def run(**others: Any) -> None:
            failures: list[BaseException] = []
            for case in given:
                values = case if len(parts) > 1 else (case,)
                try:
                    test(**dict(zip(parts, values, strict=True)), **others)
                except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:
                    error.add_note(f"{names}: {case!r:.300}")
                    failures.append(error)
            _raise(failures)

        given = list(cases)
        own = inspect.signature(test).parameters.values()
        run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [parameter for parameter in own if parameter.name not in parts]
        )
        return run

    return decorate


def _raise(failures: list[BaseException]) -> None:
    """Raise the failures, or the first skip if there is none."""
    wrong = [error for error in failures if not isinstance(error, pytest.skip.Exception)]
    if len(wrong) > 1:
        raise BaseExceptionGroup(f"{len(wrong)} cases fail", wrong)
    if failures:
        raise (wrong or failures)[0]
