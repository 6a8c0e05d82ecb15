"""A linker of cached objects into this process: LLVM is only loaded where it must compile.

What LLVM writes for x86-64 on Linux uses little of ELF: code and constants, which the code reads
at a distance from itself, and calls of a few functions of Python and of the C library.  They are
reached by stubs behind the code, since their own distance may be too large for a call.  LLVM's
linker takes objects with anything else.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import NamedTuple

from graphc.backends.elf import (
    MAGIC,
    RELOCATABLE,
    WITH_ADDENDS,
    WITHOUT_ADDENDS,
    Elf,
    ElfError,
    Section,
    Symbol,
)
from graphc.backends.native.executable_memory import address_of, mapped, process

EXTERNALS = frozenset(
    (
        "PyDict_GetItemWithError",
        "PyDict_Size",
        "PyErr_Clear",
        "PyErr_Occurred",
        "PyEval_RestoreThread",
        "PyEval_SaveThread",
        "PyLong_AsLongLong",
        "PyLong_AsVoidPtr",
        "PyLong_FromLongLong",
        "PyObject_CallNoArgs",
        "Py_DecRef",
        "Py_NewRef",
        "clock_gettime",
        "memcpy",
        "memmove",
        "memset",
        "sched_yield",
        "syscall",
    )
)
"""The functions that code may call.  Only functions: a stub is not the address of a variable."""

X86_64 = 62
"""The machine in the header of an object."""
PROGRAM = 1
"""The kind of the sections that are loaded, if their flags have ALLOCATED."""
ALLOCATED, EXECUTED, MERGEABLE, TEXTS = 0x2, 0x4, 0x10, 0x20
DISTANCES = (2, 4)
"""The relocations R_X86_64_PC32 and R_X86_64_PLT32: the distance from the place to a symbol."""
DISTANCE = Struct("<i")
JUMP = bytes.fromhex("ff2500000000")
"""The instruction that jumps to the address behind it."""
STUB = 16
"""The bytes of a stub: a jump, an address of 8 bytes, and 2 unused ones."""


class UnsupportedError(Exception):
    """The reason why an object is left to LLVM's linker."""


class Image(NamedTuple):
    """The bytes of memory with an object in it; they may lie anywhere."""

    content: bytes
    executable: int
    """The bytes at the start that are executed, whole pages.  Those behind are only read."""
    functions: Mapping[str, int]
    """The starts of functions."""


def image(objects: Sequence[bytes], symbols: Sequence[str], address: Callable[[str], int]) -> Image:
    """Return the image of objects with these functions; `address` is that of an external.

    An object may call the functions of the others.  Raise ElfError if one is damaged, and
    UnsupportedError if a function is missing or there is more than this linker knows.
    """
    parts = [_part(object) for object in objects]
    places = _places(parts)
    memory = bytearray(places.size)
    for part, starts in zip(parts, places.sections, strict=True):
        for i, start in starts.items():
            section = part.loaded[i]
            memory[start : start + section.size] = part.elf.content_of(section)
    for name, start in places.stubs.items():
        memory[start : start + len(JUMP) + 8] = JUMP + address(name).to_bytes(8, "little")
    for number, (elf, loaded) in enumerate(parts):
        for section in elf.sections:
            if section.info in loaded and section.kind in (WITH_ADDENDS, WITHOUT_ADDENDS):
                _relocate(number, elf, section, places, memory)
    if any(name not in places.functions for name in symbols):
        raise UnsupportedError("it lacks a function")
    functions = {name: places.functions[name] for name in symbols}
    return Image(bytes(memory), places.executable, functions)


class _Part(NamedTuple):
    """An object, and its sections that come to memory, by their numbers."""

    elf: Elf
    loaded: Mapping[int, Section]


def _part(object: bytes) -> _Part:
    elf = Elf(object) if object.startswith(MAGIC) else None
    if elf is None or (elf.bits, elf.machine, elf.kind) != (64, X86_64, RELOCATABLE):
        raise UnsupportedError("it is not an object for x86-64")
    loaded = {i: section for i, section in enumerate(elf.sections) if _is_loaded(section)}
    if sum(section.size for section in loaded.values()) > len(object):
        raise ElfError("its sections overlap")
    return _Part(elf, loaded)


class _Places(NamedTuple):
    """The places of the parts of objects in memory."""

    sections: Sequence[Mapping[int, int]]
    """For each object the start of each section that is loaded, by its number."""
    functions: Mapping[str, int]
    """The start of each function, by its name."""
    stubs: Mapping[str, int]
    """The start of the stub of each function that no object defines."""
    executable: int
    size: int

    def of(self, number: int, elf: Elf, symbol: int) -> int:
        """Return the place of a symbol of an object; raise UnsupportedError if there is none."""
        name, section, value = elf.symbols[symbol] if symbol < len(elf.symbols) else _NO_SYMBOL
        if section:
            return _within(elf, self.sections[number], section, value)
        place = self.functions.get(name, self.stubs.get(name))
        if place is None:
            raise UnsupportedError("it refers to what is not loaded")
        return place


_NO_SYMBOL = Symbol("", 0, 0)


def _within(elf: Elf, starts: Mapping[int, int], section: int, value: int) -> int:
    """Return the place of a value in a section; raise UnsupportedError if it is not loaded."""
    if section not in starts or value > elf.sections[section].size:
        raise UnsupportedError("it refers to what is not loaded")
    return starts[section] + value


def _is_loaded(section: Section) -> bool:
    """Return whether a section comes to memory.

    Sections of zeros and of unwinding do not: code that refers to them is refused.
    """
    if section.kind != PROGRAM or not section.flags & ALLOCATED:
        return False
    if section.flags & ~(ALLOCATED | EXECUTED | MERGEABLE | TEXTS):
        raise UnsupportedError("it has memory that is written")
    alignment = section.alignment
    if alignment & (alignment - 1) or alignment > mmap.PAGESIZE:
        raise UnsupportedError("it has an alignment that there is not")
    return True


def _places(parts: Sequence[_Part]) -> _Places:
    """Place the code and its stubs first, and from the next page on what is only read."""
    sections: list[dict[int, int]] = [{} for _ in parts]

    def place(executed: bool, end: int) -> int:
        """Place the sections of one kind from `end` on, and return where they end."""
        for (_, loaded), starts in zip(parts, sections, strict=True):
            for i, section in loaded.items():
                if bool(section.flags & EXECUTED) == executed:
                    starts[i] = _up(end, section.alignment or 1)
                    end = starts[i] + section.size
        return end

    first = _up(place(True, 0), STUB)
    # Until here only code has a place, so these are functions.
    functions = {
        name: _within(elf, starts, section, value)
        for (elf, _), starts in zip(parts, sections, strict=True)
        for name, section, value in elf.symbols
        if section in starts
    }
    unknown = (x.name for elf, _ in parts for x in elf.symbols if x.name and not x.section)
    missing = dict.fromkeys(name for name in unknown if name not in functions)
    stubs = {name: first + STUB * n for n, name in enumerate(missing)}
    executable = _up(first + STUB * len(stubs), mmap.PAGESIZE)
    return _Places(sections, functions, stubs, executable, place(False, executable))


def _relocate(number: int, elf: Elf, section: Section, places: _Places, memory: bytearray) -> None:
    """Write the distances that a section of relocations of an object tells of."""
    if section.kind == WITHOUT_ADDENDS:
        raise UnsupportedError("its relocations have no addends")
    start, size = places.sections[number][section.info], elf.sections[section.info].size
    for place, kind, symbol, addend in elf.relocations(section):
        if kind not in DISTANCES or place + DISTANCE.size > size:
            raise UnsupportedError("it has a relocation that is not known")
        distance = places.of(number, elf, symbol) + addend - (start + place)
        if not -(2**31) <= distance < 2**31:
            raise UnsupportedError("a distance is too large")
        DISTANCE.pack_into(memory, start + place, distance)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


class LinkedCode:
    """The functions of some objects in memory, until it is closed."""

    def __init__(self, objects: Sequence[bytes], symbols: Sequence[str]) -> None:
        """Link objects; raise an error of `image`, or OSError if the system refuses."""
        made = image(objects, symbols, external)
        self._memory = mapped(made.content, made.executable)
        base = address_of(self._memory)
        self._functions = {name: base + place for name, place in made.functions.items()}

    def __getitem__(self, symbol: str) -> int:
        """Return the address of a function."""
        return self._functions[symbol]

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()


def external(name: str) -> int:
    """Return the address of a function that code may call, or raise UnsupportedError."""
    function = getattr(process(), name, None) if name in EXTERNALS else None
    if function is None:
        raise UnsupportedError(f"it calls {name}")
    return ctypes.cast(function, ctypes.c_void_p).value or 0
