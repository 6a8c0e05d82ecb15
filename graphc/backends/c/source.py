"""A program as C99: a function for each kernel, and one for each run of kernels between calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from re import fullmatch, search

from graphc.backends.c.loops import LoopWriter, write_permutation
from graphc.backends.c.products import ProductWriter
from graphc.backends.c.scalars import Code, Functions, dim_text
from graphc.backends.c.target import PROLOGUE
from graphc.backends.interface import C_TYPES, KEYWORDS, unique, word
from graphc.backends.layout import Layout, block_of, start_of, table_index
from graphc.kernels.kernel import Gemm, Kernel, Permutation, inputs
from graphc.kernels.program import Buffer, Program
from graphc.kernels.text import kernel_text

UNNAMED = "\0"
"""The name of a kernel's function until all programs have been written: equal ones are one."""
Pointer = Callable[[Buffer], str]
"""The expression of the address of a buffer's first element."""


class KernelFile:
    """The functions of a C file: kernels, and what they call."""

    def __init__(self, fused: bool) -> None:
        """Start without kernels; multiply-adds are fused or not."""
        self.functions = Functions(fused)
        self._kernels: dict[str, str] = {}
        """The name of each kernel, by the rest of its text."""
        self.stack = 0
        """The bytes of stack that a call of a kernel needs at most."""

    def calls(self, program: Program, numbers: Iterable[int], pointer: Pointer) -> list[str]:
        """Add the kernels of instructions, and return their calls."""
        return [self._call(program, number, pointer) for number in numbers]

    def text(self) -> str:
        """Return the functions, those that kernels call first."""
        kernels = (rest.replace(UNNAMED, name, 1) for rest, name in self._kernels.items())
        return "\n\n".join([*self.functions.texts.values(), *kernels])

    def _call(self, program: Program, number: int, pointer: Pointer) -> str:
        instr = program.instrs[number]
        kernel = instr.body
        assert kernel is not None, "the instruction is a kernel"
        single = program.capacity == 1
        text, stack = kernel_source(kernel, program.buffers, self.functions, single)
        self.stack = max(self.stack, stack)
        own = f"{program.name}_{number}_{word(instr.node)}"
        name = self._kernels.setdefault(text, own)
        pointers = []
        for used in buffers_of(kernel):
            pointers.append(pointer(program.buffers[used]))
        return f"{name}({', '.join(pointers if single else [*pointers, 'n'])});"


def program_source(program: Program, parts: Layout) -> str:
    """Return a file with the functions `segment0` and so on of a program's layout."""
    slots = {block: slot for slot, block in enumerate(parts.blocks)}
    file, segments = KernelFile(program.contract == "fused"), []

    def pointer(buffer: Buffer) -> str:
        place = f"block[{table_index(slots[block_of(buffer)])}] + {start_of(buffer)}"
        return f"({C_TYPES[buffer.type.dtype]} *)({place})"

    for segment in parts.segments:
        if segment.symbol is not None:
            numbers = [number for epoch in segment.epochs for number in epoch]
            calls = [f"    {call}" for call in file.calls(program, numbers, pointer)]
            head = f"void {segment.symbol}(unsigned char *const *block, ptrdiff_t n)"
            segments.append("\n".join([head, "{", *calls, "}", ""]))
    return "\n".join([PROLOGUE, file.text(), *segments])


def buffers_of(kernel: Kernel) -> tuple[str, ...]:
    """Return the buffers that a kernel reads and writes, each once."""
    return tuple(dict.fromkeys((*inputs(kernel), *kernel.body.written)))


def kernel_source(
    kernel: Kernel, buffers: Mapping[str, Buffer], functions: Functions, single: bool
) -> tuple[str, int]:
    """Return the function of a kernel, UNNAMED for its name, and the bytes of stack that it needs.

    The kernel's text is a comment before it.  It has no argument `n` if that is always a
    `single` row.
    """
    used = buffers_of(kernel)
    names = dict(zip(used, unique(map(_safe, used), _TAKEN), strict=True))
    written = kernel.body.written
    types = {name: C_TYPES[buffers[name].type.dtype] for name in used}
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
    if any(search(r"\bn\b", line) for line in code.lines):
        code.lines[:0] = ["    const ptrdiff_t n = 1;"] * single
    elif not single:
        code.lines.insert(0, "    (void)n;")
    arguments += ["ptrdiff_t n"] * (not single)
    text, stack = code.function(f"static void {UNNAMED}({', '.join(arguments)})")
    return f"/* {comment} */\n{text}\n", stack


def _pitches(kernel: Kernel, buffers: Mapping[str, Buffer]) -> dict[str, str]:
    """Return the elements from row to row of each buffer that has rows."""
    widths = dict.fromkeys((*kernel.body.loads, *kernel.body.written), kernel.space[1])
    if isinstance(kernel, Gemm):
        widths |= kernel.factor_columns
    return {name: dim_text(buffers[name].pitch or width) for name, width in widths.items()}


def _safe(name: str) -> str:
    """Return a name that none of the names of a kernel's variables equals."""
    return f"b_{name}" if fullmatch(r"[a-z]+\d+", name) else name


_TAKEN = KEYWORDS | {
    "n", "i", "j", "l", "p", "r", "o", "c", "x", "first", "end", "sums", "inside", "pixel",
    "image", "at", "index", "y0", "y1", "yn", "j0", "j1", "jn", "gamma", "top", "start",
    "pixels", "taps", "width", "rows", "part", "group", "depth", "place", "offset", "s", "q",
    "missing", "run", "from", "channel", "stop", "half", "rest", "state", "work", "arena", "bytes",
}  # fmt: skip
"""The names of variables in the functions of kernels."""
