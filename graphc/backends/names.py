"""The names of nets in generated text: as identifiers, in comments and in strings.

An identifier has a head and a word of the name: the input `x` is `in_x`.  No word or macro of C,
C++ and their libraries has such a head, and nothing else in a file has: whatever a name is, it hits
none of them.
"""

from __future__ import annotations

import re
from itertools import count

LONGEST = 48
"""The most characters of a name in an identifier, or in a string."""
READ, WRITTEN, BUFFER, STEP = "in_", "out_", "b_", "step_"
"""The heads of arguments of a model, of buffers in a function, and of those in a loop's step."""
OWN = "gc_"
"""The head of all else that a file defines and does not export; no model's name begins with it."""
OTHERS = {"atomic", "cnd", "mtx", "posix", "pthread", "res", "sem", "thrd", "tss"}
"""The first words of functions of C and POSIX, such as `sem_init`."""


def word(name: str) -> str:
    """Return what a name has of ASCII letters and digits, parted by single underscores."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].rstrip("_") or "x"


def model_word(name: str) -> str:
    """Return the start of all names that a model exports, in small letters."""
    found = word(name).lower() if re.search("[A-Za-z0-9]", name) else "model"
    first, heads = found.split("_")[0], (READ, WRITTEN, BUFFER, STEP, OWN)
    taken = first[0].isdigit() or first in OTHERS or f"{first}_" in heads
    return f"model_{found}" if taken else found


class Identifiers:
    """Different identifiers, made of names."""

    def __init__(self) -> None:
        self._used: set[str] = set()
        self._numbers: dict[str, count[int]] = {}

    def new(self, head: str, name: str) -> str:
        """Return an identifier of a name that is new: with a number, if need be."""
        found = own = f"{head}{word(name)}"
        numbers = self._numbers.setdefault(own, count(2))
        while found in self._used:
            found = f"{own}_{next(numbers)}"
        self._used.add(found)
        return found


def comment(text: str) -> str:
    """Return a text for a comment of C, which it neither ends nor begins."""
    return re.sub(r"\*(?=/)|/(?=\*)|\?(?=\?)", r"\g<0> ", _ascii(text))


def string(text: str) -> str:
    """Return a text as a string of C, in quotes."""
    return '"' + re.sub(r'[\\"?]', r"\\\g<0>", _ascii(text)) + '"'


def _ascii(text: str) -> str:
    """Return a text of printable ASCII and ends of lines, with all else as Python's escapes."""
    return re.sub(r"[^ -~\n]", lambda one: ascii(one[0])[1:-1], text)
