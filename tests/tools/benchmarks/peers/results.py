"""What a folder holds: comparisons and rooflines of one run, or of several one after the other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.tools.benchmarks.peers.rooflines import HEAD
from tests.tools.benchmarks.peers.rounds import Comparison
from tests.tools.benchmarks.peers.table import bfloat16, report
from tests.tools.benchmarks.peers.workloads import NAMES


@dataclass
class Results:
    """Comparisons by their title, rooflines by their workload, and the machine they are of."""

    machine: dict[str, Any]
    note: str
    comparisons: dict[str, Comparison] = field(default_factory=dict)
    rooflines: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, machine: dict[str, Any], note: str) -> Results:
        """With those that the folder holds already, if it has any."""
        made, path = cls(machine, note), folder / "peers.json"
        if path.exists():
            data = json.loads(path.read_text(encoding="utf-8"))
            found = [Comparison.from_json(each) for each in data["comparisons"]]
            made.comparisons = {each.title: each for each in found}
            made.rooflines = data["rooflines"]
        return made

    def write(self, folder: Path) -> None:
        """Write peers.json and peers.md."""
        data = {
            "machine": self.machine,
            "note": self.note,
            "comparisons": [each.as_json() for each in self._ordered()],
            "rooflines": self.rooflines,
        }
        (folder / "peers.json").write_text(json.dumps(data, indent=1), encoding="utf-8")
        (folder / "peers.md").write_text(self.document(), encoding="utf-8")

    def document(self) -> str:
        """All of it as Markdown."""
        parts = ["# Benchmarks\n", report(self._ordered(), self.machine, self.note)]
        if self.rooflines:
            order = [name for name in NAMES if name in self.rooflines]
            parts += [HEAD, *(self.rooflines[name] for name in order)]
        return "\n".join(parts)

    def bfloat16(self) -> str:
        """The table of products in bfloat16, or nothing."""
        return bfloat16(self._ordered())

    def _ordered(self) -> Sequence[Comparison]:
        return sorted(
            self.comparisons.values(),
            key=lambda each: (NAMES.index(each.workload), each.rows, each.mode),
        )
