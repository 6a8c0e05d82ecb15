"""Checks of the fields of optimizers: numbers become Python floats or are refused."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import fields

from graphc.base.call_text import call_text
from graphc.base.errors import GraphError
from graphc.base.loc import caller_loc
from graphc.ir.numbers import checked_whole, finite, lost_in


class Checked:
    """The base of frozen dataclasses that raise GraphError, at the user's line, for a bad field."""

    __repr__ = call_text

    def _number(
        self, name: str, *, above: bool = False, below: float = math.inf, hint: str, usual: str
    ) -> None:
        """Store a finite number as a float if it is 0 or more, or above 0 with `above`.

        It must be less than `below`; `usual` is such a number, for the hint.
        """
        value = finite(getattr(self, name))
        if value is not None and 0 <= value < below and not (above and value == 0):
            self._keep(name, value)
            return
        wanted = "above 0" if above else "0 or more"
        if below < math.inf:
            wanted = f"{'above' if above else 'from'} 0 {'and' if above else 'to'} below {below:g}"
        if value is None:
            hint = f"give a finite number, such as {name}={usual}"
        raise self._error(name, f"it must be {wanted}", hint)

    def _share(self, name: str, usual: str) -> None:
        """Store a number from 0 to below 1."""
        self._number(name, below=1.0, hint=f"{usual} is usual", usual=usual)

    def _above_0(self, name: str, usual: str) -> None:
        """Store a number above 0."""
        self._number(name, above=True, hint=f"{usual} is usual", usual=usual)

    def _whole(self, name: str, hint: str) -> None:
        """Store a whole number from 1 up."""
        what = f"{type(self).__name__}: {name}"
        self._keep(name, checked_whole(what, getattr(self, name), hint=hint))

    def check_held(self, dtypes: Collection[str]) -> None:
        """Raise GraphError for a number that one of these dtypes makes infinite, or 0."""
        for field in fields(self):  # type: ignore[arg-type]
            number = getattr(self, field.name)
            for dtype in dtypes if isinstance(number, float) else ():
                if lost := lost_in(dtype, number):
                    hint = "give another number, or declare the net with dtype='float64'"
                    raise self._error(field.name, f"which is {lost} in {dtype}", hint)

    def _patterns(self, name: str, hint: str) -> None:
        """Store one name pattern, or several, as a tuple."""
        value = getattr(self, name)
        listed = (value,) if isinstance(value, str) else value
        if not isinstance(listed, Sequence) or not all(isinstance(text, str) for text in listed):
            raise self._error(name, "it must be name patterns", hint)
        self._keep(name, tuple(listed))

    def _keep(self, name: str, value: object) -> None:
        """Set a field of the frozen dataclass."""
        object.__setattr__(self, name, value)

    def _error(self, name: str, wanted: str, hint: str) -> GraphError:
        """Return the error for a field."""
        sentence = f"{type(self).__name__}: {name} is {getattr(self, name)!r}, {wanted}"
        return GraphError(sentence, loc=caller_loc(), hint=hint)
