"""The command `graphc`: one file for each command, and the only package that prints."""

from __future__ import annotations

from graphc.cli.command_line import main

__all__ = ["main"]
