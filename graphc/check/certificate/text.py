"""Certificates as JSON: a line for each buffer and each step, to be read, kept and compared.

A size is text such as `64`, `N`, `64+8*N` or `4*N*N`.  Usual values are left out.  An alias `shows`
another buffer, columns of a wider matrix are `cut` from it, and an operand may be overwritten
`in_place`.  Any file may be read: content that does not fit raises CertificateError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations
from math import prod
from typing import Any, Literal

import numpy as np

from graphc.base.errors import GraphError
from graphc.check import certificate as tables
from graphc.check.certificate import (
    Axis,
    Certificate,
    Kind,
    LoopTables,
    Pattern,
    ProgramTables,
    Space,
    Use,
    Word,
)

FORMAT = "graphc certificate 3"
"""The format and its version, which is raised when a file of before is not read any more."""
HINT = "graphc plan MODEL --certificate FILE writes one"
LIMIT = 1 << 40
"""The bound that every number is below."""
POWERS = ("", "N", "N*N")
MOST = 1 << 56
"""The bound that every size in bytes or elements is below."""

PAIRS = ("sequences", "whole", "stacked")
PLACES = ("initial", "last", "before", "stacked")
"""The buffers of a carried value."""
DEEPEST = 16
"""The most loops within each other."""

_TERM = re.compile(r"(?:(\d{1,13})\*)?(N(?:\*N)?)|(\d{1,13})")


class CertificateError(GraphError):
    """The error for a file that is not a certificate, or a broken one."""


_column = partial(np.array, dtype=np.int64)


def _whole(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < LIMIT:
        raise _wrong(f"{value!r} is not a whole number from {least} to 2**40")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(f"{value!r} is not text")
    return value


def _holder(value: Any, kind: type[list[Any] | dict[str, Any]]) -> Any:
    if not isinstance(value, kind):
        what = "list" if kind is list else "JSON object"
        raise _wrong(f"{str(value)[:40]!r} is not a {what}")
    return value


def _word(kind: type[Word], value: Any) -> int:
    words = [each.word for each in kind]
    if value not in words:
        raise _wrong(f"{value!r} is not one of {', '.join(words)}")
    return words.index(value)


def _size(value: Any) -> tuple[int, ...]:
    found, last = [0, 0, 0], -1
    for term in value.split("+") if isinstance(value, str) else [""]:
        match = _TERM.fullmatch(term)
        power = -1 if match is None else POWERS.index(match[2] or "")
        if match is None or power <= last:
            raise _wrong(f"{value!r} is not a size such as 64, N or 64+8*N")
        found[power], last = int(match[3] or match[1] or 1), power
    return tuple(found)


def _size_text(size: Sequence[int]) -> str:
    fixed, *factors = size
    terms = [str(fixed)] if fixed or not any(factors) else []
    for factor, rows in zip(factors, POWERS[1:], strict=True):
        if factor:
            terms.append(rows if factor == 1 else f"{factor}*{rows}")
    return "+".join(terms)


def _known(number: Mapping[str, int], name: Any) -> int:
    if not isinstance(name, str) or name not in number:
        raise _wrong(f"there is no {name!r}")
    return number[name]


def _place(places: Mapping[tuple[str, str], int], space: Any, name: Any) -> int:
    if (_text(space), _text(name)) not in places:
        raise _wrong(f"there is no memory {space} {name!r}")
    return places[space, name]


def _numbers(lines: Sequence[Any], what: str) -> dict[str, int]:
    found = {_text(line["name"]): i for i, line in enumerate(lines)}
    if len(found) < len(lines):
        raise _wrong(f"two of its {what}s have the same name")
    return found


def _wrong(what: str) -> CertificateError:
    return CertificateError(f"this is not a certificate of a plan: {what}", hint=HINT)


Values = Literal["text", "size"] | int | type[Word]
"""The kind of the values of a column: text, sizes, whole numbers from that one up, or words."""
Columns = tuple[tuple[str, str, Values, Any], ...]
"""Columns of a table: each has its field, its key in JSON, its values, and the value in JSON that
may be left out, if there is one.  "life" holds the values of two columns."""

BLOCK: Columns = (
    ("space", "space", Space, None),
    ("names", "name", "text", None),
    ("size", "bytes", "size", None),
)
SLOT: Columns = (
    ("names", "name", "text", None),
    ("offset", "offset", 0, None),
    ("size", "bytes", "size", None),
    ("first", "life", 0, None),
    ("last", "life", 0, None),
)
MATRIX: Columns = (
    ("rows", "rows", "size", None),
    ("columns", "columns", "size", None),
    ("item", "item", 1, None),
    ("first", "life", 0, None),
    ("last", "life", -1, None),
)
STEP: Columns = (
    ("kind", "step", Kind, None),
    ("nodes", "node", "text", None),
    ("partition", "split", Axis, "none"),
    *((name, name, "size", "1") for name in ("rows", "columns", "depth")),
    *((name, name, 0, 0) for name in ("item", "transposed")),
    ("reduced", "reduced", Axis, "none"),
    *((name, name, 0, 0) for name in ("by_columns", "copies", "scratch")),
)
ACCESS: Columns = (
    ("pattern", "by", Pattern, "whole"),
    ("in_place", "in_place", 0, 0),
    ("reach", "reach", "size", "0"),
)
KERNEL = ("split", "rows", "columns")
USES = {Use.READ: "reads", Use.WRITE: "writes"}
WORDS, NUMBERS = ("name", "backend"), ("capacity", "boundary", "arena", "peak")
"""The fields of a program that are one word, and one number."""
MEMORY = tables.MemoryClaims.__slots__
OF_KERNEL = {Kind.LOOP: KERNEL, Kind.GEMM: (*KERNEL, "depth", "item")}
"""The columns of a kernel that are written even if they have the usual value."""


def _entries(table: Any, columns: Columns) -> list[dict[str, Any]]:
    """Return the rows of a table as JSON objects, without values that may be left out."""
    values = [getattr(table, field) for field, *_ in columns]
    found = []
    for row in zip(*(v.tolist() if isinstance(v, np.ndarray) else v for v in values), strict=True):
        always = OF_KERNEL.get(row[0], ()) if columns is STEP else ()
        line: dict[str, Any] = {}
        for (_, key, kind, usual), value in zip(columns, row, strict=True):
            word = kind(value).word if isinstance(kind, type) else value
            text = _size_text(value) if kind == "size" else word
            if key == "life":
                line.setdefault(key, []).append(text)
            elif text != usual or key in always:
                line[key] = text
        found.append(line)
    return found


def _columns(entries: Sequence[Any], columns: Columns) -> dict[str, Any]:
    """Return the columns of a table by their fields, for its entries."""
    found: dict[str, Any] = {}
    for field, key, kind, usual in columns:
        read: Callable[[Any], Any] = _text if kind == "text" else _size
        if isinstance(kind, int | type):
            read = partial(_whole, least=kind) if isinstance(kind, int) else partial(_word, kind)
        held = [entry[key] if usual is None else entry.get(key, usual) for entry in entries]
        if key == "life":
            held = [ends[field == "last"] for ends in held]
        values = list(map(read, held))
        shape = (-1, 3) if kind == "size" else -1
        found[field] = values if kind == "text" else np.array(values, np.int64).reshape(shape)
    return found


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
        "state": {name: list(place) for name, place in certificate.state_layout.items()},
        "programs": [program_data(program) for program in certificate.programs],
    }


def program_data(t: ProgramTables) -> dict[str, Any]:
    """Return one program as dictionaries and lists."""
    return {
        **{name: getattr(t, name) for name in (*WORDS, *NUMBERS)},
        "blocks": _entries(t.blocks, BLOCK),
        "slots": _entries(t.slots, SLOT),
        "buffers": _buffers(t),
        "steps": _steps(t),
        **{name: _named(t, getattr(t, name)) for name in ("outputs", "gradients", "updates")},
    }


def _buffers(t: ProgramTables) -> list[dict[str, Any]]:
    """Return the entries of the buffers."""
    b, blocks = t.buffers, t.blocks
    found = []
    for i, matrix in enumerate(_entries(b, MATRIX)):
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
    a, found = t.accesses, _entries(t.steps, STEP)
    for i, item in enumerate(_entries(a, ACCESS)):
        uses = found[a.step[i]].setdefault(USES[a.use[i]], [])
        uses.append({"buffer": t.buffers.names[a.buffer[i]], **item})
    for loop in t.loops:
        found[loop.step]["loop"] = _loop_data(t, loop)
    return found


def _loop_data(t: ProgramTables, loop: LoopTables) -> dict[str, Any]:
    """Return one loop as dictionaries and lists; names of its step's buffers come first."""
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
        "program": program_data(loop.program),
    }


def _loop_of(data: Any, step: int, outer: Mapping[str, int], depth: int) -> LoopTables:
    """Return the tables of a loop."""
    if depth > DEEPEST:
        raise _wrong(f"more than {DEEPEST} loops are within each other")
    program = program_of(data["program"], depth)
    inner = {name: i for i, name in enumerate(program.buffers.names)}

    def pairs(named: Any) -> Any:
        found = [(_known(inner, k), _known(outer, v)) for k, v in _holder(named, dict).items()]
        return _column(found).reshape(-1, 2)

    carried = [
        (
            *(_known(inner, one[name]) for name in ("feed", "result")),
            *(_known(outer, one[name]) if name in one else -1 for name in PLACES),
        )
        for one in _holder(data["carried"], list)
    ]
    slots = _holder(data["slots"], dict)
    sequences, whole, stacked = (pairs(data[name]) for name in PAIRS)
    return LoopTables(
        step,
        program,
        _whole(data["steps"], 1),
        _whole(data.get("at_once", 0)),
        sequences,
        whole,
        stacked,
        _column(carried).reshape(-1, 2 + len(PLACES)),
        _known(inner, data["number"]) if "number" in data else -1,
        _known(outer, data["lengths"]) if "lengths" in data else -1,
        _known(outer, data["workspace"]),
        _column([_known(inner, name) for name in slots]),
        _column([_whole(at) for at in slots.values()]),
    )


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
        raise _wrong(f"it is not JSON: {error}") from None
    known = data.get("format") if isinstance(data, dict) else None
    if not isinstance(known, str) or known.rpartition(" ")[0] != FORMAT.rpartition(" ")[0]:
        raise _wrong(f"its format is not {FORMAT!r}")
    if known != FORMAT:
        text = f"this certificate has the format {known!r}, this version of graphc reads {FORMAT!r}"
        raise CertificateError(text, hint=HINT)
    return certificate_of(data)


def certificate_of(data: Mapping[str, Any]) -> Certificate:
    """Return the certificate of dictionaries and lists; raise CertificateError if they misfit."""
    try:
        states = _holder(data["state"], dict).items()
        return Certificate(
            _text(data["net"]),
            _whole(data["batch"], 1),
            _text(data["backend"]),
            tables.MemoryClaims(*(_whole(data["memory"][name]) for name in MEMORY)),
            {_text(name): (_whole(place[0]), _whole(place[1])) for name, place in states},
            tuple(program_of(program) for program in _holder(data["programs"], list)),
        )
    except CertificateError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _wrong(f"something is missing or of the wrong kind: {error!r}") from None


def program_of(data: Mapping[str, Any], depth: int = 0) -> ProgramTables:
    """Return the tables of one program, in that many loops."""
    blocks, slots = _holder(data["blocks"], list), _holder(data["slots"], list)
    lines, steps = _holder(data["buffers"], list), _holder(data["steps"], list)
    places = {(block["space"], block["name"]): i for i, block in enumerate(blocks)}
    slot, number = _numbers(slots, "slot"), _numbers(lines, "buffer")
    capacity = _whole(data["capacity"], 1)
    updates = _results(data["updates"], number)
    scalars: Any = {name: _text(data[name]) for name in WORDS}
    scalars |= {name: _whole(data[name]) for name in NUMBERS}
    made = ProgramTables(
        **scalars,
        blocks=tables.Blocks(**_columns(blocks, BLOCK)),
        slots=tables.Slots(**_columns(slots, SLOT)),
        buffers=_buffers_of(lines, number, places, slot),
        steps=tables.Steps(**_columns(steps, STEP)),
        accesses=_accesses(steps, number),
        outputs=_results(data["outputs"], number),
        gradients=_results(data["gradients"], number),
        updates=tables.Updates(
            updates.names,
            _column([places.get(("state", name), -1) for name in updates.names]),
            updates.buffer,
        ),
        loops=tuple(
            _loop_of(step["loop"], i, number, depth + 1)
            for i, step in enumerate(steps)
            if "loop" in step
        ),
    )
    _check_sizes(made, capacity)
    return made


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
        block=_column([_place(places, line["at"][0], line["at"][1]) for line in lines]),
        offset=_column([_whole(line["at"][2]) for line in lines]),
        **_columns(lines, MATRIX),
        root=_column([_known(number, line.get("shows", line["name"])) for line in lines]),
        shift=_column([_whole(cut[0]) for cut in cuts]),
        pitch=_column([_whole(cut[1]) for cut in cuts]),
        slot=_column([_known(slot, line["slot"]) if "slot" in line else -1 for line in lines]),
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
        raise _wrong("something depends on N three times")


def _countable(capacity: int, *sizes: Sequence[int]) -> None:
    """Raise CertificateError if a product of sizes is so large that sums may overflow 64 bits."""
    if prod(a + b * capacity + c * capacity**2 for a, b, c in sizes) >= MOST:
        raise _wrong("something is larger than any memory")


def _accesses(steps: Sequence[Any], number: Mapping[str, int]) -> tables.Accesses:
    """Return the table of accesses for the entries of steps."""
    items = [
        (i, use, item)
        for i, step in enumerate(steps)
        for use, word in USES.items()
        for item in _holder(step.get(word, []), list)
    ]
    return tables.Accesses(
        step=_column([i for i, _, _ in items]),
        buffer=_column([_known(number, item["buffer"]) for _, _, item in items]),
        use=_column([use for _, use, _ in items]),
        **_columns([item for _, _, item in items], ACCESS),
    )


def _results(named: Any, number: Mapping[str, int]) -> tables.Results:
    values = [_known(number, value) for value in _holder(named, dict).values()]
    return tables.Results(list(named), _column(values))
