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
from graphc.backends.native.executable import address_of, mapped, process

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


def image(object: bytes, symbols: Sequence[str], address: Callable[[str], int]) -> Image:
    """Return the image of an object with these functions; `address` is that of an external.

    Raise ElfError if the object is damaged, and UnsupportedError if it lacks a function or has more
    than this linker knows.
    """
    elf = Elf(object) if object.startswith(MAGIC) else None
    if elf is None or (elf.bits, elf.machine, elf.kind) != (64, X86_64, RELOCATABLE):
        raise UnsupportedError("it is not an object for x86-64")
    loaded = {i: section for i, section in enumerate(elf.sections) if _is_loaded(section)}
    if sum(section.size for section in loaded.values()) > len(object):
        raise ElfError("its sections overlap")
    places = _places(elf, loaded)
    memory = bytearray(places.size)
    for i, start in places.sections.items():
        memory[start : start + loaded[i].size] = elf.content_of(loaded[i])
    for i, start in places.stubs.items():
        target = address(elf.symbols[i].name).to_bytes(8, "little")
        memory[start : start + len(JUMP) + 8] = JUMP + target
    for section in elf.sections:
        if section.info in loaded and section.kind in (WITH_ADDENDS, WITHOUT_ADDENDS):
            _relocate(elf, section, places, memory)
    code = {i for i, section in loaded.items() if section.flags & EXECUTED}
    functions = {x.name: places.of(elf, i) for i, x in enumerate(elf.symbols) if x.section in code}
    if any(functions.get(name) is None for name in symbols):
        raise UnsupportedError("it lacks a function")
    return Image(bytes(memory), places.executable, {name: functions[name] for name in symbols})


class _Places(NamedTuple):
    """The places of the parts of an object in memory."""

    sections: Mapping[int, int]
    """The start of each section that is loaded, by its number."""
    stubs: Mapping[int, int]
    """The start of the stub of each symbol that the object does not define, by its number."""
    executable: int
    size: int

    def of(self, elf: Elf, number: int) -> int:
        """Return the place of a symbol; raise UnsupportedError if it is not loaded."""
        if number in self.stubs:
            return self.stubs[number]
        _, section, value = elf.symbols[number] if number < len(elf.symbols) else _NO_SYMBOL
        if section not in self.sections or value > elf.sections[section].size:
            raise UnsupportedError("it refers to what is not loaded")
        return self.sections[section] + value


_NO_SYMBOL = Symbol("", 0, 0)


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


def _places(elf: Elf, loaded: Mapping[int, Section]) -> _Places:
    """Place the code and its stubs first, and from the next page on what is only read."""
    starts: dict[int, int] = {}

    def place(executed: bool, end: int) -> int:
        for i, section in loaded.items():
            if bool(section.flags & EXECUTED) == executed:
                starts[i] = _up(end, section.alignment or 1)
                end = starts[i] + section.size
        return end

    first = _up(place(True, 0), STUB)
    missing = [i for i, symbol in enumerate(elf.symbols) if symbol.name and not symbol.section]
    stubs = {i: first + STUB * n for n, i in enumerate(missing)}
    executable = _up(first + STUB * len(stubs), mmap.PAGESIZE)
    return _Places(starts, stubs, executable, place(False, executable))


def _relocate(elf: Elf, section: Section, places: _Places, memory: bytearray) -> None:
    """Write the distances that a section of relocations tells of."""
    if section.kind == WITHOUT_ADDENDS:
        raise UnsupportedError("its relocations have no addends")
    start, size = places.sections[section.info], elf.sections[section.info].size
    for place, kind, symbol, addend in elf.relocations(section):
        if kind not in DISTANCES or place + DISTANCE.size > size:
            raise UnsupportedError("it has a relocation that is not known")
        distance = places.of(elf, symbol) + addend - (start + place)
        if not -(2**31) <= distance < 2**31:
            raise UnsupportedError("a distance is too large")
        DISTANCE.pack_into(memory, start + place, distance)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


class LinkedCode:
    """The functions of an object in memory, until it is closed."""

    def __init__(self, object: bytes, symbols: Sequence[str]) -> None:
        """Link an object; raise an error of `image`, or OSError if the system refuses."""
        made = image(object, symbols, external)
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
