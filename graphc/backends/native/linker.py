"""A linker of cached objects into this process: LLVM is only loaded where it must compile.

What LLVM writes for x86-64 on Linux uses little of ELF: code and constants, which the code reads
at a distance from itself, and calls of a few functions of Python and of the C library.  They are
reached by stubs behind the code, since their own distance may be too large for a call.  An object
that has anything else, or is damaged, raises ElfError, and LLVM's own linker takes it.

No memory is ever writable and executable: the code is written first and then executed.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, NamedTuple

from graphc.backends.elf import (
    RELOCATABLE,
    WITH_ADDENDS,
    WITHOUT_ADDENDS,
    Elf,
    ElfError,
    Section,
    Symbol,
)

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


class Image(NamedTuple):
    """What is to be in memory; it may lie anywhere."""

    content: bytes
    executable: int
    """The bytes at the start that are executed, whole pages.  Those behind are only read."""
    functions: Mapping[str, int]
    """Where functions begin."""


def image(object: bytes, symbols: Sequence[str], address: Callable[[str], int]) -> Image:
    """Return the image of an object with these functions; `address` is that of an external.

    Raise ElfError if the object is damaged, lacks a function, or has more than this linker knows.
    """
    elf = Elf(object)
    if (elf.bits, elf.machine, elf.kind) != (64, X86_64, RELOCATABLE):
        raise ElfError("it is not an object for x86-64")
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
        raise ElfError("it lacks a function")
    return Image(bytes(memory), places.executable, {name: functions[name] for name in symbols})


class _Places(NamedTuple):
    """Where the parts of an object come to lie in memory."""

    sections: Mapping[int, int]
    """The start of each section that is loaded, by its number."""
    stubs: Mapping[int, int]
    """The start of the stub of each symbol that the object does not define, by its number."""
    executable: int
    size: int

    def of(self, elf: Elf, number: int) -> int:
        """Return the place of a symbol; raise ElfError if it is not loaded."""
        if number in self.stubs:
            return self.stubs[number]
        _, section, value = elf.symbols[number] if number < len(elf.symbols) else _NO_SYMBOL
        if section not in self.sections or value > elf.sections[section].size:
            raise ElfError("it refers to what is not loaded")
        return self.sections[section] + value


_NO_SYMBOL = Symbol("", 0, 0)


def _is_loaded(section: Section) -> bool:
    """Return whether a section comes to memory.

    Sections of zeros and of unwinding do not: code that refers to them is refused.
    """
    if section.kind != PROGRAM or not section.flags & ALLOCATED:
        return False
    if section.flags & ~(ALLOCATED | EXECUTED | MERGEABLE | TEXTS):
        raise ElfError("it has memory that is written")
    alignment = section.alignment
    if alignment & (alignment - 1) or alignment > mmap.PAGESIZE:
        raise ElfError("it has an alignment that there is not")
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
        raise ElfError("its relocations have no addends")
    start, size = places.sections[section.info], elf.sections[section.info].size
    for place, kind, symbol, addend in elf.relocations(section):
        if kind not in DISTANCES or place + DISTANCE.size > size:
            raise ElfError("it has a relocation that is not known")
        distance = places.of(elf, symbol) + addend - (start + place)
        if not -(2**31) <= distance < 2**31:
            raise ElfError("a distance is too large")
        DISTANCE.pack_into(memory, start + place, distance)


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


class LinkedCode:
    """The functions of an object in memory, until it is closed."""

    def __init__(self, object: bytes, symbols: Sequence[str]) -> None:
        """Link an object; raise ElfError (see `image`), or OSError if the system refuses."""
        made = image(object, symbols, external)
        self._memory = mapped(made)
        base = address_of(self._memory)
        self._functions = {name: base + place for name, place in made.functions.items()}

    def __getitem__(self, symbol: str) -> int:
        """Return the address of a function."""
        return self._functions[symbol]

    def close(self) -> None:
        """Free the memory."""
        self._memory.close()


def mapped(image: Image) -> mmap.mmap:
    """Return new memory with an image, which nobody can write to; raise OSError if refused."""
    kind, writable = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE
    memory = mmap.mmap(-1, max(len(image.content), mmap.PAGESIZE), kind, writable)
    memory.write(image.content)
    start, code = address_of(memory), image.executable
    _protect(start, code, mmap.PROT_READ | mmap.PROT_EXEC)
    _protect(start + code, len(memory) - code, mmap.PROT_READ)
    return memory


def address_of(memory: mmap.mmap) -> int:
    """Return where memory starts."""
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _protect(start: int, size: int, access: int) -> None:
    if _process().mprotect(ctypes.c_void_p(start), ctypes.c_size_t(size), access):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def external(name: str) -> int:
    """Return the address of a function that code may call, or raise ElfError."""
    function = getattr(_process(), name, None) if name in EXTERNALS else None
    if function is None:
        raise ElfError(f"it calls {name}")
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@lru_cache(maxsize=1)
def _process() -> Any:
    """Return the functions of this process."""
    return ctypes.CDLL(None, use_errno=True)
