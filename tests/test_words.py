"""Docstrings and messages use the field's words, not words of graphc's own."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.sources import FILES, ROOT, nodes_of, parsed
from tests.together import together

# A word that is not used, and the phrases in which it has its plain sense.
WORDS = {
    r"vert(ex|ices)": (),
    r"tensors?": ("tensor type", "sequences? of tensors", "state_dict, whose tensors"),
    r"parents?": ("belong to the parent",),  # of a fork
    r"child(ren)?": ("child of (a fork|fork|multiprocessing)", "fork the child", "forked child"),
    r"tapes?": (),
    r"lifetimes?": (),
    r"elsewhere": (),
    r"walk(s|ed|ing)?": (),
    r"spots?": (),
    r"added rows": (),
    r"turned": ("turned (on|off|into)",),
    r"stands?": ("stands? (alone|still)",),
    r"border": (),
    r"hold_back": ("data_parallel and hold_back",),  # a pass
    r"told": (),
    r"recipe": ("pickle's recipe",),
    r"naive": (),
    r"snapshots?": (),
    r"(is|are) no": ("there (is|are) no", "(is|are) no (longer|more|less|larger|smaller)"),
    r"readers?": (
        "(its|a) reader (has|find|finds|closes|that takes)|words for readers",  # of a pipe, a text
        "when the reader|the reader of names|readers need",
    ),
    r"spans?": (
        "the window spans|window spans|stride . span",
        "fill a span|last span|the spans are",
    ),
    # Words that English needs: these are the senses that graphc alone gave them.
    r"turns? (the|its|their) (axes|matrix|factors?|rows)": (),
    r"comput(e|es|ed|ing)( \w+)? again": (),
    r"(summed|sums?|reduced|reduces|added|adds|means?) along": (),
    r"(fits?|fitted) (a|the) (loop|space|rows and columns)": (),
    r"merged? updates?": (),
    r"repeat(s|ed)? in the backward": (),
    r"after[- ]edges?": (),
    r"threads split|split (by|among|between|across) (the )?(threads|rows|columns)": (),
    r"shards? of (a|the) (file|folder|data)|shard files?": (),
    r"(taken|direct) (feeds?|arrays?)|fed directly": (),
    r"(memory|byte) pools?|pool of (bytes|memory)": (),
    r"(convolution|image) kernels?|kernels? of (a|the) convolution": (),
    r"what it is|those that are": (),
}
ONNX = {r"tensors?"}
"""The words that ONNX itself has for what it is about."""

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
    "naive": (  # the course's names
        "conv_forward_naive",
        "conv_backward_naive",
        "max_pool_forward_naive",
        "max_pool_backward_naive",
    ),
    "snapshot": ("snapshot",),  # of an executor
    "recipe": (),
}


@cache
def texts(path: Path) -> list[tuple[int, str]]:
    """The docstrings and the other strings of more than a word, on one line, with their lines."""
    return [
        (node.lineno, re.sub(r"(cell)?border=|</?span\b", "", " ".join(text.split())))  # HTML
        for node in nodes_of(parsed()[path])
        if isinstance(node, ast.Constant) and " " in (text := str(node.value))
    ]


@cache
def joined(path: Path) -> str:
    """All texts of a file, a line for each."""
    return "\n".join(text for _, text in texts(path))


def found(word: str, plain: tuple[str, ...], flat: str) -> list[str]:
    """The places of a word, with what is around it, that have no plain sense."""
    if not re.search(rf"\b(?:{word})\b", flat):
        return []
    for phrase in plain:
        flat = re.sub(rf"(?i)\b(?:{phrase})\b", "", flat)
    matches = re.finditer(rf"\b(?:{word})\b", flat)
    return [flat[max(0, m.start() - 30) : m.end() + 30] for m in matches]


@together("word", WORDS)
def test_a_word_is_used_in_its_plain_sense_only(word: str) -> None:
    places = [
        f"{path.relative_to(ROOT)}:{line}: {place}"
        for path in FILES
        if not (word in ONNX and "onnx" in path.parts)
        if re.search(rf"\b(?:{word})\b", joined(path))  # seldom, and one search is fast
        for line, text in texts(path)
        for place in found(word, WORDS[word], text)
    ]
    assert not places, "\n".join(places)


def test_docstrings_begin_with_what_a_thing_is_or_does() -> None:
    begins = re.compile(r"(What|Which|How|Where|Whether|Those|Its|One of)\b")
    places = [
        f"{path.relative_to(ROOT)}:{line}: {text[:60]}"
        for path in FILES
        for line, text in texts(path)
        if begins.match(text) and text.rstrip().endswith(".") and "{" not in text
    ]
    assert not places, "\n".join(places)


@cache
def names(path: Path) -> list[tuple[int, str]]:
    """The names that a file defines, and its own, with their lines."""
    return [*_defined(parsed()[path]), (1, path.stem)]


def _defined(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in nodes_of(tree):
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
        for line, name in names(path)
        if part in name.lower()
        and part in re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_")
        and name not in NAMES[part]
    ]
    assert not places, "\n".join(places)
