"""A WebAssembly module from one object: it imports nothing and exports its memory.

Indices and addresses in an object count from 0 and are final once nothing is imported, so that code
and data are copied as they are; the memory, the stack and the exports are added.  See "WebAssembly
Object File Linking" in the tool conventions of WebAssembly.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from graphc.ir.tensor_type import align

MAGIC = b"\0asm\1\0\0\0"
CUSTOM, IMPORT, MEMORY, GLOBAL, EXPORT, DATA = 0, 2, 5, 6, 7, 11
FUNCTIONS, GLOBALS = 0, 3
"""The kinds of imports and exports."""
ORDER = (1, 3, MEMORY, GLOBAL, EXPORT, 9, 12, 10, DATA)
"""The sections of a module in order; 12 is the number of data segments, which code needs."""
PAGE = 1 << 16
STACK = PAGE
"""The bytes of the stack, which lies after the data."""
I32, CONST, END = 0x7F, 0x41, 0x0B
_SYMBOLS, _UNDEFINED = 8, 0x10


class Reader:
    """The rest of an object or section, from which numbers, bytes and names are taken."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def __bool__(self) -> bool:
        return self.at < len(self.data)

    def number(self) -> int:
        """Return the next unsigned LEB128 number; signed ones here are never negative."""
        value = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def bytes(self) -> bytes:
        """Return the next bytes, after their number."""
        size = self.number()
        self.at += size
        return self.data[self.at - size : self.at]

    def text(self) -> str:
        """Return the next name."""
        return self.bytes().decode()


def linked(
    object: bytes, functions: Mapping[str, str], constants: Mapping[str, int], room: int
) -> bytes:
    """Return the module of an object, which exports these functions and constants.

    `functions` has the symbol of each exported name.
    The first free address is exported as `__heap_base`, and `room` bytes from there are memory.
    """
    sections, symbols = _sections(object)
    stack = _checked_imports(sections.pop(IMPORT, b"\0"))
    heap = align(_end_of_data(sections.get(DATA, b"\0")) + STACK)
    numbers = [heap] * stack + [heap, *constants.values()]
    mutable = [1] * stack + [0] * (1 + len(constants))
    sections[GLOBAL] = _vector(
        [
            bytes([I32, m, CONST]) + _signed(x) + bytes([END])
            for x, m in zip(numbers, mutable, strict=True)
        ]
    )
    sections[MEMORY] = _vector([b"\0" + _number(-(-(heap + room) // PAGE))])
    exports = [_export("memory", 2, 0)]
    exports += [_export(name, FUNCTIONS, symbols[one]) for name, one in functions.items()]
    names = ("__heap_base", *constants)
    exports += [_export(name, GLOBALS, i) for i, name in enumerate(names, start=stack)]
    sections[EXPORT] = _vector(exports)
    kept = (number for number in ORDER if number in sections)
    return MAGIC + b"".join(bytes([n]) + _counted(sections[n]) for n in kept)


def _sections(object: bytes) -> tuple[dict[int, bytes], dict[str, int]]:
    """Return the sections by number, and the indices of the defined functions by name."""
    reader, found, symbols = Reader(object), {}, {}
    reader.at = len(MAGIC)
    while reader:
        number, content = reader.number(), reader.bytes()
        if number != CUSTOM:
            found[number] = content
            continue
        custom = Reader(content)
        if custom.text() == "linking":
            symbols = dict(_functions(custom))
    return found, symbols


def _functions(linking: Reader) -> Iterator[tuple[str, int]]:
    """Yield the names and indices of the functions that an object defines."""
    linking.number()  # the version
    while linking:
        kind, table = linking.number(), Reader(linking.bytes())
        for _ in range(table.number() if kind == _SYMBOLS else 0):
            symbol, flags = table.number(), table.number()
            if symbol == 3:  # a section
                table.number()
                continue
            if symbol == 1:  # data
                table.bytes()
                if not flags & _UNDEFINED:
                    table.number(), table.number(), table.number()
                continue
            index = table.number()
            if not flags & _UNDEFINED:
                name = table.text()
                if symbol == 0:
                    yield name, index


def _checked_imports(section: bytes) -> int:
    """Return how many globals are imported, none or the stack pointer; only memory may be, too."""
    reader, stack = Reader(section), 0
    for _ in range(reader.number()):
        name, kind = (reader.text(), reader.text())[1], reader.number()
        assert name in ("__linear_memory", "__stack_pointer"), f"the module needs {name}"
        if kind == GLOBALS:
            reader.at += 2
            stack += 1
        elif reader.number():
            reader.number(), reader.number()
        else:
            reader.number()
    return stack


def _end_of_data(section: bytes) -> int:
    reader, end = Reader(section), 0
    for _ in range(reader.number()):
        assert (reader.number(), reader.number()) == (0, CONST), "the segment has a fixed address"
        start = reader.number()
        reader.at += 1  # END
        end = max(end, start + len(reader.bytes()))
    return end


def _number(value: int) -> bytes:
    """Return an unsigned number as LEB128."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _signed(value: int) -> bytes:
    """Return a number from 0 as signed LEB128: the highest bit of the last byte is 0."""
    digits = _number(value)
    return digits if digits[-1] < 0x40 else digits[:-1] + bytes([digits[-1] | 0x80, 0])


def _counted(content: bytes) -> bytes:
    return _number(len(content)) + content


def _vector(items: Collection[bytes]) -> bytes:
    return _number(len(items)) + b"".join(items)


def _export(name: str, kind: int, index: int) -> bytes:
    return _counted(name.encode()) + bytes([kind]) + _number(index)
