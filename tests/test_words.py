"""Docstrings and messages use the field's words, not words of graphc's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for room in ("graphc", "passes") for path in (ROOT / room).rglob("*.py"))

# A word that is not used, and the phrases in which it has its plain sense.
WORDS = {
    r"vert(ex|ices)": (),
    r"tensors?": (r"[tT]ensor'?s? in PyTorch", r"PyTorch'?s? tensors?", r"ONNX'?s? tensors?"),
    r"parents?": (r"parent (process|folder|class)(es|s)?", r"parents? (exists?|of the file)"),
    r"child(ren)?": (r"child(ren)? process(es)?", r"child of a fork"),
    r"deltas?": (r"Huber'?s? delta", r"`delta`", r"delta"),
    r"tapes?": (),
    r"lifetimes?": (),
    r"elsewhere": (),
    r"walk(s|ed|ing)?": (),
    r"spots?": (),
    r"added rows": (),
    r"turned": (r"turned (on|off|into)",),
    r"stands? for": (),
    r"stands?": (r"stands? (alone|still)",),
    r"border": (r"border (of|around) (a|an|the) (image|box|picture|cell|table)",),
    r"hold_back": (),
    r"told": (),
    r"recipe": (),
    r"naive": (),
    r"snapshots?": (),
    r"is told|are told": (),
    r" is no ": (r"there is no", r"is no longer", r"is no more than", r"it is no use"),
    r"what it": (),
    r"those that": (),
}

# Parts of names that are not used, and the names that may have them.
NAMES = {
    "vertex": (),
    "tape": (),
    "lifetime": (),
    "elsewhere": (),
    "walk": (),
    "spot": (),
    "turned": (),
    "stands": (),
    "border": ("border",),  # of a box in a picture
    "told": (),
    "naive": (),
    "snapshot": (),
    "recipe": (),
}


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings and the other strings of more than a word, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def found(word: str, plain: tuple[str, ...], text: str) -> list[str]:
    """The places of a word, with what is around it, that have no plain sense."""
    flat = " ".join(text.split())
    for phrase in plain:
        flat = re.sub(rf"\b(?:{phrase})(?!\w)", "", flat)
    pattern = word if word.startswith(" ") else rf"\b(?:{word})\b"
    return [flat[max(0, m.start() - 30) : m.end() + 30] for m in re.finditer(pattern, flat)]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_used_in_its_plain_sense_only(word: str) -> None:
    places = [
        f"{path.relative_to(ROOT)}:{line}: {place}"
        for path in FILES
        for line, text in texts(path)
        for place in found(word, WORDS[word], text)
    ]
    assert not places, "\n".join(places)


def names(path: Path) -> Iterator[tuple[int, str]]:
    """The names that a file defines, with their lines."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id


@pytest.mark.parametrize("part", NAMES)
def test_a_word_is_not_part_of_a_name(part: str) -> None:
    places = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in FILES
        for line, name in [*names(path), (1, path.stem)]
        if part in re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
        and name not in NAMES[part]
    ]
    assert not places, "\n".join(places)
