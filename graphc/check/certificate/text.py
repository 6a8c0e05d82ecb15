"""Certificates as JSON: a line for each buffer and each step, to be read, kept and compared.

A size is text such as `64`, `N` or `64+8*N`.  Usual values are left out: an alias names what it
`shows`, columns of a wider matrix are `cut` from it, an operand may be taken `in_place`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from graphc.check import certificate as tables
from graphc.check.certificate import Certificate, Ints, ProgramTables

FORMAT = "graphc certificate 2"
"""The format and its version, which is raised when a file of before is not read any more."""


def certificate_text(certificate: Certificate) -> str:
    """Return the certificate as JSON that `parse_certificate` reads."""
    return "".join(_lines(certificate_data(certificate))) + "\n"


def certificate_data(certificate: Certificate) -> dict[str, Any]:
    """Return the certificate as dictionaries and lists."""
    memory = certificate.memory
    return {
        "format": FORMAT,
        "net": certificate.net,
        "batch": certificate.batch,
        "backend": certificate.backend,
        "memory": {name: getattr(memory, name) for name in memory.__slots__},
        "state": {name: list(place) for name, place in certificate.state_layout.items()},
        "programs": [program_data(program) for program in certificate.programs],
    }


def program_data(t: ProgramTables) -> dict[str, Any]:
    """Return one program as dictionaries and lists."""
    return {
        "name": t.name,
        "backend": t.backend,
        "capacity": t.capacity,
        "border": t.border,
        "arena": t.arena,
        "peak": t.peak,
        "blocks": _blocks(t),
        "slots": _slots(t),
        "buffers": _buffers(t),
        "steps": _steps(t),
        "outputs": _named(t, t.outputs.names, t.outputs.buffer),
        "gradients": _named(t, t.gradients.names, t.gradients.buffer),
        "updates": _named(t, t.updates.names, t.updates.buffer),
    }


def _blocks(t: ProgramTables) -> list[dict[str, Any]]:
    rows = zip(t.blocks.space.tolist(), t.blocks.names, _sizes(t.blocks.size), strict=True)
    return [
        {"space": tables.SPACES[space], "name": name, "bytes": size} for space, name, size in rows
    ]


def _slots(t: ProgramTables) -> list[dict[str, Any]]:
    s = t.slots
    lives = zip(s.first.tolist(), s.last.tolist(), strict=True)
    rows = zip(s.names, s.offset.tolist(), _sizes(s.size), map(list, lives), strict=True)
    return [dict(zip(("name", "offset", "bytes", "life"), row, strict=True)) for row in rows]


def _buffers(t: ProgramTables) -> list[dict[str, Any]]:
    b, blocks = t.buffers, t.blocks
    found = []
    rows, columns = _sizes(b.rows), _sizes(b.columns)
    for i, name in enumerate(b.names):
        block = int(b.block[i])
        line: dict[str, Any] = {
            "name": name,
            "at": [tables.SPACES[blocks.space[block]], blocks.names[block], int(b.offset[i])],
            "rows": rows[i],
            "columns": columns[i],
            "item": int(b.item[i]),
            "life": [int(b.first[i]), int(b.last[i])],
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
    s = t.steps
    rows, columns, depth = _sizes(s.rows), _sizes(s.columns), _sizes(s.depth)
    found: list[dict[str, Any]] = []
    for i, node in enumerate(s.nodes):
        kind = int(s.kind[i])
        line: dict[str, Any] = {"step": tables.KINDS[kind], "node": node}
        if kind in (tables.LOOP, tables.GEMM):
            line |= {"split": tables.SPLITS[s.split[i]], "rows": rows[i], "columns": columns[i]}
        if kind == tables.GEMM:
            line |= {"depth": depth[i], "item": int(s.item[i])}
        for name in ("transposed", "reduced", "by_columns", "copies", "scratch"):
            value = int(getattr(s, name)[i])
            if value:
                line[name] = tables.SPLITS[value] if name == "reduced" else value
        found.append(line)
    for line, touched in zip(found, _touched(t), strict=True):
        for word, items in zip(("reads", "writes"), touched, strict=True):
            if items:
                line[word] = items
    return found


def _touched(t: ProgramTables) -> list[tuple[list[Any], list[Any]]]:
    """Return for each step what it reads and what it writes."""
    a, reach = t.accesses, _sizes(t.accesses.reach)
    found: list[tuple[list[Any], list[Any]]] = [([], []) for _ in t.steps.nodes]
    for i, step in enumerate(a.step.tolist()):
        item: dict[str, Any] = {"buffer": t.buffers.names[a.buffer[i]]}
        if a.span[i] != tables.WHOLE:
            item["by"] = tables.SPANS[a.span[i]]
        if a.in_place[i]:
            item["in_place"] = 1
        if a.span[i] == tables.WINDOW:
            item["reach"] = reach[i]
        found[step][int(a.use[i] == tables.WRITE)].append(item)
    return found


def _named(t: ProgramTables, names: Sequence[str], buffers: Ints) -> dict[str, str]:
    return {k: t.buffers.names[i] for k, i in zip(names, buffers.tolist(), strict=True)}


def _sizes(sizes: Ints) -> list[str]:
    return [_size(fixed, per_row) for fixed, per_row in sizes.tolist()]


def _size(fixed: int, per_row: int) -> str:
    rows = "N" if per_row == 1 else f"{per_row}*N"
    if not per_row:
        return str(fixed)
    return rows if not fixed else f"{fixed}+{rows}"


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
