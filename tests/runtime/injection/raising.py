"""Run a call, and raise an exception just before one of the bytecodes that it executes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import graphc as gc

ROOT = str(Path(gc.__file__).parent)


class Injected(KeyboardInterrupt):
    """What is raised."""


@dataclass(frozen=True)
class Place:
    """A bytecode, and the how-manieth of those executed it was."""

    number: int
    code: CodeType
    offset: int

    def __str__(self) -> str:
        line = next(
            (line for start, end, line in self.code.co_lines() if start <= self.offset < end), 0
        )
        file = Path(self.code.co_filename).relative_to(ROOT)
        return f"{file}:{line} {self.code.co_name} bytecode {self.offset}"


def _traced(work: Callable[[], Any], visit: Callable[[FrameType], None]) -> Any:
    """Run `work`, and visit the frame before each bytecode of graphc's."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            visit(frame)
        return local

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return local

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        return work()
    finally:
        sys.settrace(before)


def places(work: Callable[[], Any]) -> list[Place]:
    """The bytecodes that a call executes."""
    found: list[Place] = []
    _traced(work, lambda f: found.append(Place(len(found), f.f_code, f.f_lasti)))
    return found


def first_and_last(found: list[Place]) -> Iterator[Place]:
    """Of each place in the code the first and the last time that it is reached."""
    first: dict[tuple[CodeType, int], Place] = {}
    last: dict[tuple[CodeType, int], Place] = {}
    for place in found:
        key = place.code, place.offset
        first.setdefault(key, place)
        last[key] = place
    both = {place.number: place for place in (*first.values(), *last.values())}
    return iter(sorted(both.values(), key=lambda place: place.number))


def inject(work: Callable[[], Any], place: Place, act: Callable[[], Any] | None = None) -> str:
    """Run a call and raise at a place: "raised", "done" where it ended all the same, or "missed".

    `act` is done instead of raising.
    """
    count, hit = 0, False

    def visit(frame: FrameType) -> None:
        nonlocal count, hit
        count += 1
        if count == place.number + 1:
            hit = True
            if act is not None:
                act()
            else:
                raise Injected

    try:
        _traced(work, visit)
    except Injected:
        return "raised"
    return "done" if hit else "missed"
