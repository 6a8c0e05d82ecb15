"""Tables as JSON: an entry for each row, and the checks of what is read.

A size is text such as `64`, `N`, `64+8*N` or `4*N*N`.  Usual values are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from graphc.base.errors import GraphError
from graphc.check.certificate import Axis, Kind, Pattern, Space, Word

HINT = "graphc plan MODEL --certificate FILE writes one"
LIMIT = 1 << 40
"""The bound that every number is below."""
POWERS = ("", "N", "N*N")

_TERM = re.compile(r"(?:(\d{1,13})\*)?(N(?:\*N)?)|(\d{1,13})")


class CertificateError(GraphError):
    """The error for a file that is not a certificate, or a broken one."""


column = partial(np.array, dtype=np.int64)


def checked_whole(value: Any, least: int = 0) -> int:
    """Return a whole number from `least` on; raise CertificateError if it is none."""
    if type(value) is not int or not least <= value < LIMIT:
        raise misfit(f"{value!r} is not a whole number from {least} to 2**40")
    return value


def checked_text(value: Any) -> str:
    """Return text; raise CertificateError if it is none."""
    if not isinstance(value, str):
        raise misfit(f"{value!r} is not text")
    return value


def checked_holder(value: Any, kind: type[list[Any] | dict[str, Any]]) -> Any:
    """Return a list or a JSON object; raise CertificateError if it is none."""
    if not isinstance(value, kind):
        what = "list" if kind is list else "JSON object"
        raise misfit(f"{str(value)[:40]!r} is not a {what}")
    return value


def _word(kind: type[Word], value: Any) -> int:
    words = [each.word for each in kind]
    if value not in words:
        raise misfit(f"{value!r} is not one of {', '.join(words)}")
    return words.index(value)


def _size(value: Any) -> tuple[int, ...]:
    found, last = [0, 0, 0], -1
    for term in value.split("+") if isinstance(value, str) else [""]:
        match = _TERM.fullmatch(term)
        power = -1 if match is None else POWERS.index(match[2] or "")
        if match is None or power <= last:
            raise misfit(f"{value!r} is not a size such as 64, N or 64+8*N")
        found[power], last = int(match[3] or match[1] or 1), power
    return tuple(found)


def _size_text(size: Sequence[int]) -> str:
    fixed, *factors = size
    terms = [str(fixed)] if fixed or not any(factors) else []
    for factor, rows in zip(factors, POWERS[1:], strict=True):
        if factor:
            terms.append(rows if factor == 1 else f"{factor}*{rows}")
    return "+".join(terms)


def known(number: Mapping[str, int], name: Any) -> int:
    """Return the number of a name; raise CertificateError if there is none."""
    if not isinstance(name, str) or name not in number:
        raise misfit(f"there is no {name!r}")
    return number[name]


def misfit(what: str) -> CertificateError:
    """Return the error for content that does not fit."""
    return CertificateError(f"this is not a certificate of a plan: {what}", hint=HINT)


Values = Literal["text", "size"] | int | type[Word]
"""The kind of the values of a column: text, sizes, whole numbers from that one up, or words."""
Columns = tuple[tuple[str, str, Values, Any], ...]
"""Columns of a table: each has its field, its key in JSON, its values, and the value in JSON that
may be left out, if there is one.  "life" holds the values of two columns."""

BLOCK: Columns = (
    ("space", "space", Space, None),
    ("names", "name", "text", None),
    ("size", "bytes", "size", None),
)
SLOT: Columns = (
    ("names", "name", "text", None),
    ("offset", "offset", 0, None),
    ("size", "bytes", "size", None),
    ("first", "life", 0, None),
    ("last", "life", 0, None),
)
MATRIX: Columns = (
    ("rows", "rows", "size", None),
    ("columns", "columns", "size", None),
    ("item", "item", 1, None),
    ("first", "life", 0, None),
    ("last", "life", -1, None),
)
STEP: Columns = (
    ("kind", "step", Kind, None),
    ("nodes", "node", "text", None),
    ("partition", "split", Axis, "none"),
    *((name, name, "size", "1") for name in ("rows", "columns", "depth")),
    *((name, name, 0, 0) for name in ("item", "transposed")),
    ("reduced", "reduced", Axis, "none"),
    *((name, name, 0, 0) for name in ("by_columns", "copies", "scratch")),
)
ACCESS: Columns = (
    ("pattern", "by", Pattern, "whole"),
    ("in_place", "in_place", 0, 0),
    ("reach", "reach", "size", "0"),
)
KERNEL = ("split", "rows", "columns")
OF_KERNEL = {Kind.LOOP: KERNEL, Kind.GEMM: (*KERNEL, "depth", "item")}
"""The columns of a kernel that are written even if they have the usual value."""


def entries_of(table: Any, columns: Columns) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON objects, without values that may be left out."""
    values = [getattr(table, field) for field, *_ in columns]
    found = []
    for row in zip(*(v.tolist() if isinstance(v, np.ndarray) else v for v in values), strict=True):
        always = OF_KERNEL.get(row[0], ()) if columns is STEP else ()
        line: dict[str, Any] = {}
        for (_, key, kind, usual), value in zip(columns, row, strict=True):
            word = kind(value).word if isinstance(kind, type) else value
            text = _size_text(value) if kind == "size" else word
            if key == "life":
                line.setdefault(key, []).append(text)
            elif text != usual or key in always:
                line[key] = text
        found.append(line)
    return found


def columns_of(entries: Sequence[Any], columns: Columns) -> dict[str, Any]:
    """Return the columns of a table by their fields, for its entries."""
    found: dict[str, Any] = {}
    for field, key, kind, usual in columns:
        read: Callable[[Any], Any] = checked_text if kind == "text" else _size
        if isinstance(kind, int):
            read = partial(checked_whole, least=kind)
        elif isinstance(kind, type):
            read = partial(_word, kind)
        held = [entry[key] if usual is None else entry.get(key, usual) for entry in entries]
        if key == "life":
            held = [ends[field == "last"] for ends in held]
        values = list(map(read, held))
        shape = (-1, 3) if kind == "size" else -1
        found[field] = values if kind == "text" else np.array(values, np.int64).reshape(shape)
    return found
