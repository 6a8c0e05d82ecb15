"""What is outside of a feature's folders hardly knows of it.

A file knows of a feature if its code has one of the feature's words, docstrings and comments apart.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.sources import ROOT, nodes_of, parsed


class Feature(NamedTuple):
    """The words of a feature, where they may stand, and how many other files may know them."""

    words: str
    own: str
    most: int


FEATURES = {
    "bfloat16": Feature(r"bfloat16|bf16", r"precision|bfloat16", 37),
    "loops": Feature(r"[Ss]can(?!dir|cel)", r"scan|loops", 14),
    "shards": Feature(
        r"[Ss]hard|[Dd]istributed|\bSend\b|\bReceive\b|[Aa]ll_?[Rr]educe|\bmpi\b|MPI|\branks\b",
        r"shard|distributed|exchange|data_parallel|keep_sends|ranks|transfer",
        53,
    ),
    "members": Feature(r"[Mm]ember|[Pp]opulation", r"members|population", 45),
}
"""The features that many files once knew. What is its own is a part of a path."""


def code(text: str) -> Iterator[str]:
    """Yield the tokens of a file that are neither comments nor docstrings."""
    inside = {
        line
        for node in nodes_of(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        docstring = token.type == tokenize.STRING and token.start[0] in inside
        if not docstring and token.type != tokenize.COMMENT:
            yield token.string


def knows(feature: Feature, text: str) -> bool:
    words = re.compile(feature.words)
    return bool(words.search(text)) and any(words.search(token) for token in code(text))


@pytest.mark.parametrize("name", FEATURES)
def test_few_files_outside_know_of_a_feature(name: str) -> None:
    feature = FEATURES[name]
    paths = {path.relative_to(ROOT).as_posix(): path for path in parsed()}
    outside = [
        place
        for place, path in paths.items()
        if not re.search(feature.own, place) and knows(feature, path.read_text(encoding="utf-8"))
    ]
    assert len(outside) <= feature.most, "\n".join(outside)


def test_planted_knowledge_is_found() -> None:
    for name, text in [
        ("bfloat16", 'x = "bf16"'),
        ("loops", "scan(1)"),
        ("members", "members = 2"),
    ]:
        assert knows(FEATURES[name], text)
        assert not knows(FEATURES[name], f'"""{text[:4]} {name} scan bf16"""  # members')
