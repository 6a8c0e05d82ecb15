"""A model as one C99 file and its header, without dependencies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graphc.backends.c.backend import BACKEND
from graphc.backends.c.inline import wrapped
from graphc.backends.c.scalars import array_text, dim_text, frame, literal
from graphc.backends.c.source import KernelFile
from graphc.backends.c.target import PROLOGUE
from graphc.backends.interface import (
    C_TYPES,
    Entry,
    Interface,
    declaration,
    type_text,
)
from graphc.backends.names import BUFFER, OWN, Identifiers, comment
from graphc.ir.tensor_type import count
from graphc.ir.text.graph import name_text
from graphc.kernels.program import Buffer, Program


def c_file(model: Interface, header: str, separate: bool, test: str) -> tuple[str, int]:
    """Return the text of the C file, and the bytes of stack that a call needs at most."""
    file = KernelFile(all(e.program.contract == "fused" for e in model.entries))
    functions = [_function(model, entry, file) for entry in model.entries]
    constants = [array_text(name, array) for name, array in model.constants.items()]
    if model.state and not separate:
        initial, function = _init(model)
        constants += initial
        functions.insert(0, function)
    head = f'#include "{header}"\n\n{PROLOGUE}'
    stack = file.stack + max(map(frame, functions))
    return wrapped("\n".join([head, *constants, file.text(), *functions, test])), stack


def _init(model: Interface) -> tuple[list[str], str]:
    """Return the first values of the state that are not 0, and the function that sets them."""
    identifiers, arrays, lines = Identifiers(), [], []
    for declared, array in model.state.items():
        kind, at = C_TYPES[array.dtype.name], model.offsets[declared]
        value = literal(0, array.dtype.name)
        if declared in model.first_values:
            name = identifiers.new(f"{OWN}initial_", declared)
            arrays.append(array_text(name, array))
            value = f"{name}[i]"
        place = f"{kind} *const to = ({kind} *)((unsigned char *)state + {at});"
        loop = f"for (ptrdiff_t i = 0; i < {array.size}; ++i) to[i] = {value};"
        block = [f"{{ /* {comment(name_text(declared))} */", f"    {place}", f"    {loop}", "}"]
        lines += [f"    {line}" for line in block]
    return arrays, "\n".join([f"void {model.prefix}_init(void *state)", "{", *lines, "}", ""])


def _function(model: Interface, entry: Entry, file: KernelFile) -> str:
    """Return the function of a program, and add its kernels to a file."""
    places = _Places(model, entry)
    calls = [f"    {call}" for call in file.calls(entry.program, entry.numbers, places.name)]
    for argument, buffer in entry.results:
        size = dim_text(count(buffer.type.shape))
        copy = f"{argument.name}[i] = {places.name(buffer)}[i];"
        calls.append(f"    for (ptrdiff_t i = 0; i < {size}; ++i) {copy}")
    if entry.losses:
        calls.append(f"    return {' + '.join(f'*{places.name(loss)}' for loss in entry.losses)};")
    text = re.sub(r"/\*.*?\*/", "", "\n".join([*places.lines, *calls]))
    arguments = re.findall(r"(\w+)[,)]", declaration(model, entry))
    unused = [f"    (void){a};" for a in arguments if not re.search(rf"\b{a}\b", text)]
    lines = [*places.lines, *unused, "", *calls]
    return "\n".join([declaration(model, entry), "{", *lines, "}", ""])


class _Places:
    """The names of a function's buffers, and the lines that say where each lies."""

    def __init__(self, model: Interface, entry: Entry) -> None:
        self._model, self._entry = model, entry
        self.lines: list[str] = []
        self._names: dict[str, str] = {}
        self._identifiers = Identifiers()

    def name(self, buffer: Buffer) -> str:
        """Return the name of a pointer to a buffer's first element."""
        if buffer.name not in self._names:
            self._names[buffer.name] = self._declared(buffer)
        return self._names[buffer.name]

    def _declared(self, buffer: Buffer) -> str:
        base, offset = self._model.place(self._entry, buffer)
        if offset == 0 and base not in ("state", "work"):
            return base
        name = self._identifiers.new(BUFFER, buffer.name)
        kind, memory = f"{C_TYPES[buffer.type.dtype]} *", "unsigned char *"
        if base not in ("state", "work"):
            kind, memory = f"const {kind}", f"const {memory}"
        line = f"{kind}const {name} = ({kind})(({memory}){base} + {offset});"
        self.lines.append(f"    {line} /* {type_text(buffer.type)} */")
        return name


class CWriter:
    """The writer of C99 files."""

    backend = "c"

    def scratch(self, program: Program) -> Sequence[int]:
        """Return zeros: kernels have their blocks on the stack."""
        return BACKEND.scratch(program)

    def write(self, model: Interface, header: str, separate: bool, test: str) -> tuple[bytes, int]:
        """Return the C file of a model, and the bytes of stack that a call needs at most."""
        text, stack = c_file(model, header, separate, test)
        return text.encode(), stack


def writer() -> CWriter:
    """Return the writer of C files."""
    return CWriter()
