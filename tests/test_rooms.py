"""The rooms of graphc build on each other in one order; what is not so yet only becomes less."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "base",
    "ir",
    "kernels",
    "ops",
    "declare",
    "compiler",
    "backends",
    "runtime",
    "files",
    "train",
    "check",
    "view",
    "data",
    "onnx",
    "sklearn",
    "cli",
)
ENTRIES = 20
"""The most files and folders at the top of graphc."""
UPWARD: Counter[tuple[str, str]] = Counter(
    {
        ("ir", "kernels"): 2,
        ("ir", "ops"): 9,
        ("ir", "declare"): 2,
        ("ir", "compiler"): 2,
        ("ir", "runtime"): 1,
        ("ir", "files"): 1,
        ("ir", "check"): 5,
        ("ir", "view"): 5,
        ("ops", "compiler"): 1,
        ("declare", "files"): 1,
        ("declare", "view"): 2,
        ("compiler", "backends"): 1,
        ("compiler", "runtime"): 3,
        ("compiler", "check"): 4,
        ("compiler", "view"): 4,
        ("runtime", "files"): 2,
        ("runtime", "train"): 1,
        ("runtime", "view"): 3,
        ("train", "view"): 1,
    }
)
"""The imports against the order that are left; those of types and within functions count."""


def imported(path: Path) -> Iterator[str]:
    """Yield the rooms from which a file imports, a room for each import of a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = names if node.module == "graphc" else [str(node.module)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("graphc."))


def upward() -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for number, room in enumerate(ROOMS):
        for path in (ROOT / "graphc" / room).rglob("*.py"):
            found.update((room, other) for other in imported(path) if other in ROOMS[number + 1 :])
    return found


def test_imports_follow_the_order_of_the_rooms() -> None:
    assert upward() == UPWARD, "an import upwards is new; or one is gone: then take it off the list"


def test_every_folder_is_a_room() -> None:
    top = {path for path in (ROOT / "graphc").iterdir() if path.is_file() or any(path.glob("*.py"))}
    assert {path.name for path in top if path.is_dir()} == {*ROOMS}
    assert len(top) <= ENTRIES
