"""Names made safe to show: any text is only text, on one line, of a bounded width."""

from __future__ import annotations

import html
import unicodedata
from functools import cache

from graphc.ir.graph import Node

WIDTH = 36


def shown(text: str) -> str:
    """Return the text with characters unfit for a line (controls, direction marks) escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if _is_plain(char) else _escaped(char) for char in text)


def short(text: str, width: int = WIDTH) -> str:
    """Return the shown text, without its middle if it is too long."""
    line = shown(text)
    if len(line) > width:
        half = (width - 1) // 2
        line = f"{line[:half]}~{line[-half:]}"
    return line


def escape(text: str) -> str:
    """Return the shown text for markup: HTML, SVG, or DOT's HTML-like labels."""
    return html.escape(shown(text))


def sentence(node: Node) -> str:
    """Return a node in one line: name, op, type, and the user's line."""
    where = f", declared at {node.locs[0]}" if node.locs else ""
    return shown(f"{node.name}: {node.op.name}, {node.type}{where}")


@cache
def _is_plain(char: str) -> bool:
    # Cc controls, Cf invisible and direction marks, Cs halves, Co/Cn none, Zl Zp line ends;
    # the joiner inside emoji is the one format character that readers need.
    return char == "\u200d" or unicodedata.category(char) not in (
        "Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp",
    )  # fmt: skip


def _escaped(char: str) -> str:
    code = ord(char)
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char) or (
        f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    )
