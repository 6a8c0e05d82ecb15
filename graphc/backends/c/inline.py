"""The lines of a C function as a person would write them.

A value that is used once stands where it is used, unless a store or the end of a block is between.
Evaluation keeps its order of operations, so every result rounds as before.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable

WIDTH = 100
"""The columns of a line, at most."""
_LONGEST = 60
"""The characters of a value that stands in another one, at most."""
_DEFINED = re.compile(r" *const \w+ (v\d+) = (.*);")
_NAME = re.compile(r"\bv\d+\b")
_FACTOR = re.compile(r"(?:\(\w+\))?(?:[\w.]+|\w+\[[^]]*\]|\w+\((?:[^()]|\([^()]*\))*\))")
"""A name, a number, an element or a call, perhaps converted, which needs no parentheses."""
_TOGETHER = re.compile(r"/\*.*?\*/|\[[^]]*\]|(?:const )?\w+ \*(?:const )?\w+|const \w+ \w+ =|#.*")
"""What stands on one line."""


def inlined(lines: Iterable[str]) -> list[str]:
    """Return the lines with values in the place of names that are used once."""
    uses = Counter(name for line in lines for name in _NAME.findall(line))
    found: list[str] = []
    waiting: dict[str, tuple[str, str]] = {}
    """The definitions that are not written yet, as lines and as values, by their names."""
    for line in lines:
        defined = _DEFINED.fullmatch(line)
        placed = _NAME.sub(lambda name: _value(waiting, name[0], line), line)
        if defined and uses[defined[1]] == 2:
            value = placed.partition(" = ")[2].removesuffix(";")
            if len(value) <= _LONGEST:
                waiting[defined[1]] = placed, value
                continue
        if not defined:  # a store or a block: values that wait read memory before it
            found += [definition for definition, _ in waiting.values()]
            waiting.clear()
        found.append(placed)
    return found


def _value(waiting: dict[str, tuple[str, str]], name: str, line: str) -> str:
    """Return what stands for a name in a line, which is the value if it waits."""
    if name not in waiting:
        return name
    _, value = waiting.pop(name)
    whole = re.search(rf"([^!=<>]= |\(|, |return ){name}[;,)]", line)
    return value if whole or _FACTOR.fullmatch(value) else f"({value})"


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
