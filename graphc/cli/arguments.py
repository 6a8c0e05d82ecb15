"""What commands share: their declaration, and how they print text and JSON."""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.cli.options import OPTIMIZERS, declare
from graphc.declare.optim import Optimizer

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


@dataclass(frozen=True)
class Command:
    """The declaration of a command, beside the function `run` in its file."""

    name: str
    help: str
    description: str
    example: str
    options: str = ""
    """What it takes, as text: see options.py."""
    order: int = 1000
    """The position in the list of commands, ascending."""
    mistake: int = 1
    """The exit status after an error."""


def add_command(commands: Commands, module: Any) -> None:
    """Add the command that a module declares; its --help ends with an example."""
    command: Command = module.COMMAND
    paragraphs = (textwrap.fill(part, 79) for part in command.description.split("\n\n"))
    parser = commands.add_parser(
        command.name,
        help=command.help,
        description="\n\n".join(paragraphs),
        epilog="example:\n" + textwrap.indent(command.example, "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    declare(parser, command.options)
    parser.set_defaults(run=module.run, mistake=command.mistake)


def optimizer(name: str | None, lr: float | None = None) -> Optimizer | None:
    """Return the optimizer of that name, if any, with its usual learning rate if none is given."""
    if name is None or lr is None:
        return None if name is None else OPTIMIZERS[name]
    return replace(OPTIMIZERS[name], lr=lr)


def file_name(name: str) -> str:
    """Return a net's name as a safe file name in the current folder; models are not trusted."""
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".")[:100] or "net"


def show(args: argparse.Namespace, data: Mapping[str, Any], text: object) -> None:
    """Print data as JSON if the option --json is given, else the text."""
    if args.json:
        print_json(data)
    else:
        print(text)


def warned(path: Path, make: Callable[[Path], object]) -> list[Path]:
    """Make a file, or print a line with what to install; return the path of what was made."""
    try:
        make(path)
    except GraphError as error:
        commands = (line.strip() for line in error.hint.splitlines() if "pip install" in line)
        reason = "; ".join([error.sentence, *list(commands)[:1]])
        print(f"warning: no {path.name}: {reason}", file=sys.stderr)
        return []
    return [path]


def print_json(found: Mapping[str, Any]) -> None:
    """Print one JSON object, a line for each of its keys.

    Numbers that are not finite, which JSON does not have, are null.
    """
    lines = (
        f"{json.dumps(key)}: {json.dumps(_plain(value), allow_nan=False)}"
        for key, value in found.items()
    )
    print("{" + ",\n ".join(lines) + "}")


def picked(value: object, *names: str) -> dict[str, Any]:
    """Return these attributes of a value by name."""
    return {name: getattr(value, name) for name in names}


def _plain(value: Any) -> Any:
    """Return the value in types that JSON has; fields of a dataclass by name."""
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
