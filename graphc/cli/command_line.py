"""The command line: find the command, run it, and make exit statuses of errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import graphc
from graphc.base.errors import GraphError
from graphc.cli.arguments import Parser, add_command
from graphc.cli.data import MissingColumns
from graphc.cli.model import UsersError


def find_commands() -> list[Any]:
    """Return the modules of graphc.cli that have a COMMAND, in the order of the help."""
    names = (module.name for module in iter_modules(sys.modules["graphc.cli"].__path__))
    modules = [import_module(f"graphc.cli.{name}") for name in names if name != "command_line"]
    commands: list[Any] = [module for module in modules if hasattr(module, "COMMAND")]
    return sorted(commands, key=lambda module: (module.COMMAND.order, module.COMMAND.name))


COMMANDS = find_commands()

BROKEN_PIPE = 128 + 13
"""The status that shells show for a program that SIGPIPE ended: its reader has closed the pipe."""

MODEL = """\
MODEL is file.py:function, a function without arguments that returns a gc.Net,
a model that gc.save wrote, or an .onnx file.

graphc COMMAND --help shows an example.  The exit status is 0 when all is well,
1 after an error, 2 for wrong usage, such as a table without a column that the
model was trained on, 130 after Ctrl-C, and 141 when the reader of a pipe closes it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 0 if all is well, 1 after an error, 2 for wrong usage.

    Commands whose answer is the status, such as compare, set `mistake`, the status after an error.
    """
    try:
        status = _status(argv)
        sys.stdout.flush()  # raises BrokenPipeError if nobody reads any more
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        # So that the flush at the end of Python does not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return status


def _status(argv: Sequence[str] | None) -> int:
    parser = _parser(tuple(COMMANDS))
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed its message
        return stop.code if isinstance(stop.code, int) else 2
    mistake: int = args.mistake
    try:
        return int(args.run(args))
    except GraphError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, MissingColumns) else mistake
    except UsersError as error:
        print(error, file=sys.stderr, end="")
        return mistake
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # it is an OSError, but nothing went wrong: `main` ends quietly
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        return mistake
    except MemoryError as error:
        print(f"error: there is not enough memory: {error}", file=sys.stderr)
        return mistake


@cache
def _parser(modules: tuple[Any, ...]) -> Parser:
    """Return the parser of the commands that the modules declare."""
    parser = Parser(
        prog="graphc",
        description="Compile neural networks, as static graphs, for the CPU.",
        epilog=MODEL,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"graphc {graphc.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in modules:
        add_command(commands, module)
    return parser
