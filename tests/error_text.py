"""The text of an error without the lines of code that it names."""

from __future__ import annotations


def error_text(error: BaseException) -> str:
    """Return the text of an error without the lines `at` and `called at`."""
    where = ("  at ", "  called at ")
    return "\n".join(line for line in str(error).splitlines() if not line.startswith(where))
