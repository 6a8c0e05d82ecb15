"""The format of a picture's file, and the writing of it."""

from __future__ import annotations

from pathlib import Path

from graphc.base.errors import GraphError
from graphc.files.writing import write_file

FORMATS = ("svg", "png", "pdf", "dot", "html")
PNG_DPI = 144


def format_of(target: Path) -> str:
    """Return the format that the suffix names; raise GraphError if it is not one of FORMATS."""
    format = target.suffix.lower().removeprefix(".")
    if format not in FORMATS:
        raise GraphError(
            f"cannot draw {target.name!r}: the suffix says the format",
            hint=f"one of {', '.join('.' + name for name in FORMATS)}",
        )
    return format


def put(target: Path, data: bytes) -> Path:
    """Write the file, all or nothing; raise GraphError, which says why, if that fails."""
    return write_file(target, [data], GraphError)
