"""Every promise of docs/reproducibility.md names tests, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.together import together

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "reproducibility.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_each_promise_has_a_test() -> None:
    promised = TEXT.partition("## What is not promised")[0]
    rows = [line for line in promised.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| results", "| ---"))]
    assert len(promises) >= 8
    assert all("`tests/" in row for row in promises)


@together("path, test", NAMED)
def test_the_test_is_there(path: str, test: str) -> None:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
