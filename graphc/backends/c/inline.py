"""The lines of a C function as a person would write them.

A value that is used once is written where it is used, unless a store or the end of a block is
between.  Operations and their order are the same, so every result rounds as before.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable

WIDTH = 100
"""The columns of a line, at most."""
_LONGEST = 60
"""The characters of a value that is written in another one, at most."""
_DEFINED = re.compile(r" *(?:const )?\w+ (v\d+) = (.*);")
_NAME = re.compile(r"\bv\d+\b")
_FACTOR = re.compile(r"(?:\(\w+\))?(?:[\w.]+|\w+\[[^]]*\]|\w+\((?:[^()]|\([^()]*\))*\))")
"""A name, a number, an element or a call, perhaps converted, which needs no parentheses."""
_TOGETHER = re.compile(
    r'/\*.*?\*/|"(?:[^"\\]|\\.)*"|'
    r"\[[^]]{,40}\]|(?:const )?\w+ \*(?:const )?\w+|(?:const \w+|ptrdiff_t) \w+|#.*"
)
"""The parts that are not broken into lines."""
_IDLE = re.compile(r" (?:[*/] 1(?![\w.])|[+-] 0(?![\w.]| [*/%]))")
"""The operations of indices that change nothing."""


def inlined(lines: Iterable[str]) -> list[str]:
    """Return the lines with values in the place of names that are used once."""
    lines = [*lines]
    uses = Counter(name for line in lines for name in _NAME.findall(line))
    found: list[str] = []
    waiting: dict[str, str] = {}  # the definitions that are not written yet, by their names
    for line in lines:
        placed = _IDLE.sub("", _placed(line, waiting))
        defined = _DEFINED.fullmatch(placed)
        if defined and uses[defined[1]] == 2 and len(defined[2]) <= _LONGEST:
            waiting[defined[1]] = placed
            continue
        if not defined:  # a store or a block: what waits may read what it writes
            found += waiting.values()
            waiting.clear()
        found.append(placed)
    return found


def _placed(line: str, waiting: dict[str, str]) -> str:
    """Return a line with the values of the names that wait, which do so no longer."""

    def value(name: re.Match[str]) -> str:
        defined = _DEFINED.fullmatch(waiting.pop(name[0], ""))
        if defined is None:
            return name[0]
        whole = re.search(rf"([^!=<>]= |\(|, |return ){name[0]}[;,)]", line)
        return defined[2] if whole or _FACTOR.fullmatch(defined[2]) else f"({defined[2]})"

    return _NAME.sub(value, line)


def wrapped(text: str) -> str:
    """Return C code with its long lines in several, but for those of the preprocessor."""
    return "\n".join(_broken(line) if len(line) > WIDTH else line for line in text.split("\n"))


def _broken(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    whole = _TOGETHER.sub(lambda part: part[0].replace(" ", "\0"), line)
    wrapper = textwrap.TextWrapper(
        WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(wrapper.wrap(whole)).replace("\0", " ")
