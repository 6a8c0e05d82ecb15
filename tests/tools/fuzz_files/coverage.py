"""How much of the readers the changed files reach: edges from line to line."""

from __future__ import annotations

import dis
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import graphc
from tests.tools.fuzz_files.read import read
from tests.tools.fuzz_files.run import files

ROOT = Path(graphc.__file__).parent
READERS = (
    *("files/container.py", "files/graph_file.py", "files/model_file.py", "ir/text/parse.py"),
    *(
        "ir/text/tokens.py",
        "ir/text/graph.py",
        "train/record/folder.py",
        "train/record/journal.py",
    ),
    "data/table.py",
)


def coverage(count: int, first: int = 0) -> Iterator[str]:
    """Lines of a report: for each reader its lines that were reached, and edges between them."""
    seen: dict[str, set[tuple[int, int]]] = defaultdict(set)
    names = {str(ROOT / name): name for name in READERS}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        name = names.get(frame.f_code.co_filename)
        if name is None:
            return None
        last = frame.f_lineno

        def line(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal last
            if event == "line":
                seen[name].add((last, frame.f_lineno))
                last = frame.f_lineno
            return line

        return line

    with tempfile.TemporaryDirectory() as folder:
        for kind, data in files(first, count):
            sys.settrace(trace)
            try:
                read(kind, data, Path(folder))
            finally:
                sys.settrace(None)
    edges = 0
    for path, name in names.items():
        reached = {line for edge in seen[name] for line in edge}
        lines = _lines(Path(path))
        edges += len(seen[name])
        numbers = f"{len(reached & lines):>4} of {len(lines):>4} lines, {len(seen[name])} edges"
        yield f"{name:<26} {numbers}"
    yield f"{edges} edges in {count:,} files"


def _lines(path: Path) -> set[int]:
    """The lines inside functions that can run."""
    found: set[int] = set()
    queue = [compile(path.read_text(), str(path), "exec")]
    while queue:
        code = queue.pop()
        children = [child for child in code.co_consts if isinstance(child, CodeType)]
        queue.extend(children)
        if code.co_name not in ("<module>",) and code.co_flags & 0x2:
            found |= {line for _, line in dis.findlinestarts(code) if line}
            found.discard(code.co_firstlineno)
    return found
