"""A model as one C99 file and its header, without dependencies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from graphc.backends.c.scalars import dim_text, literal
from graphc.backends.c.source import KernelFile
from graphc.backends.c.target import PROLOGUE
from graphc.backends.interface import C_TYPES, Entry, Interface
from graphc.ir.op import Array
from graphc.ir.tensor_type import count
from graphc.kernels.program import Buffer


def c_file(model: Interface, header: str) -> str:
    """Return the text of the C file, which includes a header of that name."""
    file = KernelFile(all(e.program.contract == "fused" for e in model.entries))
    functions = [_init(model), *(_function(model, entry, file) for entry in model.entries)]
    constants = [_array(name, array) for name, array in model.constants.items()]
    states = [_array(f"initial_{i}", array) for i, array in enumerate(model.state.values())]
    parts = [f'#include "{header}"\n\n{PROLOGUE}', *constants, *states, file.text(), *functions]
    return "\n".join(parts)


def declaration(model: Interface, entry: Entry) -> str:
    """Return the head of a function."""
    arguments = ["void *state"] if model.state else []
    arguments += ["void *work", "ptrdiff_t n"]
    arguments += [f"const {C_TYPES[a.type.dtype]} *{a.name}" for a in entry.feeds]
    arguments += [f"{C_TYPES[a.type.dtype]} *{a.name}" for a, _ in entry.results]
    return f"{_returned(entry)} {entry.name}({', '.join(arguments)})"


def _returned(entry: Entry) -> str:
    return C_TYPES[entry.losses[0].type.dtype] if entry.losses else "void"


def _init(model: Interface) -> str:
    """Return the function that sets the state to its first values."""
    lines = []
    for i, (name, array) in enumerate(model.state.items()):
        kind = C_TYPES[array.dtype.name]
        target = f"(({kind} *)((unsigned char *)state + {model.offsets[name]}))[i]"
        loop = f"for (ptrdiff_t i = 0; i < {array.size}; ++i)"
        lines.append(f"    {loop} {target} = initial_{i}[i]; /* {name} */")
    return "\n".join([f"void {model.prefix}_init(void *state)", "{", *lines, "}", ""])


def _function(model: Interface, entry: Entry, file: KernelFile) -> str:
    """Return the function of a program, and add its kernels to a file."""

    def pointer(buffer: Buffer) -> str:
        base, offset = model.place(entry, buffer)
        kind = "unsigned char *" if base in ("state", "work") else "const unsigned char *"
        return f"({kind}){base} + {offset}"

    def first(buffer: Buffer) -> str:
        return f"((const {C_TYPES[buffer.type.dtype]} *)({pointer(buffer)}))"

    scratch = [
        f"    void *const scratch = (unsigned char *)work + {model.scratch_at};",
        "    (void)n, (void)scratch;",
    ]
    lines = [f"    {call}" for call in file.calls(entry.program, entry.numbers, pointer)]
    for argument, buffer in entry.results:
        size = dim_text(count(buffer.type.shape))
        copy = f"{argument.name}[i] = {first(buffer)}[i];"
        lines.append(f"    for (ptrdiff_t i = 0; i < {size}; ++i) {copy}")
    if entry.losses:
        lines.append(f"    return {' + '.join(f'*{first(loss)}' for loss in entry.losses)};")
    return "\n".join([declaration(model, entry), "{", *scratch, *lines, "}", ""])


def _array(name: str, array: Array) -> str:
    dtype = array.dtype.name
    rows = "\n".join(f"    {line}" for line in _lines(np.asarray(array).reshape(-1), dtype))
    return f"static const {C_TYPES[dtype]} {name}[{max(array.size, 1)}] = {{\n{rows}\n}};\n"


def _lines(flat: Array, dtype: str) -> Iterator[str]:
    for start in range(0, len(flat), 8):
        yield ", ".join(literal(x, dtype) for x in flat[start : start + 8].tolist()) + ","
