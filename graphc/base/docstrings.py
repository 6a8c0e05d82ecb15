"""Docstrings of families: what several functions or classes say alike is written once."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import Parameter, cleandoc, signature
from typing import Any, TypeVar

T = TypeVar("T")

_STARS: dict[Any, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
_TITLES = ("Parameters", "Attributes", "Returns", "Raises", "Examples")


def with_shared(text: str | None, **fields: str) -> Callable[[T], T]:
    """Return a decorator that adds the sections of `text` which a docstring does not have itself.

    Of Parameters it adds the entries that the docstring lacks and the signature has.  {public} in
    the text is the public name of what is decorated.
    """

    def decorate(made: T) -> T:
        """Add the sections to the docstring, and return what it belongs to."""
        target: Any = made
        own = _sections(target.__doc__)
        shared = _sections((text or "").format(public=target.__name__.rstrip("_"), **fields))
        found = shared | own
        if "Parameters" in shared:
            texts = _entries(shared["Parameters"]) | _entries(own.get("Parameters", ""))
            parameters = signature(target).parameters.values()
            names = [_STARS.get(p.kind, "") + p.name for p in parameters]
            names = [name for name in names if name in texts]
            found["Parameters"] = _listed({name: texts[name] for name in names})
        parts = [f"{t}\n{'-' * len(t)}\n{found[t]}" for t in _TITLES if t in found]
        target.__doc__ = "\n\n".join([own[""], *parts])
        return made

    return decorate


def _sections(text: str | None) -> dict[str, str]:
    """Return the sections of a docstring by title; what is before them has the title ""."""
    start, *rest = re.split(r"(?:^|\n\n)(\w+)\n---+\n", cleandoc(text or ""))
    return {"": start} | dict(zip(rest[::2], rest[1::2], strict=True))


def _entries(section: str) -> dict[str, str]:
    """Return the indented text of each name in a section."""
    entries = (entry.partition("\n") for entry in re.split(r"\n(?=\S)", section))
    return {name: text for names, _, text in entries for name in names.split(", ")}


def _listed(texts: dict[str, str]) -> str:
    """Return a section of these texts by name; names that have the same text share an entry."""
    names: dict[str, list[str]] = {}
    for name, text in texts.items():
        names.setdefault(text, []).append(name)
    return "\n".join(f"{', '.join(several)}\n{text}" for text, several in names.items())
