"""Tables of numbers in `.csv` files; errors name the line and column that is wrong."""

from __future__ import annotations

import csv
import math
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graphc.base.errors import DataError, counted, first_of
from graphc.files.disk import reason, shown, system_path

LABEL_NAMES = ("y", "label", "target")

EXACT = 2.0**53
"""The bound below which integers are exact as float64; 2**53 + 1 would be read as 2**53."""

_FLOAT32_MAX = float(np.finfo(np.float32).max)


MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""The texts of a cell without a value, in lower case."""


@dataclass(frozen=True)
class Form:
    """The separator and the encoding of a `.csv` file, and the columns that are not read."""

    separator: str = ","
    # Spreadsheets begin a file with a byte order mark, which is no part of the first name.
    encoding: str = "utf-8-sig"
    drop: tuple[str, ...] = ()


PLAIN = Form()


@dataclass(frozen=True)
class Header:
    """The names of a file's columns, and their places in the file if some are dropped."""

    path: str
    header: tuple[str, ...]
    places: tuple[int, ...] = field(default=(), kw_only=True)

    @cached_property
    def columns(self) -> dict[str, list[int]]:
        """The columns of each name: a file may have 100,000."""
        found: dict[str, list[int]] = {}
        for column, name in enumerate(self.header):
            found.setdefault(name, []).append(column)
        return found

    @property
    def label(self) -> int | None:
        """The first of the columns y, label, target (in any case) that exists."""
        folded = [own.lower() for own in self.header]
        found = [own for own in LABEL_NAMES if own in folded]
        return folded.index(found[0]) if found else None

    def column(self, name: str | None) -> int:
        """Return the column called `name`; without it the first of y, label, target, else the last.

        Raise DataError if there is no column of that name.
        """
        if name is None:
            at = len(self.header) - 1 if self.label is None else self.label
        elif name in self.columns:
            at = self.columns[name][0]
        else:
            raise DataError(
                f"{self.path} has no column {name!r}",
                hint=f"its columns are {', '.join(self.header[:20])}",
            )
        self.check_distinct([at])
        return at

    def check_distinct(self, columns: Iterable[int]) -> None:
        """Raise DataError if another column has the name of one of these."""
        for name in (self.header[column] for column in columns):
            if len(self.columns[name]) > 1:
                raise DataError(
                    f"{self.path} has {len(self.columns[name])} columns called {name!r}",
                    hint="rename them in its first line",
                )

    def wrong_at(self, line: int, column: int, what: str, hint: str) -> DataError:
        """Return the error for a cell, by its line from 1 and its column from 0."""
        number = (self.places[column] if self.places else column) + 1
        place = f"line {line}, column {number} ({self.header[column]!r})"
        return DataError(f"{self.path}, {place}: {what}", hint=hint)


@dataclass(frozen=True)
class Read:
    """The columns to read: some as numbers, one as words; the others may hold anything.

    `codes` have the numbers of words for columns of numbers that hold categories: another word is
    -1, a missing one NaN.  `fill` takes the place of missing numbers, which are errors without it.
    Words may be missing only if they are `optional`.
    """

    numbers: Collection[int]
    words: int | None = None
    codes: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    fill: float | None = None
    optional: bool = False


@dataclass(frozen=True)
class Table(Header):
    """Rows of a file, with their lines and words.

    `values` (N, C) are in the order of the columns, NaN where none was read; `lines` (N,) are their
    line numbers, from 1; and `words` are those of one column, if one is read as words.
    """

    values: NDArray[np.float64]
    lines: NDArray[np.int64]
    words: tuple[str, ...] = ()

    def wrong(self, row: int, column: int, what: str, hint: str) -> DataError:
        """Return the error for a cell, with its line and column."""
        return self.wrong_at(int(self.lines[row]), column, what, hint)

    def check_exact(self, column: int) -> None:
        """Raise DataError for the first integer of a column that may have been rounded."""
        large = np.flatnonzero(np.abs(self.values[:, column]) >= EXACT)
        if len(large):
            row = int(large[0])
            raise self.wrong(
                row,
                column,
                f"{self.values[row, column]:.0f} is too large to be read exactly",
                "whole numbers below 2**53 are",
            )


def _all_numbers(header: Header) -> Read:
    return Read(range(len(header.header)))


def load_table(
    path: str | Path,
    label: str | None = None,
    *,
    separator: str = ",",
    encoding: str = "utf-8-sig",
    drop: Sequence[str] = (),
    fill: float | None = None,
) -> dict[str, NDArray[Any]]:
    r"""Return the features and labels of a `.csv` file of numbers with a header.

    Parameters
    ----------
    path
        The path of the file.
    label
        The name of the column that becomes y.  By default the first of y, label and target (in
        any case) that exists, or else the last column.
    separator, encoding
        The character between columns, and the encoding of the text.
    drop
        The names of columns that are not read.
    fill
        The number for missing features: empty cells, NA, N/A, NaN, null, none and ?; it may be NaN.

    Returns
    -------
    dict
        x, float32 of the shape (N, D), and y of the shape (N,): int64 if every label is an integer,
        float32 otherwise.

    Raises
    ------
    DataError
        With line and column, if the file is missing, a line is too short or long, a value is not a
        finite number, or two columns have one name.

    Examples
    --------
    >>> from pathlib import Path
    >>> from graphc.data import load_table
    >>> _ = Path("flats.csv").write_text("size,rooms,rent\n40,2,700\n60,3,900\n")
    >>> load_table("flats.csv", label="rent")["y"]
    array([700, 900])
    """

    def choose(header: Header) -> Read:
        at = header.column(label)
        return Read([i for i in range(len(header.header)) if i != at], at, fill=fill)

    table = read_table(path, choose, Form(separator, encoding, tuple(drop)))
    table.check_distinct(range(len(table.header)))
    at = table.column(label)
    if not len(table.values):
        raise DataError(f"{path} has a header but no rows", hint="add a line of numbers per sample")
    if len(table.header) < 2:
        raise DataError(
            f"{path} has a single column, {table.header[0]!r}",
            hint="the first line names the columns: some features and one label",
        )
    x = np.delete(table.values, at, axis=1).astype(np.float32)
    return {"x": x, "y": _whole_or_float(table, at)}


def _whole_or_float(table: Table, at: int) -> NDArray[Any]:
    """Return labels as int64 if all are exact integers, or else as float32."""
    y = table.values[:, at]
    odd = np.flatnonzero(np.isnan(y))
    if len(odd):
        row = int(odd[0])
        raise no_number(table, int(table.lines[row]), at, table.words[row])
    if not np.all(np.rint(y) == y):
        return y.astype(np.float32)
    if np.all(np.abs(y) < EXACT):
        return y.astype(np.int64)
    if not all(word.lstrip("+-").isdecimal() for word in table.words):
        return y.astype(np.float32)  # 1e30 is a measurement, not a class
    try:
        return np.array([int(word) for word in table.words], np.int64)
    except OverflowError:
        row = int(np.abs(y).argmax())
        what = f"{table.words[row][:40]} does not fit int64"
        raise table.wrong(row, at, what, "number classes from 0; 1e30 is a measurement") from None


def read_table(
    path: str | Path, choose: Callable[[Header], Read] = _all_numbers, form: Form = PLAIN
) -> Table:
    """Return all rows of a `.csv` file with a header; see `read_blocks`."""
    (table,) = read_blocks(path, None, choose, form)
    return table


def read_blocks(
    path: str | Path,
    size: int | None,
    choose: Callable[[Header], Read] = _all_numbers,
    form: Form = PLAIN,
) -> Iterator[Table]:
    """Yield the rows in tables of `size`, the last of which may be smaller; at least one table.

    `choose` returns the columns to read, once the header is known.  Raise DataError, with line and
    column, if the file is missing or ragged, or if a number to read is missing or not finite.
    """
    with read_lines(path, form) as (header, rows):
        read = choose(header)
        first = True
        while len((table := _block(header, read, islice(rows, size))).lines) or first:
            yield table
            first = False
            if size is None:
                return


@contextmanager
def read_lines(path: str | Path, form: Form) -> Iterator[tuple[Header, Lines]]:
    """Open a `.csv` file: its header, and the line number and cells of each row.

    Raise DataError, with line and column, if the file is missing or ragged.
    """
    try:
        with open(system_path(path), encoding=form.encoding, newline="") as file:
            reader = csv.reader(file, strict=True, delimiter=form.separator)
            names, rows = _header(path, _rows(path, reader), form.separator)
            every = Header(str(path), tuple(names))
            yield _without(every, _whole_rows(every, rows), form.drop)
    except OSError as error:
        raise DataError(
            f"cannot read {shown(path)}: {reason(error)}", hint="give the path of a .csv file"
        ) from error
    except UnicodeDecodeError as error:
        known = form.encoding == PLAIN.encoding
        raise DataError(
            f"{path} is not {'UTF-8' if known else form.encoding} text: it has a byte "
            f"{error.object[error.start]:#04x}",
            hint="export it as CSV in UTF-8, or name its encoding, such as latin-1",
        ) from error


def _without(every: Header, rows: Lines, drop: Sequence[str]) -> tuple[Header, Lines]:
    """Return the header and the rows without some columns; raise DataError for an unknown one."""
    if not drop:
        return every, rows
    dropped = {every.column(name) for name in drop}
    places = tuple(at for at in range(len(every.header)) if at not in dropped)
    kept = Header(every.path, tuple(every.header[at] for at in places), places=places)
    return kept, ((line, [cells[at] for at in places]) for line, cells in rows)


def _whole_rows(header: Header, rows: Lines) -> Lines:
    """Yield the rows; raise DataError for one that does not have a cell for each column."""
    for line, cells in rows:
        if len(cells) != len(header.header):
            raise DataError(
                f"{header.path}, line {line}: {counted(len(cells), 'value')}, but the header names "
                f"{len(header.header)} columns",
                hint="give every line one value for each column, separated by commas",
            )
        yield line, cells


def _block(header: Header, read: Read, rows: Lines) -> Table:
    """Return some rows of a file as a table."""
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
        places=header.places,
    )


Lines = Iterator[tuple[int, list[str]]]


def _rows(path: str | Path, reader: Any) -> Lines:
    """Yield line number and cells of every line that is not blank."""
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}", hint="check the quotes on that line"
        ) from error


def _header(path: str | Path, rows: Lines, separator: str) -> tuple[list[str], Lines]:
    """Return the column names and the lines that follow; raise DataError if there is no header."""
    _, cells = next(rows, (0, []))
    following = next(rows, None)
    names, second = _stripped(cells), _stripped(following[1] if following else [])
    hint = "the first line names the columns: some features and one label"
    if not names:
        raise DataError(f"{path} is empty", hint=hint)
    other = _other_separator(names, second) if separator == "," else None
    if other is not None:
        count = "a single column" if len(names) == 1 else f"{len(names)} columns"
        raise DataError(
            f"{path} has {count}, {first_of(map(repr, names))}",
            hint=f"for another separator: --separator {other!r}, or separator={other!r} in Python",
        )
    if all(number_in(name) is not None for name in names):
        raise DataError(f"{path} has no header, its first line is all numbers", hint=hint)
    if _alike(names, second):
        raise DataError(
            f"{path} has no header, its first line is like the second: {','.join(names)[:60]}",
            hint=f"add a line before it that names the {len(names)} columns",
        )
    return names, rows if following is None else chain([following], rows)


def _stripped(cells: Sequence[str]) -> list[str]:
    return [cell.strip() for cell in cells]


def _alike(names: Sequence[str], second: Sequence[str]) -> bool:
    """Return whether the first line is data: it has numbers exactly where the second has them.

    Columns may be called by their numbers, 0,1,2 or 1,2,3, in their order.
    """
    numbers = [number_in(name) for name in names]
    written = [number for number in numbers if number is not None]
    if not written or len(names) != len(second):
        return False
    counted = [written[0] + step for step in range(len(written))]
    if written == counted and written[0] in (0, 1) and len(written) > 1:
        return False
    return [number is None for number in numbers] == [number_in(cell) is None for cell in second]


def _other_separator(names: Sequence[str], second: Sequence[str]) -> str | None:
    """Return a separator that is more frequent than commas, equally often in each line, or None."""
    first, line = ",".join(names), ",".join(second)
    for mark in ";\t|":
        count = first.count(mark)
        if count >= len(names) and (not second or line.count(mark) == count):
            return mark
    return None


def _numbers(header: Header, read: Read, line: int, cells: list[str]) -> list[float]:
    """Return the numbers of a line, NaN where none is read; raise DataError for a wrong cell."""
    found = [math.nan] * len(cells)
    for position in read.numbers:
        if position in read.codes:
            found[position] = _code(read.codes[position], cells[position].strip())
            continue
        number = number_in(cells[position])
        if number is None or not abs(number) <= _FLOAT32_MAX:
            text = cells[position].strip()
            if read.fill is None or text.lower() not in MISSING:
                raise no_number(header, line, position, text)
            number = read.fill
        found[position] = number
    if read.words is not None:
        word = cells[read.words].strip()
        if not word and not read.optional:
            raise no_number(header, line, read.words, word)
        number = number_in(word)
        if number is not None:
            if not abs(number) <= _FLOAT32_MAX:
                raise no_number(header, line, read.words, word)
            found[read.words] = number
    return found


def _code(codes: Mapping[str, int], word: str) -> float:
    """Return the number of a word."""
    return math.nan if word.lower() in MISSING else codes.get(word, -1)


def no_number(header: Header, line: int, column: int, text: str) -> DataError:
    """Return the error for a cell that is empty or not a number."""
    what = f"{text[:40]!r} is not a finite float32 number" if text else "the value is missing"
    hint = "fill missing values, and encode words as numbers, before loading"
    return header.wrong_at(line, column, what, hint)


def number_in(text: str) -> float | None:
    """Return the number in a cell, or None; `1_000`, which Python reads, does not count."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None
