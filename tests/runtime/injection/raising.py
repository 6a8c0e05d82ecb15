"""Run a call, and raise an exception just before one of the bytecodes that it executes."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import graphc as gc

ROOT = str(Path(gc.__file__).parent)
Visit = Callable[[CodeType, int], None]


class Injected(KeyboardInterrupt):
    """What is raised."""


@dataclass(frozen=True)
class Place:
    """A bytecode, and how many were executed before it: of all, and of this one."""

    number: int
    code: CodeType
    offset: int
    earlier: int = 0

    def __str__(self) -> str:
        line = next(
            (line for start, end, line in self.code.co_lines() if start <= self.offset < end), 0
        )
        file = Path(self.code.co_filename).relative_to(ROOT)
        return f"{file}:{line} {self.code.co_name} bytecode {self.offset}"


def _traced(work: Callable[[], Any], visit: Visit, only: Place | None = None) -> Any:
    """Run `work`, and visit each bytecode of graphc's just before it, or one of them only."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode" and (only is None or frame.f_lasti == only.offset):
            visit(frame.f_code, frame.f_lasti)
        return local

    def enter(frame: FrameType, event: str, _: Any) -> Any:
        code = frame.f_code
        if code is not only.code if only else not code.co_filename.startswith(ROOT):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return local

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        return work()
    finally:
        sys.settrace(before)


def _monitored(work: Callable[[], Any], visit: Visit, only: Place | None = None) -> Any:
    """Do as `_traced` where Python has monitoring.

    There a trace function sees no bytecodes of a frame that runs when it asks for them.
    """
    monitoring = sys.monitoring  # type: ignore[attr-defined, unused-ignore]
    tool, mine = monitoring.DEBUGGER_ID, threading.get_ident()
    event, none = monitoring.events.INSTRUCTION, monitoring.events.NO_EVENTS

    def instruction(code: CodeType, offset: int) -> Any:
        if offset != only.offset if only else not code.co_filename.startswith(ROOT):
            return monitoring.DISABLE
        return visit(code, offset) if threading.get_ident() == mine else None

    def watch(events: int) -> None:
        if only is None:
            monitoring.set_events(tool, events)
        else:
            monitoring.set_local_events(tool, only.code, events)

    monitoring.use_tool_id(tool, "injection")
    monitoring.restart_events()  # what an earlier run disabled
    monitoring.register_callback(tool, event, instruction)
    watch(event)
    try:
        return work()
    finally:
        watch(none)
        monitoring.free_tool_id(tool)


_visited = _monitored if sys.version_info >= (3, 12) else _traced


def places(work: Callable[[], Any]) -> list[Place]:
    """The bytecodes that a call executes."""
    found: list[Place] = []
    times: Counter[tuple[int, int]] = Counter()

    def visit(code: CodeType, offset: int) -> None:
        key = id(code), offset
        found.append(Place(len(found), code, offset, times[key]))
        times[key] += 1

    _visited(work, visit)
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

    def visit(code: CodeType, offset: int) -> None:
        nonlocal count, hit
        count += 1
        if count == place.earlier + 1:
            hit = True
            if act is not None:
                act()
            else:
                raise Injected

    try:
        _visited(work, visit, place)
    except Injected:
        return "raised"
    return "done" if hit else "missed"
