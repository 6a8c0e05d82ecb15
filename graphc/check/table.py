"""Checks what a model reads of a `.csv` file, by a second parser that shares no code with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from graphc.ir.op import Array
from graphc.runtime.columns import Columns

ABSENT = ("", "?", "NA", "N/A", "NAN", "NULL", "NONE")
"""The cells without a value, in upper case."""


def table_fault(
    path: Path,
    columns: Columns,
    arrays: Sequence[Array],
    *,
    separator: str,
    encoding: str,
    fill: float | None,
) -> str:
    """Return the first cell that is not what was read of it, or "".

    `arrays` are those of the features and, if there is one, of the label.
    """
    lines = [row for row in _cells(path.read_bytes().decode(encoding), separator) if any(row[1])]
    names = lines[0][1]
    wanted = [*columns.features, *([columns.label] if columns.label else [])]
    words = [*(columns.words or [()] * len(columns.features)), columns.classes]
    rows = len(lines) - 1
    read = np.concatenate([np.reshape(x, (len(x), -1)).astype(np.float64) for x in arrays], axis=1)
    if read.shape != (rows, len(wanted)):
        return f"{path} has {rows} rows of {len(wanted)} columns, {read.shape} were read"
    for row, (line, cells) in enumerate(lines[1:]):
        for at, name in enumerate(wanted):
            cell, own = cells[names.index(name)], at < len(columns.features)
            expected = _number(cell, words[at], fill if own else None, columns.gaps and own)
            exact = np.asarray(expected, arrays[0].dtype if own else arrays[-1].dtype)
            if not (exact == read[row, at] or (np.isnan(expected) and np.isnan(read[row, at]))):
                place = f"{path}, line {line}, column {name!r}"
                return f"{place}: {read[row, at]:g} was read of {cell!r}, it is {exact:g}"
    return ""


def _number(cell: str, words: Sequence[str], fill: float | None, gaps: bool) -> float:
    """Return the number of a cell: that of its word, if its column has words."""
    if cell.upper() in ABSENT and (words or gaps or fill is not None):
        return math.nan if words or fill is None else fill
    if words:
        return dict(zip(words, range(len(words)), strict=True)).get(cell, -1)
    return float(cell)


def _cells(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line at which each record ends, and its cells without blanks.

    A cell in quotes may hold separators, ends of lines, and quotes that are written twice.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n") + "\n"
    one = re.compile(rf'"((?:[^"]|"")*)"|([^{re.escape(separator)}\n]*)')
    at, line, cells = 0, 1, list[str]()
    while at < len(text):
        found = one.match(text, at)
        assert found is not None, "an empty cell matches"
        quoted, plain = found.groups()
        cells.append((plain if quoted is None else quoted.replace('""', '"')).strip())
        line, at = line + (quoted or "").count("\n"), found.end() + 1
        if text[at - 1] == "\n":
            yield line, cells
            line, cells = line + 1, []


def by_role(feeds: Mapping[str, Array], columns: Columns) -> list[Array]:
    """Return the array of the features, then that of the label if there is one."""
    first, *rest = sorted(feeds.values(), key=lambda array: array.ndim < 2)
    return [first, *rest] if columns.label else [first]
