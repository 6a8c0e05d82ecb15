"""Kinds of the columns of a `.csv` file: numbers or words, with gaps or without."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from graphc.base.errors import DataError
from graphc.data.table import MISSING, Form, Header, number_in, read_lines

MOST_WORDS = 1000
"""The most different words of a column that are categories rather than names or notes."""
FEW_WORDS = 20
"""The different words that may be categories although most rows have one of their own."""
MOST_CLASSES = 20
"""The most different whole numbers of a label that are classes rather than amounts."""


@dataclass
class Kind:
    """The kind of the cells of a column."""

    texts: set[str] = field(default_factory=set)
    """Different cells with a value: all, or more than there may be words."""
    words: bool = False
    """True if a cell is not a number."""
    gaps: bool = False
    rows: int = 0

    def add(self, text: str) -> None:
        """Take a cell into account."""
        self.rows += 1
        if text.lower() in MISSING:
            self.gaps = True
            return
        if len(self.texts) <= MOST_WORDS:
            self.texts.add(text)
        self.words = self.words or number_in(text) is None

    @property
    def names(self) -> bool:
        """True if it has too many words for categories."""
        count = len(self.texts)
        return self.words and (count > MOST_WORDS or count > max(FEW_WORDS, self.rows / 2))

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes if it is a label: words, or few whole numbers; none for amounts."""
        if self.words:
            return tuple(sorted(self.texts))
        whole = all(text.lstrip("+-").isdecimal() for text in self.texts)
        return (
            tuple(sorted(self.texts, key=float))
            if whole and len(self.texts) <= MOST_CLASSES
            else ()
        )


def kinds(path: str | Path, form: Form) -> tuple[Header, list[Kind]]:
    """Return the header and the kind of each column; raise DataError for a file without rows."""
    with read_lines(path, form) as (header, rows):
        found = [Kind() for _ in header.header]
        for _, cells in rows:
            for kind, cell in zip(found, cells, strict=True):
                kind.add(cell.strip())
    if not found[0].rows:
        raise DataError(f"{path} has a header but no rows", hint="add a line per sample")
    return header, found


def check_words(header: Header, kinds: list[Kind], columns: Iterator[int]) -> None:
    """Raise DataError for a column with too many words for categories."""
    for column in columns:
        if kinds[column].names:
            raise DataError(
                f"{header.path} has too many different words for categories in column "
                f"{header.header[column]!r}",
                hint="leave out names and notes: --drop COLUMN",
            )
