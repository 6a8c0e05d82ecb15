"""The files of graphc and passes, parsed once for all tests that read them."""

from __future__ import annotations

import ast
import gc as collector
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path for room in ("graphc", "passes") for path in (ROOT / room).rglob("*.py"))


@cache
def parsed() -> Mapping[Path, ast.Module]:
    """The syntax trees: many objects that stay, which the search for garbage leaves out."""
    collector.disable()
    try:
        trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}
        collector.freeze()
    finally:
        collector.enable()
    return trees


@cache
def nodes_of(tree: ast.AST) -> list[ast.AST]:
    """All nodes of a tree."""
    return list(ast.walk(tree))
