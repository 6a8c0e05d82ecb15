"""The options of commands as text, a line for each, and the types of their values.

    --batch positive=128 | rows (default: 128)
    -o --out FILE | the file to write; what is
        indented goes on

Before the bar come the names, or that of an argument; then, in any order, the word in capitals that
help shows for the value; a type of `TYPES`, with a default after `=`; {these,choices}; `flag`,
`list`, `required`, `?`, `*`, `+` or `...`, as argparse has them; `?=1` for an option without a
value; and `as=name` for the attribute.  `@name` stands for options of `SHARED`, and [name] begins a
group of the help.
"""

from __future__ import annotations

import argparse
import codecs
import importlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from graphc.backends.backend import BACKENDS
from graphc.base.own_passes import own_passes
from graphc.data.table import PLAIN
from graphc.declare.optim import SGD, Adam, AdamW, Optimizer

OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": SGD(lr=0.1),
    "momentum": SGD(lr=0.01, momentum=0.9),
    "adam": Adam(lr=0.001),
    "adamw": AdamW(lr=0.001),
}
"""The optimizers by name, with their usual learning rates."""

SHARED = {
    "model": "model MODEL | file.py:function, a saved model, or an .onnx file",
    "label": """
--label COLUMN | which column of a .csv file is the label (default: y, label or target, else the
    last)
@form
""",
    "form": f"""
--separator separator={PLAIN.separator} MARK | the mark between columns, such as ";", or tab
    (default: a comma)
--encoding encoding={PLAIN.encoding} | (default: UTF-8)
--drop COLUMN,... list | columns that are not read
--fill number NUMBER | the number for missing ones: empty cells, NA, NaN, null, none, ?
""",
    "batch": "--batch positive=128 | rows (default: 128)",
    "json": "--json flag | print JSON, for programs",
    "optimizer": f"--optimizer {{{','.join(OPTIMIZERS)}}} | momentum is sgd with momentum 0.9",
    "backend": f"""
--backend {{{",".join(BACKENDS)}}} | the backend (default: GRAPHC_BACKEND, or native where it is
    available)
@threads
""",
    "precision": """
--precision precision LAYER=bf16,... | the precision of products by layers, such as
    '*=bf16,scores=float32', or bf16_blocks; bf16 alone is for those layers that bfloat16 makes
    faster here
""",
    "passes": """
--passes FILE:NAME | your own passes: a gc.passes list takes the place of the default list; a pass,
    or a tuple of them, runs after the default passes, before the last dead_code
""",
    "threads": """
--threads positive | threads of the native backend (default: GRAPHC_THREADS, OMP_NUM_THREADS or all
    cores)
""",
    "net": """
model MODEL ? | file.py:function, a saved model, or an .onnx file
--hidden widths WIDTH,... | a perceptron with these hidden layers in place of a MODEL; it prepares
    words and missing values, and has classes for labels that are words or at most 20 whole numbers
--regression flag | with --hidden: the label is always a number
""",
}
"""The options that several commands have, by name."""


def declare(parser: argparse.ArgumentParser, text: str) -> None:
    """Declare the options of a text."""
    into: Any = parser
    for line in _lines(text):
        spec, _, help = line.partition(" | ")
        if line.startswith("["):
            into = parser.add_argument_group(line[1:-1]) if line != "[]" else parser
        else:
            names, how = _declared(spec.split())
            into.add_argument(*names, help=help, **how)


def _lines(text: str) -> Iterator[str]:
    """Yield the lines of a text and of the shared ones that it names."""
    for line in re.sub(r"\n +", " ", text).strip().splitlines():
        yield from _lines(SHARED[line[1:]]) if line.startswith("@") else [line]


def _declared(words: list[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the names of an option, and how argparse declares it."""
    names = [word for word in words if word.startswith("-")] or words[:1]
    how: dict[str, Any] = {}
    for word in words[len(names) :]:
        name, equals, value = word.partition("=")
        if word in WORDS:
            how |= WORDS[word]
        elif word[0] in "?*+" or word == "...":
            how |= {"nargs": name} | ({"const": int(value) if value else value} if equals else {})
        elif word.startswith("{"):
            how["choices"] = word[1:-1].split(",")
        elif word == "passes_text":
            how |= {"action": "version", "version": passes_text()}
        elif name == "as":
            how["dest"] = value
        elif name in TYPES:
            how |= {"type": TYPES[name]} | ({"default": value} if equals else {})
        else:
            how["metavar"] = word
    return names, how


WORDS: Mapping[str, dict[str, Any]] = {
    "flag": {"action": "store_true"},
    "list": {"action": "append", "default": []},
    "required": {"required": True},
}
"""The words for more than one setting of argparse."""


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
    value = _float(text)
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return value


def fraction(text: str) -> float:
    """Return a number from 0 to below 1."""
    value = _float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to below 1")
    return value


def _float(text: str) -> float:
    """Return a number, or infinity for other text."""
    try:
        return float(text)
    except ValueError:
        return math.inf


def precision(text: str) -> str | dict[str, str]:
    """Return the precision of layers: `*=bf16,scores=float32` as a mapping, a word as it is."""
    if "=" not in text:
        return text
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    return {pattern.strip(): to.strip() for pattern, _, to in pairs}


def _measure(text: str, pattern: str, what: str) -> re.Match[str]:
    """Return the match of a number with a unit; raise ArgumentTypeError for other text."""
    match = re.fullmatch(rf"(\d+(?:\.\d+)?) ?{pattern}", text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return match


def nbytes(text: str) -> int:
    """Return a number of bytes: an integer, or a number with a unit: kB, MB, GB, KiB or MiB."""
    pattern, what = "([kMG]?B?|[KMG]iB)", "a size; examples are 8000000, 8MB and 8MiB"
    number, unit = _measure(text, pattern, what).groups()
    base = 1024 if "i" in unit else 1000
    return int(float(number) * base ** " kmg".index(unit[:1].lower().replace("b", "") or " "))


_MULTIPLES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_PARTS = {"": 1.0, "m": 1e3, "u": 1e6, "n": 1e9}


def bandwidth(text: str) -> float:
    """Return the bytes per second of 10Gb/s or 1.2GB/s: b is bits, B is bytes."""
    what = "a bandwidth; examples are 10Gb/s and 1.2GB/s"
    match = _measure(text, "([kMG]?)(b|B)/s", what)
    if not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return float(match[1]) * _MULTIPLES[match[2]] / (8 if match[3] == "b" else 1)


def latency(text: str) -> float:
    """Return the seconds of 20us or 1.5ms."""
    match = _measure(text, "([mun]?)s", "a time; examples are 20us and 1.5ms")
    return float(match[1]) / _PARTS[match[2]]


def dimension(text: str) -> tuple[str, int]:
    """Return the name and the size of a dimension."""
    name, sign, size = text.rpartition("=")
    if not sign or not name or not size.isdecimal() or int(size) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a dimension; an example is sequence=128")
    return name, int(size)


def setting(text: str) -> tuple[str, tuple[float, ...]]:
    """Return the name and the values of a setting."""
    name, equals, values = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE,...")
    found = tuple(int(one) if one.isdecimal() else number(one) for one in values.split(","))
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text!r} has a value twice")
    return name, found


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


TYPES: Mapping[str, Callable[[str], Any]] = {
    **{"text": str, "int": int, "float": float},
    **{"positive": positive, "whole": whole, "several": from_up(2)},
    **{each.__name__: each for each in (widths, separator, encoding, number, fraction)},
    **{each.__name__: each for each in (precision, nbytes, bandwidth, latency)},
    **{each.__name__: each for each in (dimension, setting)},
}
"""The types of values by name."""
