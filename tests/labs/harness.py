"""Runs a lab as a script, with an answer in the place of its starting point."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

LABS = Path(__file__).resolve().parent.parent.parent / "docs" / "labs"
CELL = re.compile(r"^```\{code-cell\} python\n(?:---\n(.*?)\n---\n)?(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Cell:
    """A code cell, and its entries of the nbgrader format."""

    source: str
    metadata: str

    def has(self, key: str) -> bool:
        return f"{key}: true" in self.metadata

    @property
    def id(self) -> str:
        found = re.search(r"grade_id: (\w+)", self.metadata)
        return found[1] if found else ""


@dataclass
class Graded:
    """The error of each grading cell, or None, and what the lab has shown."""

    errors: dict[str, BaseException | None] = field(default_factory=dict)
    shown: list[Any] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(f"{type(e).__name__}: {e}" for e in self.errors.values() if e is not None)


@dataclass(frozen=True)
class Lab:
    """A notebook as text."""

    name: str

    @property
    def path(self) -> Path:
        return LABS / f"{self.name}.md"

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        found = CELL.findall(self.path.read_text())
        return tuple(Cell(source, metadata) for metadata, source in found)

    @property
    def graded(self) -> Iterator[str]:
        return (cell.id for cell in self.cells if cell.has("grade"))

    def grade(self, answer: str | None = None) -> Graded:
        """Run all cells with an answer; grading cells may fail, no others."""
        result = Graded()
        module = ModuleType(f"lab_{self.name}")
        sys.modules[module.__name__] = module
        names = vars(module)
        try:
            for number, cell in enumerate(self.cells):
                source = answer if answer is not None and cell.has("solution") else cell.source
                try:
                    exec(compile(source, f"<{self.name}, cell {number}>", "exec"), names)
                except Exception as error:
                    if not cell.has("grade"):
                        raise
                    result.errors[cell.id] = error
                else:
                    if cell.has("grade"):
                        result.errors[cell.id] = None
                if "display" in names:  # from here on it is the lab's own
                    names["display"] = result.shown.append
        finally:
            del sys.modules[module.__name__]
        return result
