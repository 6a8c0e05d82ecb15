"""The types of what methods of the core return that satellites implement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Proof(Protocol):
    """The verification of a program or of a plan; its text says what was counted or is wrong."""

    ok: bool
    counterexample: object | None


class Timed(Protocol):
    """An instruction of a profile: see `graphc.view.profile.Timed`."""

    seconds: float
    cost: Any
    roof: float
    verdict: str
    line: str
    kernel: str
    nodes: tuple[str, ...]


class Profile(Protocol):
    """The times of a program's instructions: see `graphc.view.profile.Profile`."""

    name: str
    n: int
    rounds: int
    seconds: tuple[float, ...]
    total: float
    timed: Sequence[Timed]
    by_node: Mapping[str, Timed]
    peak: Any

    def render(self, path: str | Path) -> Path:
        """Draw the times: .svg has bars of the instructions, .html the plan's page with them."""

    def chrome_trace(self, path: str | Path) -> Path:
        """Write a trace for Perfetto or chrome://tracing: one event for each instruction."""
