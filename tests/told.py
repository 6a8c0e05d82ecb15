"""What an error says beside the lines of the code that led to it."""

from __future__ import annotations


def told(error: BaseException) -> str:
    """The text of an error without the lines `at` and `called at`."""
    where = ("  at ", "  called at ")
    return "\n".join(line for line in str(error).splitlines() if not line.startswith(where))
