"""ELF objects of little-endian machines: their sections, symbols and relocations."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from struct import Struct
from typing import NamedTuple

MAGIC = b"\x7fELF"
RELOCATABLE = 1
SYMBOLS, WITH_ADDENDS, WITHOUT_ADDENDS = 2, 4, 9
"""Kinds of section: symbols, and relocations that have their addends or find them in place."""


class ElfError(ValueError):
    """The damage that a file has."""


class Section(NamedTuple):
    """The header of a section: the fields that are used."""

    kind: int
    flags: int
    start: int
    size: int
    link: int
    """The section with the names of these symbols, or with the symbols of these relocations."""
    info: int
    """The section that these relocations change."""
    alignment: int


class Symbol(NamedTuple):
    """A name, the section that it lies in, and where there; section 0 if another object has it."""

    name: str
    section: int
    value: int


class Relocation(NamedTuple):
    """A place in a section that depends on where a symbol comes to lie."""

    place: int
    kind: int
    symbol: int
    addend: int


class _Format(NamedTuple):
    """The structures of a class of objects: of 32 or of 64 bits."""

    header: Struct
    section: Struct
    symbol: Struct
    fields: tuple[int, int, int]
    """The numbers of a symbol's name, section and value among its fields."""


_FORMATS = {
    1: _Format(Struct("<16xHHIIIIIHHHHH2x"), Struct("<10I"), Struct("<IIIBBH"), (0, 5, 1)),
    2: _Format(Struct("<16xHHIQQQIHHHHH2x"), Struct("<IIQQQQIIQQ"), Struct("<IBBHQQ"), (0, 3, 4)),
}
_ADDED = Struct("<QIIq")


class Elf:
    """An object; its fields lie within the file, or reading them raises ElfError."""

    def __init__(self, content: bytes) -> None:
        """Read the header and those of the sections."""
        self._content = content
        if not content.startswith(MAGIC) or content[4:6] not in (b"\x01\x01", b"\x02\x01"):
            raise ElfError("it is not a little-endian ELF file")
        self.bits = 32 * content[4]
        self._format = _FORMATS[content[4]]
        ((self.kind, self.machine, *_, start, _, _, _, _, size, count),) = self._entries(
            0, self._format.header.size, self._format.header
        )
        if size != self._format.section.size:
            raise ElfError("its sections have headers of another size")
        headers = self._entries(start, count * size, self._format.section)
        self.sections = [Section(h[1], h[2], *h[4:9]) for h in headers]

    @cached_property
    def symbols(self) -> list[Symbol]:
        """The symbols, in order; relocations name them by number."""
        tables = [section for section in self.sections if section.kind == SYMBOLS]
        if len(tables) != 1 or tables[0].link >= len(self.sections):
            raise ElfError("it has no table of symbols, or several")
        (table,), (name, section, value) = tables, self._format.fields
        names = self.content_of(self.sections[table.link])
        entries = self._entries(table.start, table.size, self._format.symbol)
        return [Symbol(_name(names, e[name]), e[section], e[value]) for e in entries]

    def relocations(self, section: Section) -> Iterator[Relocation]:
        """Yield the relocations of a section of a 64-bit object that has their addends."""
        for place, kind, symbol, addend in self._entries(section.start, section.size, _ADDED):
            yield Relocation(place, kind, symbol, addend)

    def content_of(self, section: Section) -> bytes:
        """Return what the file has of a section."""
        return self._part(section.start, section.size)

    def _part(self, start: int, size: int) -> bytes:
        if start + size > len(self._content):
            raise ElfError("it is cut off")
        return self._content[start : start + size]

    def _entries(self, start: int, size: int, entry: Struct) -> list[tuple[int, ...]]:
        if size % entry.size:
            raise ElfError("it has half an entry")
        return list(entry.iter_unpack(self._part(start, size)))


def _name(names: bytes, start: int) -> str:
    end = names.find(b"\0", start)
    if end < 0:
        raise ElfError("a name has no end")
    return names[start:end].decode(errors="replace")


def undefined(content: bytes) -> list[str]:
    """Return the names that an object uses and does not define; any other file has none."""
    if not content.startswith(MAGIC):
        return []
    symbols = Elf(content).symbols
    return sorted(symbol.name for symbol in symbols if symbol.name and not symbol.section)
