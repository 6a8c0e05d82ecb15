"""Loops in certificates as JSON: the names of a step's buffers, and of those around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphc.check.certificate import LoopTables, ProgramTables
from graphc.check.certificate.columns import checked_holder, checked_whole, column, known

PAIRS = ("sequences", "whole", "stacked")
PLACES = ("initial", "last", "before", "stacked")
"""The buffers of a carried value."""


def loop_data(t: ProgramTables, loop: LoopTables, program: dict[str, Any]) -> dict[str, Any]:
    """Return a loop as dictionaries and lists; `program` is what its step's program becomes."""
    inner, outer = loop.program.buffers.names, t.buffers.names

    def pairs(table: Any) -> dict[str, str]:
        return {inner[i]: outer[j] for i, j in table.tolist()}

    carried = [
        {"feed": inner[feed], "result": inner[result]}
        | {name: outer[i] for name, i in zip(PLACES, places, strict=True) if i >= 0}
        for feed, result, *places in loop.carried.tolist()
    ]
    single = {"number": (loop.number, inner), "lengths": (loop.lengths, outer)}
    return {
        "steps": loop.steps,
        **({"at_once": 1} if loop.at_once else {}),
        **{name: pairs(getattr(loop, name)) for name in PAIRS},
        "carried": carried,
        **{name: names[i] for name, (i, names) in single.items() if i >= 0},
        "workspace": outer[loop.workspace],
        "slots": {
            inner[i]: at for i, at in zip(loop.slot.tolist(), loop.offset.tolist(), strict=True)
        },
        "program": program,
    }


def loop_of(data: Any, step: int, outer: Mapping[str, int], program: ProgramTables) -> LoopTables:
    """Return the tables of a loop, which runs the program."""
    inner = {name: i for i, name in enumerate(program.buffers.names)}

    def pairs(named: Any) -> Any:
        found = [(known(inner, k), known(outer, v)) for k, v in checked_holder(named, dict).items()]
        return column(found).reshape(-1, 2)

    carried = [
        (
            *(known(inner, one[name]) for name in ("feed", "result")),
            *(known(outer, one[name]) if name in one else -1 for name in PLACES),
        )
        for one in checked_holder(data["carried"], list)
    ]
    slots = checked_holder(data["slots"], dict)
    sequences, whole, stacked = (pairs(data[name]) for name in PAIRS)
    return LoopTables(
        step,
        program,
        checked_whole(data["steps"], 1),
        checked_whole(data.get("at_once", 0)),
        sequences,
        whole,
        stacked,
        column(carried).reshape(-1, 2 + len(PLACES)),
        known(inner, data["number"]) if "number" in data else -1,
        known(outer, data["lengths"]) if "lengths" in data else -1,
        known(outer, data["workspace"]),
        column([known(inner, name) for name in slots]),
        column([checked_whole(at) for at in slots.values()]),
    )
