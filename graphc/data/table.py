"""Tables of numbers in `.csv` files; what is wrong in one is told with line and column."""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DataError

LABEL_NAMES = ("y", "label", "target")

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Table:
    """Rows of a file: `values` (N, C) by the names of the columns, and the `lines` (N,) they are
    on, counted from 1."""

    path: str
    header: tuple[str, ...]
    values: NDArray[np.float64]
    lines: NDArray[np.int64]

    @property
    def label(self) -> int | None:
        """The first of the columns y, label, target (in any case) that exists."""
        folded = [own.lower() for own in self.header]
        found = [own for own in LABEL_NAMES if own in folded]
        return folded.index(found[0]) if found else None

    def column(self, name: str | None) -> int:
        """The column called `name`; without it the first of y, label, target, else the last.

        Raises DataError where there is none of that name.
        """
        if name is None:
            return len(self.header) - 1 if self.label is None else self.label
        if name not in self.header:
            raise DataError(
                f"{self.path} has no column {name!r}",
                hint=f"its columns are {', '.join(self.header[:20])}",
            )
        return self.header.index(name)

    def wrong(self, row: int, column: int, what: str, hint: str) -> DataError:
        """The error for a cell, with its line and column."""
        return _wrong(self.path, self.header, int(self.lines[row]), column, what, hint)


def load_table(path: str | Path, label: str | None = None) -> dict[str, NDArray[Any]]:
    """A `.csv` file of numbers with a header: x float32 (N, D), and y (N,).

    y is the column called `label`; without it the first of y, label, target (in any case) that
    exists, else the last column.  It is int64 when every value is whole, else float32.  Raises
    DataError, with line and column, when the file is missing, ragged, or not all finite numbers.
    """
    table = read_table(path)
    at = table.column(label)
    if not len(table.values):
        raise DataError(f"{path} has a header but no rows", hint="add a line of numbers per sample")
    if len(table.header) < 2:
        raise DataError(
            f"{path} has a single column, {table.header[0]!r}",
            hint="the first line names the columns: some features and one label",
        )
    y = table.values[:, at]
    whole = bool(np.all((np.rint(y) == y) & (np.abs(y) <= 2.0**53)))
    return {
        "x": np.delete(table.values, at, axis=1).astype(np.float32),
        "y": y.astype(np.int64 if whole else np.float32),
    }


def read_table(path: str | Path) -> Table:
    """All rows of a `.csv` file of numbers with a header.  Raises DataError as `load_table`."""
    (table,) = read_blocks(path, None)
    return table


def read_blocks(path: str | Path, size: int | None) -> Iterator[Table]:
    """The rows in tables of `size`, the last of which may be smaller; at least one table.

    Raises DataError, with line and column, when the file is missing, ragged, or not all finite
    numbers.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = _rows(path, csv.reader(file, strict=True))
            header = _header(path, rows)
            first = True
            while len((table := _block(path, header, islice(rows, size))).lines) or first:
                yield table
                first = False
                if size is None:
                    return
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read {path}: {reason(error)}", hint="give the path of a UTF-8 text file"
        ) from error


def _block(path: str | Path, header: list[str], rows: Iterator[tuple[int, list[str]]]) -> Table:
    values, lines = array("d"), array("q")
    for line, cells in rows:
        values.extend(_numbers(path, header, line, cells))
        lines.append(line)
    return Table(
        str(path),
        tuple(header),
        np.array(values, np.float64).reshape(-1, len(header)),
        np.array(lines, np.int64),
    )


def _rows(path: str | Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every line that is not blank."""
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}", hint="check the quotes on that line"
        ) from error


def _header(path: str | Path, rows: Iterator[tuple[int, list[str]]]) -> list[str]:
    _, cells = next(rows, (0, []))
    names = [cell.strip() for cell in cells]
    hint = "the first line names the columns: some features and one label"
    if not names:
        raise DataError(f"{path} is empty", hint=hint)
    if all(_number(name) is not None for name in names):
        raise DataError(f"{path} has no header, its first line is all numbers", hint=hint)
    other = next((mark for mark in ";\t|" if mark in names[0]), None)
    if len(names) == 1 and other is not None:
        raise DataError(
            f"{path} has a single column, {names[0]!r}",
            hint=f"columns are separated by commas, not by {other!r}",
        )
    return names


def _numbers(path: str | Path, header: list[str], line: int, cells: list[str]) -> list[float]:
    """The cells of one line as numbers; DataError names the first that is none."""
    if len(cells) != len(header):
        raise DataError(
            f"{path}, line {line}: {len(cells)} values, but the header names {len(header)} columns",
            hint="give every line one value for each column, separated by commas",
        )
    numbers = [_number(cell) for cell in cells]
    for position, number in enumerate(numbers):
        if number is None or not abs(number) <= _FLOAT32_MAX:
            text = cells[position].strip()[:40]
            raise _wrong(
                path,
                header,
                line,
                position,
                f"{text!r} is not a finite float32 number" if text else "the value is missing",
                "fill missing values, and encode words as numbers, before loading",
            )
    return [number for number in numbers if number is not None]


def _number(text: str) -> float | None:
    """The number that a cell spells, or None; digit separators are refused."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _wrong(
    path: str | Path, header: Any, line: int, column: int, what: str, hint: str
) -> DataError:
    return DataError(
        f"{path}, line {line}, column {column + 1} ({header[column]!r}): {what}", hint=hint
    )


def reason(error: BaseException) -> str:
    """What an exception says, on one line, without repeating the path."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((text or type(error).__name__).split())
