"""A program as C99: a function for each kernel, and one for each run of kernels between calls."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from graphc.backends.c.loops import LoopWriter, write_permutation
from graphc.backends.c.products import ProductWriter
from graphc.backends.c.scalars import TYPES, Code, Functions, dim_text
from graphc.backends.native.program import Layout, block_of, layout, table_index
from graphc.ir.tensor_type import ITEMSIZE
from graphc.kernels.kernel import Gemm, Kernel, Permutation, ScatterAdd, factor_columns
from graphc.kernels.program import Buffer, Instr, Program
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


class _Source:
    def __init__(self, program: Program, layout: Layout) -> None:
        self.program, self.layout = program, layout
        self.functions = Functions()
        self.kernels: list[str] = []
        self.slots = {block: slot for slot, block in enumerate(layout.blocks)}

    def text(self) -> str:
        segments = []
        for segment in self.layout.segments:
            if segment.symbol is not None:
                calls = [self._call(number) for epoch in segment.epochs for number in epoch]
                lines = "\n".join(f"    {call}" for call in calls)
                head = f"void {segment.symbol}(unsigned char *const *block, ptrdiff_t n)"
                segments.append(f"{head}\n{{\n    (void)n;\n{lines}\n}}\n")
        helpers = "\n\n".join(self.functions.texts.values())
        return "\n".join([HEAD, helpers, "", *self.kernels, *segments])

    def _call(self, number: int) -> str:
        instr = self.program.instrs[number]
        kernel = instr.body
        assert kernel is not None, "epochs are of kernels"
        name = f"k{number}_{_word(instr.node)}"
        buffers = buffers_of(kernel)
        self.kernels.append(kernel_source(name, kernel, self.program.buffers, self.functions))
        pointers = [self._pointer(self.program.buffers[b], b in kernel.body.written) for b in buffers]
        return f"{name}({', '.join([*pointers, 'n'])});"

    def _pointer(self, buffer: Buffer, written: bool) -> str:
        slot = table_index(self.slots[block_of(buffer)])
        base = buffer.offset if buffer.space == "arena" else 0
        offset = base + buffer.shift * ITEMSIZE[buffer.type.dtype]
        const = "" if written else "const "
        return f"({const}{TYPES[buffer.type.dtype]} *)(block[{slot}] + {offset})"


def buffers_of(kernel: Kernel) -> tuple[str, ...]:
    """Return the buffers that a kernel reads and writes, each once."""
    given: tuple[str, ...] = ()
    if isinstance(kernel, Gemm):
        given = kernel.a, kernel.b
    elif isinstance(kernel, ScatterAdd):
        given = kernel.source, kernel.indices
    return tuple(dict.fromkeys((*given, *kernel.body.loads, *kernel.body.written)))


def kernel_source(
    name: str, kernel: Kernel, buffers: Mapping[str, Buffer], functions: Functions
) -> str:
    """Return the function of a kernel, with its text as a comment."""
    used = buffers_of(kernel)
    names = _unique(used)
    written = kernel.body.written
    arguments = [
        f"{'' if b in written else 'const '}{TYPES[_dtype(kernel, b, buffers)]} *{names[b]}"
        for b in used
    ]
    code = Code(functions)
    pitch = _pitches(kernel, buffers)
    if isinstance(kernel, Gemm):
        ProductWriter(kernel, names, pitch).write(code)
    elif isinstance(kernel, Permutation):
        write_permutation(code, kernel, names)
    else:
        LoopWriter(kernel, names, pitch).write(code)
    comment = kernel_text(kernel).rstrip().replace("*/", "* /").replace("\n", "\n   ")
    head = f"static void {name}({', '.join([*arguments, 'ptrdiff_t n'])})"
    return "\n".join([f"/* {comment} */", head, "{", "    (void)n;", *code.lines, "}", ""])


def _dtype(kernel: Kernel, buffer: str, buffers: Mapping[str, Buffer]) -> str:
    return buffers[buffer].type.dtype


def _pitches(kernel: Kernel, buffers: Mapping[str, Buffer]) -> dict[str, str]:
    columns = kernel.n if isinstance(kernel, Gemm) else kernel.columns
    found = {
        name: dim_text(buffers[name].pitch or columns)
        for name in (*kernel.body.loads, *kernel.body.written)
    }
    if isinstance(kernel, Gemm):
        for name, width in factor_columns(kernel).items():
            found[name] = dim_text(buffers[name].pitch or width)
    return found


def _word(name: str) -> str:
    """Return a name with only the characters of a C name."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


_TAKEN = frozenset(
    "auto break case char const continue default do double else enum extern float for goto if "
    "inline int long register restrict return short signed sizeof static struct switch typedef "
    "union unsigned void volatile while bool true false n i j l p r o c x first end sums inside "
    "pixel image at index y0 y1 yn j0 j1 jn gamma".split()
)


def _unique(names: Iterable[str]) -> dict[str, str]:
    """Return a C name for each buffer, alike where it can be."""
    found: dict[str, str] = {}
    for name in names:
        word = _word(name)
        if word in _TAKEN or word[0].isdigit() or re.fullmatch(r"[a-z]+\d+", word):
            word = f"_{word}" if not word.startswith("_") else f"b{word}"
            word = f"b{word}"
        while word in found.values():
            word += "_"
        found[name] = word
    return found


__all__ = ["Instr", "buffers_of", "kernel_source", "program_source"]
