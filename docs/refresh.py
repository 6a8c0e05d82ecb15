"""Run the Python blocks of the documents and bring the text printed under them up to date.

    python docs/refresh.py            rewrites the text blocks
    tests/test_docs.py                runs the same blocks and compares

The blocks of one document run in order and share their names, in an empty folder.  A ```text
block right after a ```python block is what the latter prints.  Decimals of six digits and more may
differ by one part in 10,000: the last digits of a sum are the processor's.
"""

from __future__ import annotations

import contextlib
import io
import linecache
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ("README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)
LONG = re.compile(r"(?<![\w.])-?(?=(?:\d\.?){6})\d+\.\d+(?:e[-+]?\d+)?(?![\w.])")
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Block:
    """A block of Python: what the document says that it prints, and what it does print."""

    line: int
    expected: str | None
    printed: str
    span: tuple[int, int] | None


def blocks(document: str) -> Iterator[Block]:
    """Run a document's blocks; an exception of theirs comes out as it is."""
    text = (ROOT / document).read_text()
    names: dict[str, object] = {"__name__": "__main__"}
    for number, match in enumerate(BLOCK.finditer(text), 1):
        line = text.count("\n", 0, match.start(1)) + 1
        printed = _run(match[1], f"<{Path(document).stem}, block {number}>", names)
        span = match.span(2) if match[2] is not None else None
        yield Block(line, match[2], printed, span)


def _run(source: str, name: str, names: dict[str, object]) -> str:
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(source, name, "exec"), names)
    lines = (line.rstrip() for line in out.getvalue().rstrip().splitlines())
    return "".join(f"{line}\n" for line in lines)


def same(said: str, printed: str) -> bool:
    """Compare two texts: long decimals by their values, all else letter by letter."""
    if LONG.sub("#", said) != LONG.sub("#", printed):
        return False
    pairs = zip(LONG.findall(said), LONG.findall(printed), strict=True)
    return all(math.isclose(float(a), float(b), rel_tol=TOLERANCE) for a, b in pairs)


def refreshed(document: str) -> str:
    """The document with what its blocks print now, where that is not the same."""
    text = (ROOT / document).read_text()
    for block in reversed(list(blocks(document))):
        if block.span is not None and not same(block.expected or "", block.printed):
            text = text[: block.span[0]] + block.printed + text[block.span[1] :]
    return text


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for document in DOCUMENTS:
            (ROOT / document).write_text(refreshed(document))
