"""Types of command-line values, and options that several commands share."""

from __future__ import annotations

import argparse
import re
import textwrap
from typing import TYPE_CHECKING

from graphc.backends.table import BACKENDS
from graphc.declare.optim import SGD, Adam, AdamW, Optimizer

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

OPTIMIZERS = ("sgd", "momentum", "adam", "adamw")


def add_command(
    commands: Commands, name: str, *, help: str, description: str, example: str
) -> argparse.ArgumentParser:
    """Add a command whose --help ends with an example."""
    return commands.add_parser(
        name,
        help=help,
        description="\n\n".join(textwrap.fill(part, 79) for part in description.split("\n\n")),
        epilog="example:\n" + textwrap.indent(example, "  "),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def positive(text: str) -> int:
    """Return an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def whole(text: str) -> int:
    """Return an integer of 0 or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    return int(text)


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


def fraction(text: str) -> float:
    """Return a number from 0 to below 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to below 1")
    return value


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the argument MODEL."""
    parser.add_argument(
        "model", metavar="MODEL", help="file.py:function, a saved model, or an .onnx file"
    )


def add_data(parser: argparse.ArgumentParser, what: str, *, required: bool) -> None:
    """Add the options --data and --label, for data with labels."""
    parser.add_argument("--data", required=required, metavar="FILE", help=what)
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="which column of a .csv file is the label (default: y, label or target, else the "
        "last)",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option --json."""
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def add_optimizer(parser: argparse.ArgumentParser) -> None:
    """Add the option --optimizer."""
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="momentum is sgd with momentum 0.9")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Add the options --backend and --threads."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        help="what runs it (default: GRAPHC_BACKEND, or native where it is available)",
    )
    add_threads(parser)


def add_threads(parser: argparse.ArgumentParser) -> None:
    """Add the option --threads."""
    parser.add_argument(
        "--threads",
        type=positive,
        help="threads of the native backend (default: GRAPHC_THREADS, OMP_NUM_THREADS or all "
        "cores)",
    )


def optimizer(name: str, lr: float | None) -> Optimizer:
    """Return the optimizer of that name, with its usual learning rate if none is given."""
    if name == "adam":
        return Adam(lr=0.001 if lr is None else lr)
    if name == "adamw":
        return AdamW(lr=0.001 if lr is None else lr)
    if name == "momentum":
        return SGD(lr=0.01 if lr is None else lr, momentum=0.9)
    return SGD(lr=0.1 if lr is None else lr)


def file_name(name: str) -> str:
    """Return a net's name as a safe file name in the current folder; models are not trusted."""
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".")[:100] or "net"
