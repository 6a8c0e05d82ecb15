"""Docstrings as graphc writes them: plain text, code in single backticks, NumPy's sections.

To reStructuredText, `*`, `|` and a `_` that ends a word are markup; here they mean themselves.
Lines such as `lr, decay: what they are` are made a list, and `gc.name` leads to its description,
docs/name.md to the page.
"""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(`[^`]*`|^ *>>>(?:.+\n?)+)", re.M)
"""Code in backticks, and an example with what it prints."""
_MARKUP = re.compile(r"([*|]|_\b(?!\w)|^[A-Z](?=\. ))", re.M)
"""Also an initial that begins a line, which would number a list."""
_PAGE = re.compile(r"docs/(\w+)\.md")
_PUBLIC = re.compile(r"`gc\.(\w+)`")
_OPTION = re.compile(r"\w+(, \w+)*: ")


def plain(lines: list[str]) -> list[str]:
    """The lines with everything but code in backticks taken literally."""
    text = "\n".join(listed(lines))
    parts = _CODE.split(text)
    parts[::2] = (_PAGE.sub(r":doc:`/\1`", _MARKUP.sub(r"\\\1", part)) for part in parts[::2])
    parts[1::2] = (_PUBLIC.sub(r":obj:`gc.\1 <graphc.\1>`", part) for part in parts[1::2])
    return "".join(parts).split("\n")


def listed(lines: list[str]) -> list[str]:
    """Paragraphs that begin with the name of an option, as lists of options."""
    made: list[str] = []
    inside = False
    for before, line in zip(["", *lines], lines, strict=False):
        begins = _OPTION.match(line) is not None
        inside = (begins and not before) or (inside and bool(line))
        made.append(("- " if begins else "  ") + line if inside else line)
    return made


def escape(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let autodoc read graphc's own docstrings as plain text with sections.

    Those of fields have none: napoleon would take what precedes a colon for a type.
    """
    from sphinx.ext.napoleon import Config, NumpyDocstring  # tests of `plain` need no Sphinx

    if name.partition(".")[0] in ("graphc", "passes"):
        lines[:] = plain(lines)
        if what in ("function", "method", "class", "exception"):
            lines[:] = NumpyDocstring(
                lines, Config(napoleon_use_rtype=False), app, what, name, obj, options
            ).lines()


def shorten(
    app: Any,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    result: str | None,
) -> tuple[str | None, str | None]:
    """Types as the source calls them: Array, not what it stands for."""
    return _short(signature), _short(result)


def _short(text: str | None) -> str | None:
    if text is None:
        return None
    text = re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", text)
    return re.sub(
        r"~?(?:numpy\.)?ndarray\[tuple\[.*?\], ~?(?:numpy\.)?dtype\[([^]]*)\]\]",
        r"NDArray[\1]",
        text,
    )


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
