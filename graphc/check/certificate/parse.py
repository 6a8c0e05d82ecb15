"""The parser from JSON to a certificate; content that does not fit raises CertificateError."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from graphc.base.errors import GraphError
from graphc.check import certificate as tables
from graphc.check.certificate import Certificate, Ints
from graphc.check.certificate.text import FORMAT

HINT = "graphc plan MODEL --certificate FILE writes one"
LIMIT = 1 << 40
"""The bound that every number is below."""
MOST = 1 << 56
"""The bound that every size in bytes or elements is below."""

_SIZE = re.compile(r"(?:(\d{1,13})\+)?(?:(\d{1,13})\*)?N|(\d{1,13})")


class CertificateError(GraphError):
    """The error for a file that is not a certificate, or a broken one."""


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
        raise CertificateError(
            f"this certificate has the format {known!r}, this version of graphc reads {FORMAT!r}",
            hint=HINT,
        )
    return certificate_of(data)


def certificate_of(data: Mapping[str, Any]) -> Certificate:
    """Return the certificate of dictionaries and lists; raise CertificateError if they misfit."""
    try:
        return _certificate(data)
    except CertificateError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise _wrong(f"something is missing or of the wrong kind: {error!r}") from None


def _certificate(data: Mapping[str, Any]) -> Certificate:
    memory = {name: _whole(data["memory"][name]) for name in tables.MemoryClaims.__slots__}
    layout = {
        _text(name): (_whole(place[0]), _whole(place[1]))
        for name, place in _mapping(data["state"]).items()
    }
    return Certificate(
        _text(data["net"]),
        _whole(data["batch"], 1),
        _text(data["backend"]),
        tables.MemoryClaims(**memory),
        layout,
        tuple(program_of(program) for program in _list(data["programs"])),
    )


def program_of(data: Mapping[str, Any]) -> tables.ProgramTables:
    """Return the tables of one program."""
    blocks, slots = _list(data["blocks"]), _list(data["slots"])
    lines, steps = _list(data["buffers"]), _list(data["steps"])
    places = {(block["space"], block["name"]): i for i, block in enumerate(blocks)}
    slot = _numbers([line["name"] for line in slots], "slot")
    number = _numbers([line["name"] for line in lines], "buffer")
    capacity = _whole(data["capacity"], 1)
    updates = _mapping(data["updates"])
    return tables.ProgramTables(
        _text(data["name"]),
        _text(data["backend"]),
        capacity,
        _whole(data["border"]),
        _whole(data["arena"]),
        _whole(data["peak"]),
        tables.Blocks(
            [_text(block["name"]) for block in blocks],
            _column([_word(block["space"], tables.SPACES) for block in blocks]),
            _fit_together(_sizes([block["bytes"] for block in blocks]), capacity),
        ),
        tables.Slots(
            list(slot),
            _wholes(line["offset"] for line in slots),
            _fit_together(_sizes([line["bytes"] for line in slots]), capacity),
            _wholes(line["life"][0] for line in slots),
            _wholes(line["life"][1] for line in slots),
        ),
        _fits(_buffers(lines, number, places, slot), capacity),
        _steps(steps, capacity),
        _accesses(steps, number),
        _results(data["outputs"], number),
        _results(data["gradients"], number),
        tables.Updates(
            list(map(_text, updates)),
            _column([places.get(("state", name), -1) for name in updates]),
            _column([_known(number, value) for value in updates.values()]),
        ),
    )


def _buffers(
    lines: Sequence[Any],
    number: Mapping[str, int],
    places: Mapping[tuple[str, str], int],
    slot: Mapping[str, int],
) -> tables.Buffers:
    cuts = [line.get("cut", (0, 0)) for line in lines]
    return tables.Buffers(
        list(number),
        _column([_place(places, line["at"]) for line in lines]),
        _wholes(line["at"][2] for line in lines),
        _sizes([line["rows"] for line in lines]),
        _sizes([line["columns"] for line in lines]),
        _wholes((line["item"] for line in lines), 1),
        _column([_known(number, line.get("shows", line["name"])) for line in lines]),
        _wholes(cut[0] for cut in cuts),
        _wholes(cut[1] for cut in cuts),
        _wholes(line["life"][0] for line in lines),
        _wholes((line["life"][1] for line in lines), -1),
        _column([_known(slot, line["slot"]) if "slot" in line else -1 for line in lines]),
    )


def _fits(b: tables.Buffers, capacity: int) -> tables.Buffers:
    """Return the buffers.

    Raise CertificateError if a size depends on N twice, or bytes cannot be counted.
    """
    wide = np.stack((np.maximum(b.columns[:, 0], b.pitch), b.columns[:, 1]), axis=1)
    for rows, columns, item in zip(b.rows.tolist(), wide.tolist(), b.item.tolist(), strict=True):
        if rows[1] and columns[1]:
            raise _wrong("the rows and the columns of a buffer both depend on N")
        _countable(capacity, rows, columns, (item, 0))
    return b


def _fit_together(sizes: Ints, capacity: int) -> Ints:
    """Return the sizes; raise CertificateError if all of these bytes cannot be counted."""
    pairs = sizes.tolist()
    _countable(capacity, (sum(a for a, _ in pairs), sum(b for _, b in pairs)))
    return sizes


def _countable(capacity: int, *sizes: Sequence[int]) -> None:
    """Raise CertificateError if a product of sizes is too large to add up many in 64 bits."""
    if prod(fixed + per_row * capacity for fixed, per_row in sizes) >= MOST:
        raise _wrong("something is larger than any memory")


def _steps(steps: Sequence[Any], capacity: int) -> tables.Steps:
    def sizes(word: str) -> Ints:
        return _sizes([step.get(word, "1") for step in steps])

    def numbers(word: str) -> Ints:
        return _wholes(step.get(word, 0) for step in steps)

    rows, columns, depth = sizes("rows"), sizes("columns"), sizes("depth")
    for size in zip(rows.tolist(), columns.tolist(), depth.tolist(), strict=True):
        _countable(capacity, *size)
    return tables.Steps(
        [_text(step["node"]) for step in steps],
        _column([_word(step["step"], tables.KINDS) for step in steps]),
        _column([_word(step.get("split", "none"), tables.SPLITS) for step in steps]),
        rows,
        columns,
        depth,
        numbers("transposed"),
        _column([_word(step.get("reduced", "none"), tables.SPLITS) for step in steps]),
        numbers("by_columns"),
        numbers("item"),
        numbers("copies"),
        numbers("scratch"),
    )


def _accesses(steps: Sequence[Any], number: Mapping[str, int]) -> tables.Accesses:
    rows = [
        (
            i,
            _known(number, item["buffer"]),
            use,
            _word(item.get("by", "whole"), tables.SPANS),
            _whole(item.get("in_place", 0)),
            *_sizes([item.get("reach", "0")])[0],
        )
        for i, step in enumerate(steps)
        for word, use in (
            ("reads", tables.READ),
            ("writes", tables.WRITE),
        )
        for item in _list(step.get(word, []))
    ]
    table = np.array(rows, np.int64).reshape(-1, 7)
    step, buffer, use, span, in_place = table[:, :5].T
    return tables.Accesses(step, buffer, use, span, in_place, table[:, 5:])


def _results(named: Any, number: Mapping[str, int]) -> tables.Results:
    values = _mapping(named)
    return tables.Results(
        list(values), _column([_known(number, value) for value in values.values()])
    )


# ------------------------------------------------------------------ what one entry may be


def _whole(value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < LIMIT:
        raise _wrong(f"{value!r} is not a whole number from {least} to 2**40")
    return value


def _wholes(values: Iterable[Any], least: int = 0) -> Ints:
    return _column([_whole(value, least) for value in values])


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(f"{value!r} is not text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(f"{str(value)[:40]!r} is not a list")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(f"{str(value)[:40]!r} is not a JSON object")
    return value


def _word(value: Any, words: Sequence[str]) -> int:
    if value not in words:
        raise _wrong(f"{value!r} is not one of {', '.join(words)}")
    return words.index(value)


def _known(number: Mapping[str, int], name: Any) -> int:
    if not isinstance(name, str) or name not in number:
        raise _wrong(f"there is no {name!r}")
    return number[name]


def _place(places: Mapping[tuple[str, str], int], at: Any) -> int:
    found = places.get((_text(at[0]), _text(at[1])))
    if found is None:
        raise _wrong(f"there is no memory {at[0]} {at[1]!r}")
    return found


def _numbers(names: Sequence[Any], what: str) -> dict[str, int]:
    found = {_text(name): i for i, name in enumerate(names)}
    if len(found) < len(names):
        raise _wrong(f"two of its {what}s have the same name")
    return found


def _sizes(texts: Sequence[Any]) -> Ints:
    pairs = []
    for text in texts:
        match = _SIZE.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise _wrong(f"{text!r} is not a size such as 64, N or 64+8*N")
        fixed, factor, alone = match.groups()
        pairs.append((int(alone or fixed or 0), 0 if alone else int(factor or 1)))
    return np.array(pairs, np.int64).reshape(-1, 2)


def _column(numbers: Sequence[int]) -> Ints:
    return np.array(numbers, np.int64)


def _wrong(what: str) -> CertificateError:
    return CertificateError(
        f"this is not a certificate of a plan: {what}",
        hint=HINT,
    )
