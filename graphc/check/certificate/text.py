"""Certificates as JSON: a line for each buffer and each step, to be read, kept and compared.

A size is text such as `64`, `N`, `64+8*N` or `4*N*N`.  Usual values are left out.  An alias `shows`
another buffer, columns of a wider matrix are `cut` from it, and an operand may be overwritten
`in_place`.  Any file may be read: content that does not fit raises CertificateError.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from math import prod
from typing import Any

import numpy as np

from graphc.check import certificate as tables
from graphc.check.certificate import (
    Certificate,
    LoopTables,
    MemberClaims,
    Places,
    ProgramTables,
    Space,
    Use,
)
from graphc.check.certificate.columns import (
    ACCESS,
    BLOCK,
    HINT,
    MATRIX,
    SLOT,
    STEP,
    CertificateError,
    checked_holder,
    checked_text,
    checked_whole,
    column,
    columns_of,
    entries_of,
    known,
    misfit,
)

FORMAT = "graphc certificate 3"
"""The format and its version, which is raised when a file of before is not read any more."""
MOST = 1 << 56
"""The bound that every size in bytes or elements is below."""
DEEPEST = 16
"""The most loops within each other."""

USES = {Use.READ: "reads", Use.WRITE: "writes"}
WORDS, NUMBERS = ("name", "backend"), ("capacity", "boundary", "arena", "peak")
"""The fields of a program that are one word, and one number."""
PAIRS = ("sequences", "whole", "stacked")
PLACES = ("initial", "last", "before", "stacked")
"""The buffers of a carried value."""
MEMORY = tables.MemoryClaims.__slots__
MEMBERS = tables.MemberClaims.__slots__


# ------------------------------------------------------------------ writing


def certificate_text(certificate: Certificate) -> str:
    """Return the certificate as JSON that `parse_certificate` reads."""
    return "".join(_lines(certificate_data(certificate))) + "\n"


def certificate_data(certificate: Certificate) -> dict[str, Any]:
    """Return the certificate as dictionaries and lists."""
    return {
        "format": FORMAT,
        "net": certificate.net,
        "batch": certificate.batch,
        "backend": certificate.backend,
        "memory": {name: getattr(certificate.memory, name) for name in MEMORY},
        "state": _lists(certificate.state_layout),
        "programs": [program_data(program) for program in certificate.programs],
        **_members(certificate.members),
    }


def _members(claims: MemberClaims | None) -> dict[str, Any]:
    if claims is None:
        return {}
    found = {name: getattr(claims, name) for name in MEMBERS}
    return {"members": found | {"apart": dict(claims.apart), "places": _lists(claims.places)}}


def _lists(places: Places) -> dict[str, list[int]]:
    return {name: list(place) for name, place in places.items()}


def program_data(t: ProgramTables) -> dict[str, Any]:
    """Return one program as dictionaries and lists."""
    return {
        **{name: getattr(t, name) for name in (*WORDS, *NUMBERS)},
        "blocks": entries_of(t.blocks, BLOCK),
        "slots": entries_of(t.slots, SLOT),
        "buffers": _buffers(t),
        "steps": _steps(t),
        **{name: _named(t, getattr(t, name)) for name in ("outputs", "gradients", "updates")},
    }


def _buffers(t: ProgramTables) -> list[dict[str, Any]]:
    """Return the entries of the buffers."""
    b, blocks = t.buffers, t.blocks
    found = []
    for i, matrix in enumerate(entries_of(b, MATRIX)):
        block = int(b.block[i])
        line: dict[str, Any] = {
            "name": b.names[i],
            "at": [Space(blocks.space[block]).word, blocks.names[block], int(b.offset[i])],
            **matrix,
        }
        if b.slot[i] >= 0:
            line["slot"] = t.slots.names[b.slot[i]]
        if b.root[i] != i:
            line["shows"] = b.names[b.root[i]]
        if b.pitch[i]:
            line["cut"] = [int(b.shift[i]), int(b.pitch[i])]
        found.append(line)
    return found


def _steps(t: ProgramTables) -> list[dict[str, Any]]:
    """Return the steps, each with its reads and writes."""
    a, found = t.accesses, entries_of(t.steps, STEP)
    for i, item in enumerate(entries_of(a, ACCESS)):
        uses = found[a.step[i]].setdefault(USES[a.use[i]], [])
        uses.append({"buffer": t.buffers.names[a.buffer[i]], **item})
    for loop in t.loops:
        found[loop.step]["loop"] = _loop_data(t, loop, program_data(loop.program))
    return found


def _loop_data(t: ProgramTables, loop: LoopTables, program: dict[str, Any]) -> dict[str, Any]:
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
        **{name: 1 for name in ("at_once", "waits") if getattr(loop, name)},
        **{name: pairs(getattr(loop, name)) for name in PAIRS},
        "carried": carried,
        **{name: names[i] for name, (i, names) in single.items() if i >= 0},
        "workspace": outer[loop.workspace],
        "slots": {
            inner[i]: at for i, at in zip(loop.slot.tolist(), loop.offset.tolist(), strict=True)
        },
        "program": program,
    }


def _named(t: ProgramTables, results: Any) -> dict[str, str]:
    return {k: t.buffers.names[i] for k, i in zip(results.names, results.buffer, strict=True)}


def _lines(data: Any, indent: str = "", nested: int = 4) -> Iterator[str]:
    """Yield JSON with a line for each entry that is nested less deeply than `nested`."""
    of_entries = isinstance(data, list) and data and isinstance(data[0], dict)
    if not nested or not data or not (of_entries or isinstance(data, dict)):
        yield json.dumps(data)
        return
    inner = indent + "  "
    begin, end = "[]" if of_entries else "{}"
    entries = data if of_entries else data.items()
    for i, entry in enumerate(entries):
        yield f"{',' if i else begin}\n{inner}"
        if not of_entries:
            yield f"{json.dumps(entry[0])}: "
        yield from _lines(entry if of_entries else entry[1], inner, nested - 1)
    yield f"\n{indent}{end}"


# ------------------------------------------------------------------ reading


def parse_certificate(text: str) -> Certificate:
    """Return the certificate that `certificate_text` wrote, or raise CertificateError."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise misfit(f"it is not JSON: {error}") from None
    known = data.get("format") if isinstance(data, dict) else None
    if not isinstance(known, str) or known.rpartition(" ")[0] != FORMAT.rpartition(" ")[0]:
        raise misfit(f"its format is not {FORMAT!r}")
    if known != FORMAT:
        text = f"this certificate has the format {known!r}, this version of graphc reads {FORMAT!r}"
        raise CertificateError(text, hint=HINT)
    return certificate_of(data)


def certificate_of(data: Mapping[str, Any]) -> Certificate:
    """Return the certificate of dictionaries and lists; raise CertificateError if they misfit."""
    try:
        return Certificate(
            checked_text(data["net"]),
            checked_whole(data["batch"], 1),
            checked_text(data["backend"]),
            tables.MemoryClaims(*(checked_whole(data["memory"][name]) for name in MEMORY)),
            _places(data["state"]),
            tuple(program_of(program) for program in checked_holder(data["programs"], list)),
            _members_of(data["members"]) if "members" in data else None,
        )
    except CertificateError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise misfit(f"something is missing or of the wrong kind: {error!r}") from None


def _places(data: Any) -> dict[str, tuple[int, int]]:
    return {
        checked_text(name): (checked_whole(place[0]), checked_whole(place[1]))
        for name, place in checked_holder(data, dict).items()
    }


def _members_of(data: Mapping[str, Any]) -> MemberClaims:
    apart = {name: checked_whole(far) for name, far in checked_holder(data["apart"], dict).items()}
    found: dict[str, Any] = {"apart": apart, "places": _places(data["places"])}
    found |= {name: checked_whole(data[name]) for name in MEMBERS if name not in found}
    return MemberClaims(**found)


def program_of(data: Mapping[str, Any], depth: int = 0) -> ProgramTables:
    """Return the tables of one program, in that many loops."""
    if depth > DEEPEST:
        raise misfit(f"more than {DEEPEST} loops are within each other")
    blocks, slots = checked_holder(data["blocks"], list), checked_holder(data["slots"], list)
    lines, steps = checked_holder(data["buffers"], list), checked_holder(data["steps"], list)
    places = {(block["space"], block["name"]): i for i, block in enumerate(blocks)}
    slot, number = _numbers(slots, "slot"), _numbers(lines, "buffer")
    capacity = checked_whole(data["capacity"], 1)
    updates = _results(data["updates"], number)
    scalars: Any = {name: checked_text(data[name]) for name in WORDS}
    scalars |= {name: checked_whole(data[name]) for name in NUMBERS}
    made = ProgramTables(
        **scalars,
        blocks=tables.Blocks(**columns_of(blocks, BLOCK)),
        slots=tables.Slots(**columns_of(slots, SLOT)),
        buffers=_buffers_of(lines, number, places, slot),
        steps=tables.Steps(**columns_of(steps, STEP)),
        accesses=_accesses(steps, number),
        outputs=_results(data["outputs"], number),
        gradients=_results(data["gradients"], number),
        updates=tables.Updates(
            updates.names,
            column([places.get(("state", name), -1) for name in updates.names]),
            updates.buffer,
        ),
        loops=tuple(
            _loop_of(step["loop"], i, number, program_of(step["loop"]["program"], depth + 1))
            for i, step in enumerate(steps)
            if "loop" in step
        ),
    )
    _check_sizes(made, capacity)
    return made


def _loop_of(data: Any, step: int, outer: Mapping[str, int], program: ProgramTables) -> LoopTables:
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
        checked_whole(data.get("waits", 0)),
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


def _buffers_of(
    lines: Sequence[Any],
    number: Mapping[str, int],
    places: Mapping[tuple[str, str], int],
    slot: Mapping[str, int],
) -> tables.Buffers:
    """Return the table of buffers for its entries."""
    cuts = [line.get("cut", (0, 0)) for line in lines]
    return tables.Buffers(
        names=list(number),
        block=column([_place(places, line["at"][0], line["at"][1]) for line in lines]),
        offset=column([checked_whole(line["at"][2]) for line in lines]),
        **columns_of(lines, MATRIX),
        root=column([known(number, line.get("shows", line["name"])) for line in lines]),
        shift=column([checked_whole(cut[0]) for cut in cuts]),
        pitch=column([checked_whole(cut[1]) for cut in cuts]),
        slot=column([known(slot, line["slot"]) if "slot" in line else -1 for line in lines]),
    )


def _check_sizes(t: ProgramTables, capacity: int) -> None:
    """Raise CertificateError if a size depends on N three times, or bytes cannot be counted."""
    b, s = t.buffers, t.steps
    for sizes in (t.blocks.size, t.slots.size):
        _countable(capacity, sizes.sum(axis=0, dtype=object))
    wide = b.columns.copy()
    wide[:, 0] = np.maximum(wide[:, 0], b.pitch)
    for rows, columns, item in zip(b.rows.tolist(), wide.tolist(), b.item.tolist(), strict=True):
        _at_most_squared(rows, columns)
        _countable(capacity, rows, columns, (item, 0, 0))
    for step in zip(s.rows.tolist(), s.columns.tolist(), s.depth.tolist(), strict=True):
        for sides in combinations(step, 2):
            _at_most_squared(*sides)
        _countable(capacity, *step)


def _at_most_squared(*sizes: Sequence[int]) -> None:
    """Raise CertificateError if N occurs more than twice in the product of sizes."""
    if sum(2 if square else bool(linear) for _, linear, square in sizes) > 2:
        raise misfit("something depends on N three times")


def _countable(capacity: int, *sizes: Sequence[int]) -> None:
    """Raise CertificateError if a product of sizes is so large that sums may overflow 64 bits."""
    if prod(a + b * capacity + c * capacity**2 for a, b, c in sizes) >= MOST:
        raise misfit("something is larger than any memory")


def _accesses(steps: Sequence[Any], number: Mapping[str, int]) -> tables.Accesses:
    """Return the table of accesses for the entries of steps."""
    items = [
        (i, use, item)
        for i, step in enumerate(steps)
        for use, word in USES.items()
        for item in checked_holder(step.get(word, []), list)
    ]
    return tables.Accesses(
        step=column([i for i, _, _ in items]),
        buffer=column([known(number, item["buffer"]) for _, _, item in items]),
        use=column([use for _, use, _ in items]),
        **columns_of([item for _, _, item in items], ACCESS),
    )


def _results(named: Any, number: Mapping[str, int]) -> tables.Results:
    values = [known(number, value) for value in checked_holder(named, dict).values()]
    return tables.Results(list(named), column(values))


def _place(places: Mapping[tuple[str, str], int], space: Any, name: Any) -> int:
    if (checked_text(space), checked_text(name)) not in places:
        raise misfit(f"there is no memory {space} {name!r}")
    return places[space, name]


def _numbers(lines: Sequence[Any], what: str) -> dict[str, int]:
    found = {checked_text(line["name"]): i for i, line in enumerate(lines)}
    if len(found) < len(lines):
        raise misfit(f"two of its {what}s have the same name")
    return found
