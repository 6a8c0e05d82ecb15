"""A program as C99: a function for each kernel, and one for each run of kernels between calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from re import search

from graphc.backends.c.loops import LoopWriter, write_permutation
from graphc.backends.c.products import ProductWriter
from graphc.backends.c.scalars import Code, Functions, dim_text
from graphc.backends.c.scans import Pointer, ScanWriter
from graphc.backends.c.target import PROLOGUE
from graphc.backends.interface import C_TYPES
from graphc.backends.layout import CODE, Layout, block_of, pitches, start_of, table_index
from graphc.backends.names import BUFFER, OWN, Identifiers, comment
from graphc.ir.tensor_type import Shape, TensorType
from graphc.kernels.kernel import Chain, Gemm, Kernel, Permutation, buffers_of
from graphc.kernels.program import Buffer, Instr, Program
from graphc.kernels.stack import links_of
from graphc.kernels.text import kernel_text

UNNAMED = "\0"
"""The name of a kernel's function until all programs have been written: equal ones are one."""


class KernelFile:
    """The functions of a C file: kernels, and what they call."""

    def __init__(self, fused: bool) -> None:
        """Start without kernels; multiply-adds are fused or not."""
        self.functions = Functions(fused)
        self._kernels: dict[str, str] = {}
        """The name of each kernel, by the rest of its text."""
        self._names = Identifiers()
        self.stack = 0
        """The bytes of stack that a call of a kernel needs at most."""

    def calls(
        self, program: Program, numbers: Iterable[int], pointer: Pointer, rows: str = "n"
    ) -> list[str]:
        """Add the kernels of instructions, and return their calls for a number of rows."""
        return [self._call(program, number, pointer, rows) for number in numbers]

    def text(self) -> str:
        """Return the functions, those that kernels call first."""
        kernels = (rest.replace(UNNAMED, name, 1) for rest, name in self._kernels.items())
        return "\n\n".join([*self.functions.texts.values(), *kernels])

    def _call(self, program: Program, number: int, pointer: Pointer, rows: str) -> str:
        instr = program.instrs[number]
        own, given = f"{program.name}_{number}_{instr.node}", [rows]
        if instr.inside is not None:
            name, used = self._scan(program, instr, own), instr.buffers
        else:
            assert instr.body is not None, "the instruction is a kernel"
            single = program.capacity == 1
            name = self._function(instr.body, program.buffers, single, own)
            used, given = buffers_of(instr.body), [] if single else given
        pointers = [pointer(program.buffers[one]) for one in used]
        return f"{name}({', '.join([*pointers, *given])});"

    def _scan(self, program: Program, instr: Instr, own: str) -> str:
        """Add a loop and the kernels of its steps; return its name."""
        around, self.stack = self.stack, 0
        writer = ScanWriter(program, instr)
        code = writer.write(self.functions, self._step)
        _use_rows(code, False)
        text, stack = code.function(f"static void {UNNAMED}({writer.head()})")
        self.stack = max(around, stack + self.stack)
        return self._named(f"/* {comment(writer.scan.head)} */\n{text}\n", own)

    def _step(self, program: Program, pointer: Pointer, rows: str) -> list[str]:
        """Add the kernels of a step, and return their calls."""
        numbers = [i for i, instr in enumerate(program.instrs) if instr.kind in CODE]
        return self.calls(program, numbers, pointer, rows)

    def _function(
        self, kernel: Kernel, buffers: Mapping[str, Buffer], single: bool, own: str
    ) -> str:
        """Add a kernel under its own name unless an equal one is there, and return the name."""
        calls: list[str] = []
        if isinstance(kernel, Chain):
            place, known = buffers[kernel.workspace], dict(buffers)
            for p in kernel.private:
                known[p.buffer] = place._replace(type=TensorType(p.matrix, p.dtype))
            calls = [
                self._function(link.kernel, known, single, f"{own}_{i}")
                for i, link in enumerate(links_of(kernel))
            ]
        text, stack = kernel_source(kernel, buffers, self.functions, single, calls)
        below = self.stack if calls else 0  # of the kernels that a chain calls, or more
        self.stack = max(self.stack, stack + below)
        return self._named(text, own)

    def _named(self, text: str, own: str) -> str:
        """Return the name of a function: that of an equal one, or else its own or one like it."""
        if text not in self._kernels:
            self._kernels[text] = self._names.new(OWN, own)
        return self._kernels[text]


def program_source(program: Program, parts: Layout) -> str:
    """Return a file with the functions `segment0` and so on of a program's layout.

    They call `kernel0` and so on, one for each instruction that is code, by its number.
    """
    slots = {block: slot for slot, block in enumerate(parts.blocks)}
    file = KernelFile(program.contract == "fused")
    segments: list[str] = []

    def pointer(buffer: Buffer) -> str:
        place = f"block[{table_index(slots[block_of(buffer)])}] + {start_of(buffer)}"
        return f"({C_TYPES[buffer.type.dtype]} *)({place})"

    for segment in parts.segments:
        if segment.symbol is not None:
            calls = file.calls(program, segment.numbers, pointer)
            own = [f"kernel{number}" for number in segment.numbers]
            segments += map(_entry, own, ([call] for call in calls))
            segments.append(_entry(segment.symbol, [f"{name}(block, n);" for name in own]))
    return "\n".join([PROLOGUE, file.text(), *segments])


def _entry(name: str, calls: Sequence[str]) -> str:
    """Return a function that the library exports."""
    head = f"void {name}(unsigned char *const *block, ptrdiff_t n)"
    return "\n".join([head, "{", *(f"    {call}" for call in calls), "}", ""])


def kernel_source(
    kernel: Kernel,
    buffers: Mapping[str, Buffer],
    functions: Functions,
    single: bool,
    called: Sequence[str] = (),
) -> tuple[str, int]:
    """Return the function of a kernel, UNNAMED for its name, and the bytes of stack that it needs.

    The kernel's text is a comment before it.  It has no argument `n` if that is always a
    `single` row.  A chain calls the functions `called`, one for each of its kernels.
    """
    used, identifiers = buffers_of(kernel), Identifiers()
    names = {name: identifiers.new(BUFFER, name) for name in used}
    written = kernel.body.written
    types = {name: C_TYPES[buffers[name].type.dtype] for name in used}
    arguments = [f"{'' if b in written else 'const '}{types[b]} *{names[b]}" for b in used]
    code = Code(functions)
    pitch = {name: dim_text(dim) for name, dim in pitches(kernel, buffers).items()}
    if isinstance(kernel, Chain):
        _write_chain(code, kernel, names, called, [] if single else ["n"])
    elif isinstance(kernel, Gemm):
        ProductWriter(code, kernel, names, types, pitch).write()
    elif isinstance(kernel, Permutation):
        write_permutation(code, kernel, names)
    else:
        LoopWriter(code, kernel, names, pitch).write()
    above = comment(kernel_text(kernel).rstrip()).replace("\n", "\n   ")
    _use_rows(code, single)
    arguments += ["ptrdiff_t n"] * (not single)
    text, stack = code.function(f"static void {UNNAMED}({', '.join(arguments)})")
    return f"/* {above} */\n{text}\n", stack


def _write_chain(
    code: Code, chain: Chain, names: Mapping[str, str], called: Sequence[str], more: list[str]
) -> None:
    """Write the loops over a chain's matrices, and in them the calls of these functions.

    `more` are their arguments after the buffers.
    """
    workspace = names[chain.workspace]
    private = {p.buffer: f"({C_TYPES[p.dtype]} *)({workspace} + {p.start})" for p in chain.private}
    index = [f"s{axis}" for axis in range(len(chain.sizes))]
    with ExitStack() as loops:
        for name, size in zip(index, chain.sizes, strict=True):
            loops.enter_context(code.loop(name, dim_text(size)))
        for function, link in zip(called, links_of(chain), strict=True):
            pointers = (
                private.get(name) or _moved(names[name], index, link.strides[name])
                for name in buffers_of(link.kernel)
            )
            code.do(f"{function}({', '.join([*pointers, *more])});")


def _moved(pointer: str, index: Sequence[str], strides: Shape) -> str:
    """Return the expression of the address of a matrix."""
    pairs = zip(index, strides, strict=True)
    return " + ".join([pointer, *(f"{i} * {dim_text(stride)}" for i, stride in pairs if stride)])


def _use_rows(code: Code, single: bool) -> None:
    """Write that a function does not use its number of rows, or that there is always one."""
    if any(search(r"\bn\b", line) for line in code.lines):
        code.lines[:0] = ["    const ptrdiff_t n = 1;"] * single
    elif not single:
        code.lines.insert(0, "    (void)n;")
