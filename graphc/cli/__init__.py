"""The command `graphc`: one file for each command, and the only package that prints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from graphc.base.errors import GraphError

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its status, or 1 if graphc itself cannot be imported."""
    try:
        command_line = import_module("graphc.cli.command_line")
    except GraphError as error:  # another package `passes` is in the way
        print(f"error: {error}", file=sys.stderr)
        return 1
    status: int = command_line.main(argv)
    return status
