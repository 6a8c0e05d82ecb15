"""Tables of numbers in `.csv` files; what is wrong in one is told with line and column."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.errors import DataError
from graphc.files.paths import shown, system_path

LABEL_NAMES = ("y", "label", "target")

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Header:
    """The names of a file's columns."""

    path: str
    header: tuple[str, ...]

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


@dataclass(frozen=True)
class Read:
    """Which columns are read: some as numbers, one as words; the others may hold anything."""

    numbers: Collection[int]
    words: int | None = None


@dataclass(frozen=True)
class Table(Header):
    """Rows of a file: `values` (N, C) by the names of the columns, NaN where none was read; the
    `lines` (N,) they are on, counted from 1; and the `words` of one column, if one has some."""

    values: NDArray[np.float64]
    lines: NDArray[np.int64]
    words: tuple[str, ...] = ()

    def wrong(self, row: int, column: int, what: str, hint: str) -> DataError:
        """The error for a cell, with its line and column."""
        return _wrong(self.path, self.header, int(self.lines[row]), column, what, hint)


def _all_numbers(header: Header) -> Read:
    return Read(range(len(header.header)))


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


def read_table(path: str | Path, choose: Callable[[Header], Read] = _all_numbers) -> Table:
    """All rows of a `.csv` file with a header; see `read_blocks`."""
    (table,) = read_blocks(path, None, choose)
    return table


def read_blocks(
    path: str | Path, size: int | None, choose: Callable[[Header], Read] = _all_numbers
) -> Iterator[Table]:
    """The rows in tables of `size`, the last of which may be smaller; at least one table.

    `choose` says which columns are read, once the header is.  Raises DataError, with line and
    column, when the file is missing, ragged, or a number of these is missing or not finite.
    """
    try:
        with open(system_path(path), encoding="utf-8-sig", newline="") as file:
            rows = _rows(path, csv.reader(file, strict=True))
            header = Header(str(path), tuple(_header(path, rows)))
            read = choose(header)
            first = True
            while len((table := _block(header, read, islice(rows, size))).lines) or first:
                yield table
                first = False
                if size is None:
                    return
    except OSError as error:
        raise DataError(
            f"cannot read {shown(path)}: {reason(error)}", hint="give the path of a .csv file"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is no text in UTF-8: it has a byte {error.object[error.start]:#04x}",
            hint="export it as CSV in UTF-8",
        ) from error


def _block(header: Header, read: Read, rows: Iterator[tuple[int, list[str]]]) -> Table:
    values, lines, words = array("d"), array("q"), list[str]()
    for line, cells in rows:
        values.extend(_numbers(header, read, line, cells))
        lines.append(line)
        if read.words is not None:
            words.append(cells[read.words].strip())
    return Table(
        header.path,
        header.header,
        np.array(values, np.float64).reshape(-1, len(header.header)),
        np.array(lines, np.int64),
        tuple(words),
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


def _numbers(header: Header, read: Read, line: int, cells: list[str]) -> list[float]:
    """The cells of one line, NaN where they are not read; DataError names the first misfit."""
    if len(cells) != len(header.header):
        raise DataError(
            f"{header.path}, line {line}: {len(cells)} value{'' if len(cells) == 1 else 's'}, but "
            f"the header names {len(header.header)} columns",
            hint="give every line one value for each column, separated by commas",
        )
    found = [math.nan] * len(cells)
    for position in read.numbers:
        number = _number(cells[position])
        if number is None or not abs(number) <= _FLOAT32_MAX:
            raise no_number(header, line, position, cells[position].strip())
        found[position] = number
    if read.words is not None:
        word = cells[read.words].strip()
        if not word:
            raise no_number(header, line, read.words, word)
        number = _number(word)
        if number is not None:
            if not abs(number) <= _FLOAT32_MAX:
                raise no_number(header, line, read.words, word)
            found[read.words] = number
    return found


def no_number(header: Header, line: int, column: int, text: str) -> DataError:
    """The error for a cell that is empty, or no number."""
    what = f"{text[:40]!r} is not a finite float32 number" if text else "the value is missing"
    hint = "fill missing values, and encode words as numbers, before loading"
    return _wrong(header.path, header.header, line, column, what, hint)


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
