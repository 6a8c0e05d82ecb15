"""The symbols of an ELF object that another one must define."""

from __future__ import annotations

from struct import iter_unpack, unpack_from
from typing import NamedTuple

_MAGIC = b"\x7fELF"
_SYMBOLS = 2


class _Section(NamedTuple):
    """The header of a section: the fields that are used."""

    kind: int
    start: int
    size: int
    link: int


def undefined(content: bytes) -> list[str]:
    """Return the names that a little-endian ELF object uses and does not define.

    Any other file has none.
    """
    if not content.startswith(_MAGIC):
        return []
    wide = content[4] == 2
    sections = _sections(content, wide)
    found = []
    for section in (s for s in sections if s.kind == _SYMBOLS):
        names = sections[section.link].start
        table = content[section.start : section.start + section.size]
        for fields in iter_unpack("<IBBHQQ" if wide else "<IIIBBH", table):
            name, defined = fields[0], fields[3 if wide else 5]
            if name and not defined:
                end = content.index(b"\0", names + name)
                found.append(content[names + name : end].decode())
    return sorted(found)


def _sections(content: bytes, wide: bool) -> list[_Section]:
    (start,) = unpack_from("<Q" if wide else "<I", content, 40 if wide else 32)
    size, count = unpack_from("<HH", content, 58 if wide else 46)
    form = "<IIQQQQI" if wide else "<IIIIIII"
    found = []
    for number in range(count):
        _, kind, _, _, at, length, link = unpack_from(form, content, start + number * size)
        found.append(_Section(kind, at, length, link))
    return found
