"""Tables of text: cells in columns that are as wide as their longest cell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[str]], ways: str = "") -> list[str]:
    """Return a line for each row, with two spaces between columns.

    `ways` has a character for each column: > if its cells end below each other, else <.  A column
    without one is as <.
    """
    lines = list(rows)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    forms = [
        f"{way}{width}" for way, width in zip(ways.ljust(len(widths), "<"), widths, strict=True)
    ]
    return ["  ".join(map(format, line, forms)).rstrip() for line in lines]
