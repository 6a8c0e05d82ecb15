"""A trained network as one C99 file and its header, without dependencies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from graphc.backends.c.products import scratch_bytes
from graphc.backends.c.scalars import TYPES, dim_text, literal
from graphc.backends.c.source import HEAD, KernelFile, start_of, word
from graphc.ir.op import Array
from graphc.ir.tensor_type import align, count
from graphc.kernels.kernel import Gemm
from graphc.kernels.program import Buffer, Program
from graphc.ops.source import Constant


class Files(NamedTuple):
    """The text of a C file, and of its header."""

    source: str
    header: str


class Export:
    """The files of some programs over one state; `prefix` begins every public name."""

    def __init__(self, prefix: str, programs: Mapping[str, Program], state: Mapping[str, Array]) -> None:
        self.prefix, self.programs, self.state = prefix, programs, state
        self.file = KernelFile()
        self.constants: dict[str, str] = {}
        self.offsets: dict[str, int] = {}
        at = 0
        for name, array in state.items():
            self.offsets[name] = at
            at += align(array.nbytes)
        self.state_bytes = at
        arena = max(program.arena.nbytes for program in programs.values())
        self.scratch_at = align(arena)
        self.work_bytes = self.scratch_at + max(map(_scratch, programs.values()))

    def files(self, include: str) -> Files:
        """Return the two files; `include` is the header's name."""
        functions = [self._init(), *(self._function(*item) for item in self.programs.items())]
        declared = [f"{head};" for head, _ in functions]
        bodies = ["\n".join([head, "{", *lines, "}", ""]) for head, lines in functions]
        source = [f'#include "{include}"\n\n{HEAD}', *self.constants.values(), self.file.text(), *bodies]
        return Files("\n".join(source), self._header(declared))

    def _header(self, declared: Iterable[str]) -> str:
        upper = self.prefix.upper()
        batch = max(program.capacity for program in self.programs.values())
        return "\n".join([
            f"#ifndef {upper}_H", f"#define {upper}_H", "", "#include <stddef.h>",
            "#include <stdint.h>", "#include <stdbool.h>", "",
            f"#define {upper}_BATCH {batch}",
            f"#define {upper}_STATE_BYTES {self.state_bytes}",
            f"#define {upper}_WORK_BYTES {self.work_bytes}", "",
            "#ifdef __cplusplus", 'extern "C" {', "#endif", "", *declared, "",
            "#ifdef __cplusplus", "}", "#endif", "", "#endif", "",
        ])  # fmt: skip

    def _init(self) -> tuple[str, list[str]]:
        lines = []
        for name, array in self.state.items():
            variable = f"initial_{word(name)}"
            while variable in self.constants:
                variable += "_"
            self.constants[variable] = _array(variable, array)
            kind, size = TYPES[array.dtype.name], array.size
            target = f"(({kind} *)(bytes + {self.offsets[name]}))[i]"
            lines.append(f"    for (ptrdiff_t i = 0; i < {size}; ++i) {target} = {variable}[i];")
        return f"void {self.prefix}_init(void *state)", ["    unsigned char *const bytes = state;", *lines]

    def _function(self, name: str, program: Program) -> tuple[str, list[str]]:
        feeds = {feed: f"in_{word(feed)}" for feed in program.feeds}
        outputs = {
            public: program.buffers[buffer]
            for public, buffer in program.outputs.items()
        }
        losses = program.graph.losses if name != "infer" else ()
        arguments = ["void *state", "void *work", "ptrdiff_t n"]
        arguments += [f"const {TYPES[program.feeds[feed].dtype]} *{feeds[feed]}" for feed in feeds]
        shown = {k: b for k, b in outputs.items() if k not in losses}
        arguments += [f"{TYPES[b.type.dtype]} *out_{word(k)}" for k, b in shown.items()]

        def pointer(buffer: Buffer) -> str:
            if buffer.space == "state":
                return f"bytes + {self.offsets[buffer.key] + start_of(buffer)}"
            if buffer.space == "feed":
                return f"(const unsigned char *){feeds[buffer.key]} + {start_of(buffer)}"
            if buffer.space == "constant":
                return f"(const unsigned char *){self._constant(program, buffer.key)} + {start_of(buffer)}"
            return f"arena + {start_of(buffer)}"

        numbers = [i for i, instr in enumerate(program.instrs) if instr.body is not None]
        lines = [
            "    unsigned char *const bytes = state, *const arena = work;",
            f"    void *const scratch = arena + {self.scratch_at};",
            "    (void)bytes, (void)scratch;",
        ]
        lines += [f"    {call}" for call in self.file.calls(program, numbers, pointer)]
        for key, buffer in shown.items():
            kind = TYPES[buffer.type.dtype]
            size = dim_text(count(buffer.type.shape))
            read = f"((const {kind} *)({pointer(buffer)}))[i]"
            lines.append(f"    for (ptrdiff_t i = 0; i < {size}; ++i) out_{word(key)}[i] = {read};")
        result = "void"
        if losses:
            result = TYPES[outputs[losses[0]].type.dtype]
            terms = [f"*(const {result} *)({pointer(outputs[loss])})" for loss in losses]
            lines.append(f"    return {' + '.join(terms)};")
        called = {"step": "train_step", "grad": "backward"}.get(name, name)
        return f"{result} {self.prefix}_{called}({', '.join(arguments)})", lines

    def _constant(self, program: Program, key: str) -> str:
        variable = f"constant_{word(program.name)}_{word(key)}"
        op = program.graph[key].op
        assert isinstance(op, Constant), "constants are nodes"
        self.constants.setdefault(variable, _array(variable, op.array()))
        return variable


def _scratch(program: Program) -> int:
    kernels = (instr.body for instr in program.instrs)
    sizes = (scratch_bytes(k, program.capacity) for k in kernels if isinstance(k, Gemm))
    return max(sizes, default=0)


def _array(name: str, array: Array) -> str:
    dtype = array.dtype.name
    rows = "\n".join(f"    {line}" for line in _lines(np.asarray(array).reshape(-1), dtype))
    return f"static const {TYPES[dtype]} {name}[{max(array.size, 1)}] = {{\n{rows}\n}};\n"


def _lines(flat: Array, dtype: str) -> Iterator[str]:
    for start in range(0, len(flat), 8):
        yield ", ".join(literal(x, dtype) for x in flat[start : start + 8].tolist()) + ","
