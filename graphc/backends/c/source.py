"""A program as C99: a function for each kernel, and one for each run of kernels between calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from graphc.backends.c.loops import LoopWriter, write_permutation
from graphc.backends.c.products import ProductWriter
from graphc.backends.c.scalars import TYPES, Code, Functions, dim_text
from graphc.backends.native.program import block_of, layout, table_index
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.kernel import Gemm, Kernel, Permutation, inputs
from graphc.kernels.program import Buffer, Program
from graphc.kernels.text import kernel_text

HEAD = """\
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#endif
"""


def program_source(program: Program, skip: frozenset[int]) -> str:
    """Return a file with the functions `segment0` and so on of a program's layout."""
    return _Source(program, layout(program, skip)).text()


class KernelFile:
    """The functions of a C file: kernels, and what they call."""

    def __init__(self) -> None:
        self.functions = Functions()
        self.kernels: list[str] = []

    def calls(self, program: Program, numbers: Iterable[int], pointer: Pointer) -> list[str]:
        """Add the kernels of instructions, and return their calls."""
        return [self._call(program, number, pointer) for number in numbers]

    def text(self) -> str:
        """Return the functions, those that kernels call first."""
        return "\n\n".join([*self.functions.texts.values(), *self.kernels])

    def _call(self, program: Program, number: int, pointer: Pointer) -> str:
        instr = program.instrs[number]
        kernel = instr.body
        assert kernel is not None, "the instruction is a kernel"
        name = f"{program.name}_{number}_{word(instr.node)}"
        self.kernels.append(kernel_source(name, kernel, program.buffers, self.functions))
        pointers = []
        for used in buffers_of(kernel):
            buffer, written = program.buffers[used], used in kernel.body.written
            kind = f"{'' if written else 'const '}{TYPES[buffer.type.dtype]} *"
            pointers.append(f"({kind})({pointer(buffer)})")
        scratch = ["scratch"] if isinstance(kernel, Gemm) else []
        return f"{name}({', '.join([*pointers, *scratch, 'n'])});"


Pointer = Callable[[Buffer], str]
"""The address of a buffer's first element, as a pointer to bytes."""


def program_source(program: Program, skip: frozenset[int]) -> str:
    """Return a file with the functions `segment0` and so on of a program's layout."""
    parts = layout(program, skip)
    slots = {block: slot for slot, block in enumerate(parts.blocks)}
    file, segments = KernelFile(), []

    def pointer(buffer: Buffer) -> str:
        return f"block[{table_index(slots[block_of(buffer)])}] + {start_of(buffer)}"

    for segment in parts.segments:
        if segment.symbol is not None:
            numbers = [number for epoch in segment.epochs for number in epoch]
            lines = [f"    {call}" for call in file.calls(program, numbers, pointer)]
            head = f"void {segment.symbol}(unsigned char *const *block, ptrdiff_t n)"
            segments.append("\n".join([head, "{", "    void *const scratch = block[1];", "    (void)scratch;", *lines, "}", ""]))
    return "\n".join([HEAD, file.text(), *segments])


def start_of(buffer: Buffer) -> int:
    """Return the bytes from the start of the block to the buffer."""
    base = buffer.offset if buffer.space == "arena" else 0
    return base + buffer.shift * ITEMSIZE[buffer.type.dtype]


def buffers_of(kernel: Kernel) -> tuple[str, ...]:
    """Return the buffers that a kernel reads and writes, each once."""
    return tuple(dict.fromkeys((*inputs(kernel), *kernel.body.written)))


def kernel_source(
    name: str, kernel: Kernel, buffers: Mapping[str, Buffer], functions: Functions
) -> str:
    """Return the function of a kernel, with its text as a comment."""
    used = buffers_of(kernel)
    names = _unique(used)
    written = kernel.body.written
    types = {name: TYPES[buffers[name].type.dtype] for name in used}
    arguments = [f"{'' if b in written else 'const '}{types[b]} *{names[b]}" for b in used]
    code = Code(functions)
    pitch = _pitches(kernel, buffers)
    if isinstance(kernel, Gemm):
        ProductWriter(kernel, names, types, pitch).write(code)
    elif isinstance(kernel, Permutation):
        write_permutation(code, kernel, names)
    else:
        LoopWriter(kernel, names, pitch).write(code)
    comment = kernel_text(kernel).rstrip().replace("*/", "* /").replace("\n", "\n   ")
    scratch = ["void *scratch"] if isinstance(kernel, Gemm) else []
    head = f"static void {name}({', '.join([*arguments, *scratch, 'ptrdiff_t n'])})"
    return "\n".join([f"/* {comment} */", head, "{", "    (void)n;", *code.lines, "}", ""])


def _pitches(kernel: Kernel, buffers: Mapping[str, Buffer]) -> dict[str, str]:
    """Return the elements from row to row of each buffer that has rows."""
    widths = dict.fromkeys((*kernel.body.loads, *kernel.body.written), kernel.space[1])
    if isinstance(kernel, Gemm):
        widths |= kernel.factor_columns
    return {name: dim_text(buffers[name].pitch or width) for name, width in widths.items()}


def word(name: str) -> str:
    """Return a name with only the characters of a C name."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


_TAKEN = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while bool true false n i j l p r o c x first end sums inside "
    "pixel image at index y0 y1 yn j0 j1 jn gamma right right_p panel packed width above rows part "
    "part_k group depth scratch place offset s q half state work arena bytes".split()
)


def _unique(names: Iterable[str]) -> dict[str, str]:
    """Return a C name for each buffer, alike where it can be."""
    found: dict[str, str] = {}
    for name in names:
        own = word(name)
        if own in _TAKEN or own[0].isdigit() or re.fullmatch(r"[a-z]+\d+", own):
            own = f"b_{own}"
        while own in found.values():
            own += "_"
        found[name] = own
    return found


