"""The arguments that commands share: types of values and options; and JSON output."""

from __future__ import annotations

import argparse
import codecs
import importlib
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

from graphc.backends.backend import BACKENDS
from graphc.base.errors import GraphError
from graphc.base.own_passes import own_passes
from graphc.data.table import PLAIN
from graphc.declare.optim import SGD, Adam, AdamW, Optimizer

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction["Parser"]


class Parser(argparse.ArgumentParser):
    """A parser with the options that several commands share."""

    def add_model(self, *, required: bool = True) -> None:
        """Add the argument MODEL."""
        self.add_argument(
            "model",
            metavar="MODEL",
            nargs=None if required else "?",
            help="file.py:function, a saved model, or an .onnx file",
        )

    def add_data(self, what: str, *, required: bool) -> None:
        """Add the options --data and --label, for data with labels."""
        add = self.add_argument
        add("--data", required=required, metavar="FILE", help=what)
        add(
            "--label",
            metavar="COLUMN",
            help="which column of a .csv file is the label (default: y, label or target, else the "
            "last)",
        )
        self.add_form()

    def add_form(self) -> None:
        """Add the options that say how a .csv file is written, and what is read of it."""
        add = self.add_argument
        add(
            "--separator",
            type=separator,
            default=PLAIN.separator,
            metavar="MARK",
            help='the mark between columns, such as ";", or tab (default: a comma)',
        )
        add("--encoding", type=encoding, default=PLAIN.encoding, help="(default: UTF-8)")
        add(
            "--drop",
            metavar="COLUMN,...",
            action="append",
            default=[],
            help="columns that are not read",
        )
        add(
            "--fill",
            type=number,
            metavar="NUMBER",
            help="the number for missing ones: empty cells, NA, NaN, null, none, ?",
        )

    def add_batch(self) -> None:
        """Add the option --batch."""
        self.add_argument("--batch", type=positive, default=128, help="rows (default: 128)")

    def add_json(self) -> None:
        """Add the option --json."""
        self.add_argument("--json", action="store_true", help="print JSON, for programs")

    def add_optimizer(self) -> None:
        """Add the option --optimizer."""
        self.add_argument(
            "--optimizer", choices=OPTIMIZERS, help="momentum is sgd with momentum 0.9"
        )

    def add_backend(self) -> None:
        """Add the options --backend and --threads."""
        self.add_argument(
            "--backend",
            choices=BACKENDS,
            help="the backend (default: GRAPHC_BACKEND, or native where it is available)",
        )
        self.add_threads()

    def add_precision(self) -> None:
        """Add the option --precision."""
        self.add_argument(
            "--precision",
            type=precision,
            metavar="LAYER=bf16,...",
            help="the precision of products by layers, such as '*=bf16,scores=float32', or "
            "bf16_blocks; bf16 alone is for those layers that bfloat16 makes faster here",
        )

    def add_passes(self) -> None:
        """Add the option --passes."""
        self.add_argument(
            "--passes",
            metavar="FILE:NAME",
            help="your own passes: a gc.passes list takes the place of the default list; a pass, "
            "or a tuple of them, runs after the default passes, before the last dead_code",
        )

    def add_threads(self) -> None:
        """Add the option --threads."""
        self.add_argument(
            "--threads",
            type=positive,
            help="threads of the native backend (default: GRAPHC_THREADS, OMP_NUM_THREADS or all "
            "cores)",
        )


@dataclass(frozen=True)
class Command:
    """The declaration of a command, beside the functions `declare` and `run` in its file."""

    name: str
    help: str
    description: str
    example: str
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
    module.declare(parser)
    parser.set_defaults(run=module.run, mistake=command.mistake)


def from_up(least: int) -> Callable[[str], int]:
    """Return the type of an option that takes a whole number from `least` up."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} up")
        return int(text)

    return number


positive, whole = from_up(1), from_up(0)


def widths(text: str) -> list[int]:
    """Return the widths of hidden layers: 64,32; "" for none."""
    return [positive(width) for width in text.split(",")] if text else []


def separator(text: str) -> str:
    """Return the character between the columns of a table."""
    mark = {"tab": "\t", "\\t": "\t"}.get(text, text)
    if len(mark) != 1 or mark in '"\r\n':
        raise argparse.ArgumentTypeError(f"{text!r} is not one character, or tab")
    return mark


def encoding(text: str) -> str:
    """Return the name of an encoding of text."""
    try:
        codecs.lookup(text)
    except (LookupError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r} is not an encoding, as latin-1 is") from None
    return text


def number(text: str) -> float:
    """Return a number that is finite in float32."""
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def nbytes(text: str) -> int:
    """Return a number of bytes: an integer, or a number with a unit: kB, MB, GB, KiB or MiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMG]?B?|[KMG]iB)", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; examples are 8000000, 8MB and 8MiB"
        )
    number, unit = match.groups()
    base = 1024 if "i" in unit else 1000
    return int(float(number) * base ** " kmg".index(unit[:1].lower().replace("b", "") or " "))


def precision(text: str) -> str | dict[str, str]:
    """Return the precision of layers: `*=bf16,scores=float32` as a mapping, a word as it is."""
    if "=" not in text:
        return text
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return {pattern.strip(): to.strip() for pattern, _, to in pairs}


def fraction(text: str) -> float:
    """Return a number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to below 1")
    return value


OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": SGD(lr=0.1),
    "momentum": SGD(lr=0.01, momentum=0.9),
    "adam": Adam(lr=0.001),
    "adamw": AdamW(lr=0.001),
}
"""The optimizers by name, with their usual learning rates."""


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


def passes_text() -> str:
    """Return a line for each pass of the compiler: its name, guarantee and purpose."""
    passes, lines = own_passes(), []
    for name in dict.fromkeys(passes.DEFAULT.names):
        module = importlib.import_module(f"passes.{name}")
        made = getattr(module, name, None) or getattr(module, name.title().replace("_", ""))
        what = (module.__doc__ or "").strip().partition("\n")[0]
        need = "  (required)" if name in passes.REQUIRED else ""
        lines.append(f"{name:<28} {passes.preserves_of(made):<13} {what}{need}")
    return "\n".join(lines)
