"""Which format a picture's file has, and writing it."""

from __future__ import annotations

from pathlib import Path

from graphc.errors import GraphError
from graphc.files.writing import write_file

FORMATS = ("svg", "png", "pdf", "dot", "html")
PNG_DPI = 144


def format_of(target: Path) -> str:
    """The format that the suffix says; GraphError where it is none of FORMATS."""
    format = target.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise GraphError(
            f"cannot draw {target.name!r}: the suffix says the format",
            hint=f"one of {', '.join('.' + name for name in FORMATS)}",
        )
    return format


def put(target: Path, data: bytes) -> Path:
    """Write the file, all or nothing; GraphError, which says why, where that cannot be."""
    return write_file(target, [data], GraphError)
